import type { InstanceView, ModelView, ServerEvent, StateView, TranscriptionView } from '../api/types';

function changeModel(state: StateView, key: string, change: Partial<ModelView>): StateView {
  const models = state.models.map((model) => (model.key === key ? { ...model, ...change } : model));
  return { ...state, models };
}

function fromInstance(instance: InstanceView): Partial<ModelView> {
  return {
    state: instance.state,
    progress: instance.progress ?? null,
    reason: instance.reason ?? null,
    instance,
  };
}

/** The state after an event. What an event does not say is left as it was until the next snapshot. */
export function reduce(state: StateView, event: ServerEvent): StateView {
  switch (event.type) {
    case 'instance':
      return changeModel(state, event.instance.model, fromInstance(event.instance));
    case 'instance_gone': {
      // A failed model keeps its reason: the instance is gone because it failed.
      const model = state.models.find((m) => m.key === event.model);
      const kept: Partial<ModelView> = model?.state === 'failed' ? {} : { state: 'unloaded', progress: null, reason: null };
      return changeModel(state, event.model, { ...kept, instance: null });
    }
    case 'model_failed':
      return changeModel(state, event.model, { state: 'failed', reason: event.reason, progress: null, instance: null });
    case 'config':
      return { ...state, config: { ...state.config, ok: event.accepted, error: event.accepted ? null : event.message } };
    case 'download': {
      const others = state.downloads.filter((job) => job.id !== event.job.id);
      const downloads = [...others, event.job].sort((a, b) => b.started_ms - a.started_ms || b.id.localeCompare(a.id));
      return { ...state, downloads };
    }
    case 'catalog_changed':
    case 'transcription':
    case 'requests':
    case 'log':
    case 'shutting_down':
      return state;
  }
}

/** Does the event change things it does not carry (memory, the list of requests, the list of models)? */
export function needsSnapshot(event: ServerEvent): boolean {
  switch (event.type) {
    case 'instance':
      return event.instance.state !== 'loading';
    case 'download':
      // At its end the server decides what stays in the list.
      return ['completed', 'failed', 'cancelled'].includes(event.job.state);
    case 'transcription':
    case 'log':
    case 'shutting_down':
      return false;
    default:
      return true;
  }
}

/** The transcriptions under way after one of them moved; those that ended are dropped. */
export function foldTranscription(list: readonly TranscriptionView[], moved: TranscriptionView): readonly TranscriptionView[] {
  const others = list.filter((one) => one.id !== moved.id);
  const over = moved.state === 'completed' || moved.state === 'failed' || moved.state === 'cancelled';
  return over ? others : [...others, moved].sort((a, b) => String(a.id).localeCompare(String(b.id), undefined, { numeric: true }));
}
