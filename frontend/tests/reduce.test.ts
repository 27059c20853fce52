import { describe, expect, it } from 'vitest';
import type { InstanceView, ServerEvent } from '../src/api/types';
import { needsSnapshot, reduce } from '../src/state/reduce';
import { instance, job, model, view } from './fixtures';

const event = (kind: object): ServerEvent => ({ seq: 1, at_ms: 1, ...kind }) as ServerEvent;
const about = (change: Partial<InstanceView>) => event({ type: 'instance', instance: instance({ model: 'a', ...change }) });

describe('reduce', () => {
  const start = view({ models: [model({ key: 'a' }), model({ key: 'b' })] });

  it('follows a model from start to stop', () => {
    let state = reduce(start, about({ state: 'loading', progress: 0.4 }));
    expect(state.models[0]).toMatchObject({ state: 'loading', progress: 0.4 });
    state = reduce(state, about({ state: 'ready' }));
    expect(state.models[0]).toMatchObject({ state: 'ready', progress: null });
    state = reduce(state, event({ type: 'instance_gone', model: 'a' }));
    expect(state.models[0]).toMatchObject({ state: 'unloaded', instance: null });
    expect(state.models[1]).toBe(start.models[1]);
    expect(start.models[0]?.state).toBe('unloaded');
  });

  it('keeps the reason of a failure when the instance goes', () => {
    let state = reduce(start, event({ type: 'model_failed', model: 'a', reason: 'out of memory' }));
    state = reduce(state, event({ type: 'instance_gone', model: 'a' }));
    expect(state.models[0]).toMatchObject({ state: 'failed', reason: 'out of memory', instance: null });
  });

  it('clears the reason with the next start', () => {
    const failed = reduce(start, event({ type: 'model_failed', model: 'a', reason: 'x' }));
    expect(reduce(failed, about({ state: 'loading', progress: 0 })).models[0]?.reason).toBeNull();
  });

  it('ignores events about unknown models', () => {
    expect(reduce(start, event({ type: 'instance_gone', model: 'z' })).models).toEqual(start.models);
  });

  it('takes over what a reload of the configuration said', () => {
    const state = reduce(start, event({ type: 'config', accepted: false, message: 'line 4' }));
    expect(state.config).toMatchObject({ ok: false, error: 'line 4' });
  });

  it('follows downloads, newest first', () => {
    const older = job({ id: 'a', started_ms: 1 });
    let state = reduce(view({ downloads: [older] }), event({ type: 'download', job: job({ id: 'b', started_ms: 2 }) }));
    state = reduce(state, event({ type: 'download', job: { ...older, state: 'paused' } }));
    expect(state.downloads.map((d) => [d.id, d.state])).toEqual([
      ['b', 'downloading'],
      ['a', 'paused'],
    ]);
  });

  it('asks for a snapshot where an event does not carry everything', () => {
    const table: [object, boolean][] = [
      [{ type: 'requests', active: 1 }, true],
      [{ type: 'catalog_changed', models: 3 }, true],
      [{ type: 'shutting_down' }, false],
      [{ type: 'download', job: job() }, false],
      [{ type: 'download', job: job({ state: 'cancelled' }) }, true],
      [{ type: 'instance', instance: instance({ state: 'loading', progress: 0.1 }) }, false],
      [{ type: 'instance', instance: instance({ state: 'ready' }) }, true],
    ];
    for (const [kind, wanted] of table) expect(needsSnapshot(event(kind)), JSON.stringify(kind)).toBe(wanted);
  });
});
