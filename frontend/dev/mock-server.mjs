// A stand-in for the product while working on the window: `npm run mock`, then `npm run dev`, or open
// http://127.0.0.1:5801/ui/ after `npm run build`. Speaks the state, event, log, start/stop, chat and speech routes with made-up data.
// Unit-tested code never depends on it.
import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';

const port = Number(process.env.PORT ?? 5801);
const dist = new URL('../dist/', import.meta.url).pathname;
const GIB = 1024 ** 3;

const model = (key, more = {}) => ({
  key, display_name: key, description: null, source: 'folder', size: 4.98e9, quantization: 'Q4_K_M', parameters: 8.2e9,
  context_length: 40960, capabilities: ['completion', 'chat', 'tools', 'thinking'], state: 'unloaded', progress: null, reason: null,
  instance: null, pinned: false, aliases: [`${key}:latest`], ...more,
});
const state = {
  version: '0.1.0', uptime_s: 12,
  listeners: {
    ollama: { enabled: true, address: null, problem: { error: 'Address in use', held_by: { pid: 812, name: 'ollama' } } },
    lmstudio: { enabled: true, address: '127.0.0.1:1234', problem: null },
    management: { enabled: true, address: `127.0.0.1:${port}`, problem: null },
  },
  engine: { available: true, version: 'b11549', build: 11549, error: null },
  models: [
    model('tiny-chat', { source: 'built-in', size: 1.8e6, quantization: 'F16', parameters: 890000, context_length: 4096,
      description: 'A demonstration that knows a few hundred sentences by heart. It is not a real assistant.', capabilities: ['completion', 'chat', 'tools', 'thinking'] }),
    model('qwen3-8b-instruct'),
    model('bge-m3', { capabilities: ['embedding'], size: 1.16e9, quantization: 'F16', parameters: 5.7e8 }),
    model('gemma-3-27b', { size: 16.5e9, parameters: 27e9, state: 'failed', capabilities: ['completion', 'chat', 'vision'],
      reason: 'It needs 17.9 GB of memory and 9.2 GB are free.' }),
    model('whisper-base', { size: 147.9e6, quantization: 'F16', parameters: 74e6, context_length: null, capabilities: ['transcription', 'translation'] }),
    model('espeak-ng', { size: 0, quantization: '', parameters: 0, context_length: null, capabilities: ['speech'] }),
    model('<img src=x onerror=alert(1)>', { capabilities: ['rerank'] }),
  ],
  requests: [], downloads: [], transcriptions: [], memory: { total: 32 * GIB, available: 18.4 * GIB, engines: 0 }, problems: [],
  config: { path: '/home/u/.config/llama-runner/config.json', ok: true, error: null },
};
const logs = new Map();
const followers = new Map();
const listeners = new Set();
let seq = 0;

function publish(kind) {
  const event = { seq: ++seq, at_ms: Date.now(), ...kind };
  for (const out of listeners) out.write(`id: ${seq}\nevent: ${kind.type}\ndata: ${JSON.stringify(event)}\n\n`);
}

function log(key, line) {
  if (!logs.has(key)) logs.set(key, []);
  logs.get(key).push(line);
  for (const out of followers.get(key) ?? []) out.write(`${line}\n`);
}

function show(entry, name, more = {}) {
  entry.state = name;
  entry.progress = more.progress ?? null;
  entry.reason = null;
  entry.instance = {
    id: 1, model: entry.key, engine: 'llama-server', state: name, progress: more.progress, port: 41234, pid: 4242,
    ready_at_ms: Date.now(), last_used_ms: Date.now(), expires_at_ms: name === 'ready' ? Date.now() + 300_000 : null,
    active: more.active ?? 0, queued: 0, launch: { context: 16384, parallel: 2 },
    memory_bytes: name === 'ready' ? Math.round(entry.size * 1.2) : null, vram_bytes: null, load_ms: 1800,
  };
  publish({ type: 'instance', instance: entry.instance });
}

