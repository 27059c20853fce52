// Speech with OpenAI's own client: real faster-whisper with a tiny model, real espeak-ng.
import assert from 'node:assert/strict';
import { createReadStream, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import OpenAI, { toFile } from 'openai';
import { recordings, start } from './server.js';

const model = 'tiny-whisper';
const expected = JSON.parse(readFileSync(join(recordings, 'expected.json'), 'utf8'));
const hello = expected['hello.mp3'];
const open = (name) => createReadStream(join(recordings, name));

let server;
before(async () => { server = await start(); });
after(async () => assert.equal(await server.stop(), 0));

for (const port of ['ollama', 'lmstudio', 'management']) {
  const client = () => new OpenAI({ baseURL: `${server[port]}/v1`, apiKey: 'none', maxRetries: 0 });

  test(`${port}: hears in every format`, async () => {
    const ask = (more) => client().audio.transcriptions.create({ model, file: open('hello.mp3'), ...more });
    assert.equal((await ask({})).text, hello.got_text);
    assert.equal(await ask({ response_format: 'text' }), `${hello.got_text}\n`);
    assert.ok((await ask({ response_format: 'srt' })).startsWith('1\n00:00:00,000 --> 00:00:01,520\nHello, this is a test\n\n2\n'));
    assert.ok((await ask({ response_format: 'vtt' })).startsWith('WEBVTT\n\n00:00:00.000 --> 00:00:01.520\n'));
    const verbose = await ask({ response_format: 'verbose_json', timestamp_granularities: ['word', 'segment'] });
    assert.equal(verbose.language, 'english');
    assert.deepEqual(verbose.segments.map((s) => s.text.trim()), hello.segments.map((s) => s.text));
    assert.equal(verbose.words.map((w) => w.word).join(' '), hello.got_text);
  });

  test(`${port}: streams a long recording and translates`, async () => {
    const kinds = [];
    let text = '';
    let whole = '';
    for await (const event of await client().audio.transcriptions.create({ model, file: open('long-90s.ogg'), stream: true })) {
      kinds.push(event.type);
      if (event.type === 'transcript.text.delta') text += event.delta;
      else whole = event.text;
    }
    assert.equal(kinds.at(-1), 'transcript.text.done');
    assert.ok(kinds.length > 2 && kinds.slice(0, -1).every((kind) => kind === 'transcript.text.delta'));
    assert.equal(text.trim(), whole);
    assert.equal(whole, expected['long-90s.ogg'].got_text);
    const english = await client().audio.translations.create({ model, file: open('german-service.wav') });
    assert.equal(english.text, expected['german-service.wav'].got_translation);
  });

  test(`${port}: speaks, and what it says is heard`, async () => {
    const said = await client().audio.speech.create({
      model: 'tts-1', voice: 'en-us', input: 'The quick brown fox jumps over the lazy dog.', response_format: 'flac',
    });
    assert.equal(said.headers.get('content-type'), 'audio/flac');
    const file = await toFile(Buffer.from(await said.arrayBuffer()), 'said.flac');
    assert.equal((await client().audio.transcriptions.create({ model, file })).text, expected['fox.wav'].got_text);
    const mp3 = await client().audio.speech.create({ model: 'tts-1', voice: 'alloy', input: 'Hello.' });
    assert.equal(mp3.headers.get('content-type'), 'audio/mpeg');
    assert.ok((await mp3.arrayBuffer()).byteLength > 1000);
  });

  test(`${port}: refuses what it cannot hear`, async () => {
    for (const [name, code] of [['empty.wav', 'empty_file'], ['not-audio.mp3', 'unsupported_audio'], ['corrupt.wav', 'unsupported_audio'],
      ['video-without-sound.mp4', 'no_audio_stream']]) {
      await assert.rejects(client().audio.transcriptions.create({ model, file: open(name) }),
        (error) => error instanceof OpenAI.BadRequestError && error.code === code, name);
    }
    await assert.rejects(client().audio.transcriptions.create({ model: 'none', file: open('fox.wav') }), OpenAI.NotFoundError);
    await assert.rejects(client().audio.speech.create({ model: 'tts-1', voice: 'nobody', input: 'Hi.' }),
      (error) => error instanceof OpenAI.BadRequestError && error.code === 'voice_not_found');
  });
}
