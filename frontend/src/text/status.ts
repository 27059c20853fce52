import type { ModelView, StateView } from '../api/types';
import { t } from './index';

export type Tone = 'ok' | 'busy' | 'load' | 'idle' | 'err';

/** What a model's badge shows: one shape, one word. */
export interface ModelBadge {
  tone: Tone;
  word: string;
}

export function badge(model: Pick<ModelView, 'state' | 'instance'>): ModelBadge {
  switch (model.state) {
    case 'ready':
      return (model.instance?.active ?? 0) > 0 ? { tone: 'busy', word: t.states.busy } : { tone: 'ok', word: t.states.ready };
    case 'loading':
      return { tone: 'load', word: t.states.loading };
    case 'queued':
      return { tone: 'load', word: t.states.queued };
    case 'draining':
      return { tone: 'load', word: t.states.draining };
    case 'failed':
      return { tone: 'err', word: t.states.failed };
    case 'unloaded':
      return { tone: 'idle', word: t.states.unloaded };
  }
}

/** Can the model be stopped (or its start cancelled)? Otherwise it can be started. */
export function running(model: Pick<ModelView, 'state'>): boolean {
  return model.state === 'ready' || model.state === 'loading' || model.state === 'queued' || model.state === 'draining';
}

const LISTENERS = ['ollama', 'lmstudio', 'management'] as const;

/** Every sentence the user should read first, most serious first. */
export function problems(state: StateView): string[] {
  const found: string[] = [];
  // The server's list holds the listeners' and the configuration's words too; here they are told in more detail.
  const told = new Set<string>();
  if (!state.engine.available) found.push(t.engine.missing(state.engine.error ?? ''));
  for (const name of LISTENERS) {
    const problem = state.listeners[name].problem;
    if (!problem) continue;
    told.add(problem.error);
    const what = t.listeners[name];
    found.push(
      problem.held_by ? t.listeners.heldBy(what, problem.held_by.name, problem.held_by.pid) : t.listeners.failed(what, problem.error),
    );
  }
  for (const model of state.models) {
    if (model.state === 'failed') found.push(t.models.failed(model.display_name, model.reason ?? ''));
  }
  if (!state.config.ok) {
    const error = state.config.error ?? '';
    told.add(error);
    found.push(t.config.refused(error));
  }
  return [...new Set([...found, ...state.problems.filter((text) => !told.has(text))])];
}

/** `all`, `some` or `none` of the enabled listeners answer. */
export function serving(state: StateView): 'all' | 'some' | 'none' {
  const enabled = LISTENERS.map((name) => state.listeners[name]).filter((listener) => listener.enabled);
  const bound = enabled.filter((listener) => listener.address !== null);
  if (bound.length === 0) return 'none';
  return bound.length === enabled.length ? 'all' : 'some';
}

export interface MemoryShare {
  owner: string;
  kind: 'model' | 'others' | 'free';
  bytes: number;
}

/** Who holds the memory: each loaded model, other programs, and what is free. Adds up to the total. */
export function memoryShares(state: StateView): MemoryShare[] {
  const { total, available } = state.memory;
  const models = state.models
    .map((model) => ({ owner: model.display_name, kind: 'model' as const, bytes: model.instance?.memory_bytes ?? 0 }))
    .filter((share) => share.bytes > 0);
  const mine = models.reduce((sum, share) => sum + share.bytes, 0);
  const others = Math.max(0, total - available - mine);
  return [
    ...models,
    { owner: t.memory.others, kind: 'others', bytes: others },
    { owner: t.memory.free, kind: 'free', bytes: Math.max(0, total - others - mine) },
  ];
}