async function start(entry) {
  if (entry.state === 'ready') return;
  for (let step = 0; step < 10; step += 1) {
    show(entry, 'loading', { progress: step / 10 });
    log(entry.key, `load_tensors: ${step * 10} % \u001b[31mred\u001b[0m <b>not bold</b>`);
    await new Promise((wake) => setTimeout(wake, Number(process.env.STEP_MS ?? 150)));
  }
  show(entry, 'ready');
  log(entry.key, 'server is listening');
}

function json(out, status, body) {
  out.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

const ANSWER = '# Title\n\nA *list*:\n\n- one\n- two with `code`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\ndef add(a, b):\n    return a + b\n```\n\n<img src=x onerror=alert(1)> [bad](javascript:alert(1)) [good](https://example.org)\n';

async function chat(body, request, out) {
  const entry = state.models.find((m) => m.key === body.model);
  if (!entry) return json(out, 404, { error: { message: `model '${body.model}' not found`, type: 'not_found_error' } });
  const flight = { id: String(++seq), model: entry.key, operation: 'openai chat', client: 'window', phase: 'loading', started_ms: Date.now() };
  state.requests.push(flight);
  publish({ type: 'requests', active: state.requests.length });
  let gone = false;
  out.on('close', () => (gone = true));
  await start(entry);
  flight.phase = 'running';
  show(entry, 'ready', { active: 1 });
  out.writeHead(200, { 'content-type': 'text/event-stream' });
  const send = (chunk) => out.write(`data: ${JSON.stringify(chunk)}\n\n`);
  for (const word of 'The user wants markdown.'.split(/(?= )/)) {
    send({ choices: [{ delta: { reasoning_content: word } }] });
    await new Promise((wake) => setTimeout(wake, 20));
  }
  for (const piece of ANSWER.match(/.{1,4}/gs)) {
    if (gone) break;
    send({ choices: [{ delta: { content: piece } }] });
    await new Promise((wake) => setTimeout(wake, 10));
  }
  send({ choices: [{ delta: {}, finish_reason: 'stop' }], timings: { predicted_n: 97, predicted_per_second: 61.2, prompt_n: 108, cache_n: 1100 } });
  out.end('data: [DONE]\n\n');
  state.requests = state.requests.filter((r) => r !== flight);
  show(entry, 'ready');
  publish({ type: 'requests', active: state.requests.length });
}

const HEARD = [
  [0, 2.4, ' The meeting begins at half past nine.'],
  [30, 33.6, ' Can you read me the latest news?'],
  [60, 62.4, ' Remind me to call my mother tomorrow morning.'],
];

/** What the recording is does not matter here: it always holds the same three sentences. */
async function transcribe(out) {
  const entry = state.models.find((m) => m.key === 'whisper-base');
  const id = ++seq;
  let gone = false;
  out.on('close', () => (gone = true));
  const tell = (id, name, progress) => publish({ type: 'transcription', transcription: {
    id, model: entry.key, asked: id === 1e9 ? 'whisper-1' : entry.key, task: 'transcribe', state: name, progress, duration: 90,
    language: 'en', processing_s: null, characters: 0, error: null } });
  tell(1e9, 'running', 0.4);
  await start(entry);
  out.writeHead(200, { 'content-type': 'text/event-stream', 'x-request-id': id.toString(16).padStart(16, '0') });
  const send = (event) => out.write(`data: ${JSON.stringify(event)}\n\n`);
  for (const [at, [start, end, text]] of HEARD.entries()) {
    for (let step = 0; step < 5 && !gone; step += 1) {
      tell(id, 'running', (at * 30 + step * 6) / 90);
      await new Promise((wake) => setTimeout(wake, Number(process.env.STEP_MS ?? 150)));
    }
    if (gone) break;
    send({ type: 'transcript.text.delta', delta: text, segment: { id: at, start, end }, progress: end / 90 });
  }
  tell(id, gone ? 'cancelled' : 'completed', 1);
  tell(1e9, 'completed', 1);
  if (gone) return;
  const text = HEARD.map(([, , words]) => words).join('').trim();
  send({ type: 'transcript.text.done', text, language: 'en', language_probability: 0.987, duration: 90, usage: { type: 'duration', seconds: 90 } });
  out.end('data: [DONE]\n\n');
}

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };

