import type { ModelView } from '../api/types';
import { running } from '../text/status';

export interface ModelFilter {
  text: string;
  /** `loaded`, a capability, or null for all. */
  chip: string | null;
}

/** The chips worth showing: what some installed model can do and another cannot tell by itself. */
export function chips(models: readonly ModelView[]): string[] {
  const shown = ['chat', 'embedding', 'rerank', 'vision', 'tools', 'transcription', 'speech'];
  return shown.filter((capability) => models.some((model) => model.capabilities.includes(capability)));
}

/** Does the model pass? Every word must occur in one of its names, its quantization or what it can do. */
export function matches(model: ModelView, filter: ModelFilter): boolean {
  if (filter.chip === 'loaded' && !running(model)) return false;
  if (filter.chip !== null && filter.chip !== 'loaded' && !model.capabilities.includes(filter.chip)) return false;
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return true;
  const text = [model.key, model.display_name, model.quantization, ...model.aliases, ...model.capabilities].join(' ').toLowerCase();
  return words.every((word) => text.includes(word));
}
