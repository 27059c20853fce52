import { describe, expect, it } from 'vitest';
import { badge, memoryShares, problems, serving } from '../src/text/status';
import { chips, matches } from '../src/state/filter';
import { instance, model, view } from './fixtures';

describe('badge', () => {
  it('says loaded when idle and in use when busy', () => {
    expect(badge(model({ state: 'ready', instance: instance() })).word).toBe('loaded');
    expect(badge(model({ state: 'ready', instance: instance({ active: 2 }) })).word).toBe('in use');
    expect(badge(model({ state: 'failed' })).tone).toBe('err');
  });
});

describe('problems', () => {
  it('is silent when all is well', () => expect(problems(view())).toEqual([]));

  it('names who holds a port', () => {
    const state = view();
    state.listeners.ollama = { enabled: true, address: null, problem: { error: 'in use', held_by: { pid: 812, name: 'ollama' } } };
    expect(problems(state)).toEqual([
      'The Ollama port is used by ollama (pid 812). Apps that expect Ollama reach that program, not LlamaRunner.',
    ]);
    expect(serving(state)).toBe('some');
  });

  it('says each thing once', () => {
    const state = view({
      problems: ['in use', 'line 4', 'a.gguf: cut short', 'a.gguf: cut short'],
      config: { path: '', ok: false, error: 'line 4' },
      models: [model({ state: 'failed', reason: 'Out of memory.' })],
    });
    state.listeners.lmstudio = { enabled: true, address: null, problem: { error: 'in use', held_by: null } };
    expect(problems(state)).toEqual([
      'The LM Studio port is not served: in use',
      'a did not start. Out of memory.',
      'config.json was not accepted. line 4 The previous configuration stays in use.',
      'a.gguf: cut short',
    ]);
  });

  it('counts a disabled listener as no problem', () => {
    const state = view();
    state.listeners.ollama = { enabled: false, address: null, problem: null };
    expect(serving(state)).toBe('all');
  });
});

describe('memoryShares', () => {
  it('adds up to the total', () => {
    const state = view({
      memory: { total: 100, available: 40, engines: 30 },
      models: [model({ instance: instance({ memory_bytes: 30 }) }), model({ key: 'b' })],
    });
    const shares = memoryShares(state);
    expect(shares.map((share) => share.bytes)).toEqual([30, 30, 40]);
  });

  it('never shows less than nothing', () => {
    const state = view({
      memory: { total: 100, available: 90, engines: 30 },
      models: [model({ instance: instance({ memory_bytes: 30 }) })],
    });
    expect(memoryShares(state).every((share) => share.bytes >= 0)).toBe(true);
    expect(memoryShares(state).reduce((sum, share) => sum + share.bytes, 0)).toBe(100);
  });
});

describe('filter', () => {
  const all = [model({ key: 'qwen3-8b', capabilities: ['chat', 'tools'], aliases: ['gpt-4o-mini'] }), model({ key: 'bge', capabilities: ['embedding'] })];
  const keys = (text: string, chip: string | null) => all.filter((m) => matches(m, { text, chip })).map((m) => m.key);

  it('finds by name, alias, capability and chip', () => {
    expect(keys('', null)).toEqual(['qwen3-8b', 'bge']);
    expect(keys('QWEN 8b', null)).toEqual(['qwen3-8b']);
    expect(keys('gpt-4o', null)).toEqual(['qwen3-8b']);
    expect(keys('', 'embedding')).toEqual(['bge']);
    expect(keys('', 'loaded')).toEqual([]);
    expect(chips(all)).toEqual(['chat', 'embedding', 'tools']);
  });
});