createServer((request, out) => {
  const url = new URL(request.url, 'http://mock');
  const path = url.pathname;
  if (path === '/v1/state') return json(out, 200, state);
  if (path === '/v1/events') {
    out.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    out.write(`event: state\ndata: ${JSON.stringify(state)}\n\n`);
    listeners.add(out);
    return out.on('close', () => listeners.delete(out));
  }
  const action = /^\/v1\/models\/(.+)\/(start|stop|logs)$/.exec(path);
  if (action) {
    const entry = state.models.find((m) => m.key === decodeURIComponent(action[1]));
    if (!entry) return json(out, 404, { error: { message: 'no such model' } });
    if (action[2] === 'logs') {
      out.writeHead(200, { 'content-type': 'text/plain' });
      out.write((logs.get(entry.key) ?? []).map((line) => `${line}\n`).join(''));
      if (!followers.has(entry.key)) followers.set(entry.key, new Set());
      followers.get(entry.key).add(out);
      return out.on('close', () => followers.get(entry.key).delete(out));
    }
    if (action[2] === 'start') {
      if (entry.key === 'gemma-3-27b') return json(out, 500, { error: { message: entry.reason } });
      void start(entry);
    } else {
      entry.state = 'unloaded';
      entry.instance = null;
      publish({ type: 'instance_gone', model: entry.key });
    }
    return json(out, 200, { success: true });
  }
  if (path === '/v1/chat/completions') {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    return request.on('end', () => void chat(JSON.parse(Buffer.concat(parts).toString()), request, out));
  }
  if (path === '/v1/audio/transcriptions' || path === '/v1/audio/translations') {
    request.resume();
    return request.on('end', () => void transcribe(out));
  }
  if (path === '/v1/audio/voices') {
    const voices = [{ id: 'alloy', name: 'alloy', language: 'en' }, { id: 'en-us', name: 'American English', language: 'en-us' },
      { id: 'de', name: 'German', language: 'de' }];
    return json(out, 200, { object: 'list', voices, data: voices });
  }
  if (path === '/v1/audio/speech') {
    request.resume();
    // Half a second of a 440 Hz tone.
    const samples = Buffer.alloc(44 + 2 * 12000);
    samples.write('RIFF', 0); samples.writeUInt32LE(36 + 24000, 4); samples.write('WAVEfmt ', 8); samples.writeUInt32LE(16, 16);
    samples.writeUInt16LE(1, 20); samples.writeUInt16LE(1, 22); samples.writeUInt32LE(24000, 24); samples.writeUInt32LE(48000, 28);
    samples.writeUInt16LE(2, 32); samples.writeUInt16LE(16, 34); samples.write('data', 36); samples.writeUInt32LE(24000, 40);
    for (let at = 0; at < 12000; at += 1) samples.writeInt16LE(Math.round(8000 * Math.sin((at * 440 * 2 * Math.PI) / 24000)), 44 + 2 * at);
    return out.writeHead(200, { 'content-type': 'audio/wav' }).end(samples);
  }
  if (path === '/ui/' || path.startsWith('/ui/')) {
    const file = join(dist, normalize(path.slice(4)) || 'index.html');
    const real = path === '/ui/' ? join(dist, 'index.html') : file;
    if (!real.startsWith(dist) || !existsSync(real) || !statSync(real).isFile()) return json(out, 404, { error: 'no such file' });
    out.writeHead(200, { 'content-type': TYPES[extname(real)] ?? 'application/octet-stream' });
    return createReadStream(real).pipe(out);
  }
  return json(out, 404, { error: 'no such route' });
}).listen(port, '127.0.0.1', () => console.log(`http://127.0.0.1:${port}/ui/`));
