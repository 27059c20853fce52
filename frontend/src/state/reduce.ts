import type { InstanceView, ModelView, ServerEvent, StateView, TranscriptionView } from '../api/types';

/** Transcriptions kept, besides those under way. */
const MOST_TRANSCRIPTIONS = 20;

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
    case 'transcription': {
      const moved = event.transcription;
      // A new one comes first; one that moves stays where it is.
      const transcriptions = state.transcriptions.some((one) => one.id === moved.id)
        ? state.transcriptions.map((one) => (one.id === moved.id ? moved : one))
        : [moved, ...state.transcriptions].filter((one, at) => at < MOST_TRANSCRIPTIONS || underWay(one));
      return { ...state, transcriptions };
    }
    case 'catalog_changed':
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

/** Is it still to be heard, or being heard? */
export const underWay = (transcription: TranscriptionView): boolean =>
  transcription.state === 'queued' || transcription.state === 'running';

/** The transcription of an answer with this `x-request-id`, which writes in hexadecimal what events have as a number. */
export function transcriptionOf(requestId: string | null, list: readonly TranscriptionView[]): TranscriptionView | undefined {
  const id = requestId === null ? NaN : Number(`0x${requestId}`);
  return list.find((one) => one.id === id);
}
