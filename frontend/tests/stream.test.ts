import { describe, expect, it } from 'vitest';
import { readChunk, type ChatTiming } from '../src/api/chat';
import { errorMessage } from '../src/api/client';
import { SseSplitter } from '../src/api/sse';
import { readSpeechEvent, type Heard, type Segment } from '../src/api/speech';
import { GrowingMarkdown } from '../src/markdown/blocks';
import { LogWindow } from '../src/state/log';
import { parseRoute, routeTo } from '../src/state/route.svelte';

describe('SseSplitter', () => {
  const bytes = new TextEncoder().encode(': hi\n\nevent: state\ndata: {"a":"é🦙"}\n\ndata: 1\r\ndata: 2\r\n\r\ndata:[DONE]\n\n');
  const wanted = [
    { event: 'state', data: '{"a":"é🦙"}' },
    { event: 'message', data: '1\n2' },
    { event: 'message', data: '[DONE]' },
  ];

  it('gives the same events however the bytes are cut', () => {
    for (let size = 1; size <= bytes.length; size += 1) {
      const splitter = new SseSplitter();
      const events = [];
      for (let at = 0; at < bytes.length; at += size) events.push(...splitter.push(bytes.slice(at, at + size)));
      expect(events, `pieces of ${size}`).toEqual(wanted);
    }
  });
});

describe('readChunk', () => {
  function collect(...chunks: unknown[]) {
    const got = { text: '', reasoning: '', finish: '', timing: null as ChatTiming | null };
    for (const chunk of chunks) {
      readChunk(typeof chunk === 'string' ? chunk : JSON.stringify(chunk), {
        text: (piece) => (got.text += piece),
        reasoning: (piece) => (got.reasoning += piece),
        finish: (reason) => (got.finish = reason),
        timing: (timing) => (got.timing = timing),
      });
    }
    return got;
  }

  it('collects reasoning, text, finish and timing', () => {
    const got = collect(
      { choices: [{ delta: { role: 'assistant', content: null } }] },
      { choices: [{ delta: { reasoning_content: 'hm' } }] },
      { choices: [{ delta: { content: 'Hel' } }] },
      { choices: [{ delta: { content: 'lo' } }] },
      { choices: [{ delta: {}, finish_reason: 'stop' }] },
      { choices: [], usage: { completion_tokens: 2, prompt_tokens: 10 }, timings: { predicted_per_second: 50, cache_n: 4, prompt_n: 6 } },
      '[DONE]',
    );
    expect(got).toEqual({
      text: 'Hello',
      reasoning: 'hm',
      finish: 'stop',
      timing: { tokens: 2, tokensPerSecond: 50, promptTokens: 10, cachedTokens: 4 },
    });
  });

  it('throws on an error in mid-stream, in its words', () => {
    expect(() => collect({ error: { message: 'the engine died' } })).toThrow('the engine died');
  });
});

describe('readSpeechEvent', () => {
  function collect(...events: unknown[]) {
    const got = { segments: [] as Segment[], progress: null as number | null, heard: null as Heard | null };
    for (const event of events) {
      readSpeechEvent(typeof event === 'string' ? event : JSON.stringify(event), {
        begin: () => undefined,
        segment: (segment, progress) => {
          got.segments.push(segment);
          got.progress = progress;
        },
        done: (heard) => (got.heard = heard),
      });
    }
    return got;
  }

  it('collects pieces with their times, then the whole', () => {
    const got = collect(
      { type: 'transcript.text.delta', delta: ' Hello,', segment: { id: 0, start: 0, end: 1.5 }, progress: 0.5 },
      { type: 'transcript.text.delta', delta: ' you.' },
      { type: 'some.other.event' },
      { type: 'transcript.text.done', text: 'Hello, you.', language: 'en', language_probability: 0.9, duration: 3 },
      '[DONE]',
    );
    expect(got.segments).toEqual([
      { start: 0, end: 1.5, text: ' Hello,' },
      { start: 0, end: 0, text: ' you.' },
    ]);
    expect(got.heard).toEqual({ text: 'Hello, you.', language: 'en', confidence: 0.9, duration: 3 });
  });

  it.each([
    [{ language: 'en', source_language: 'de' }, 'de'],
    [{ language: 'en', detected_language: null }, null],
    [{ language: 'fr' }, 'fr'],
    [{}, null],
  ])('the language that was spoken in %o', (more, language) => {
    expect(collect({ type: 'transcript.text.done', text: '', ...more }).heard?.language).toBe(language);
  });

  it('throws on an error in mid-stream, in its words', () => {
    expect(() => collect({ error: { message: 'the engine died', code: 'engine_failed' } })).toThrow('the engine died');
  });
});

describe('errorMessage', () => {
  it.each([
    ['{"error":{"message":"a"}}', 'a'],
    ['{"error":"b"}', 'b'],
    ['{"message":"c"}', 'c'],
    ['plain', 'plain'],
    ['', 'HTTP 502'],
    ['x'.repeat(400), 'HTTP 502'],
  ])('%s', (text, message) => expect(errorMessage(text, 502)).toBe(message));
});

describe('GrowingMarkdown', () => {
  const text = '# T\n\npara one\nstill one\n\n- a\n\n- b\n\n```js\nlet a = 1;\n\nlet b;\n```\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\nend [x](https://a.b)';
  const raw = (growing: GrowingMarkdown) => [...growing.blocks, ...growing.tail].map((token) => [token.type, token.raw.trim()]);

  it('ends with the blocks of the whole text, token by token', () => {
    const whole = new GrowingMarkdown();
    whole.set(text);
    for (const size of [1, 3, 7]) {
      const growing = new GrowingMarkdown();
      for (let end = size; end < text.length; end += size) growing.set(text.slice(0, end));
      growing.set(text);
      expect(raw(growing)).toEqual(raw(whole));
    }
  });

  it('does not lex finished blocks again', () => {
    const growing = new GrowingMarkdown();
    growing.set('one\n\ntwo\n\nth');
    const first = growing.blocks[0];
    growing.set('one\n\ntwo\n\nthree\n\n');
    expect(growing.blocks[0]).toBe(first);
    expect(growing.tail.map((token) => token.raw)).toEqual(['three']);
  });

  it('starts over with another text', () => {
    const growing = new GrowingMarkdown();
    growing.set('one\n\ntwo\n\nthree');
    growing.set('other');
    expect(raw(growing)).toEqual([['paragraph', 'other']]);
  });
});

describe('LogWindow', () => {
  it('keeps the newest and counts the rest', () => {
    const log = new LogWindow(3);
    log.push(['a', 'b']);
    log.push(['c', 'd']);
    expect(log.lines).toEqual(['b', 'c', 'd']);
    expect(log.first).toBe(1);
  });
});

describe('routes', () => {
  it('survive any model name', () => {
    for (const name of ['a', 'publisher/repo/file.gguf', 'ä b%', '#?']) {
      expect(parseRoute(routeTo('models', name))).toEqual({ page: 'models', model: name });
    }
    expect(parseRoute('#/speech')).toEqual({ page: 'speech', model: null });
    expect(parseRoute('#/nowhere')).toEqual({ page: 'home', model: null });
    expect(parseRoute('#/models/%E0%A4%A')).toEqual({ page: 'models', model: null });
  });
});
