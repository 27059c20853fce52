import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { Ollama } from 'ollama';
import { model, user } from './asks.js';
import { start, startOrigin } from './server.js';

const options = { temperature: 0 };
const weights = join(resolve(import.meta.dirname, '../../..'), 'crates/testkit/fixtures/models/tiny-chat.gguf');

let origin;
let server;
let client;
before(async () => {
  origin = await startOrigin();
  server = await start({ config: origin.config });
  client = new Ollama({ host: server.ollama });
});
after(async () => {
  assert.equal(await server.stop(), 0);
  assert.equal(await origin.stop(), 0);
});

const names = async () => (await client.list()).models.map((m) => m.name);

test('pulls with progress, and whole', async () => {
  await origin.setUp({ models: [{ name: 'tiny', layers: [{ kind: 'model', from: weights }, { kind: 'system', text: 'You are a pirate.' }] }] });
  const steps = [];
  for await (const step of await client.pull({ model: 'tiny', stream: true })) steps.push(step);
  assert.equal(steps[0].status, 'pulling manifest');
  assert.equal(steps.at(-1).status, 'success');
  assert.ok(steps.some((s) => s.digest && s.completed === s.total));
  assert.equal((await client.pull({ model: 'tiny' })).status, 'success');
  assert.ok((await names()).includes('tiny:latest'));
  assert.equal((await client.chat({ model: 'tiny', messages: user('Hello'), options })).message.content, 'Ahoy, matey!');
  await assert.rejects(client.pull({ model: 'nosuch' }), { message: /file does not exist/ });
  await assert.rejects(async () => {
    for await (const _ of await client.pull({ model: 'nosuch', stream: true }));
  }, { message: /file does not exist/ });
});

test('creates, copies, pushes and deletes', async () => {
  const steps = [];
  for await (const step of await client.create({ model: 'pirate', from: model, system: 'You are a pirate.', parameters: options, stream: true })) {
    steps.push(step.status);
  }
  assert.deepEqual(steps.slice(-2), ['writing manifest', 'success']);
  assert.equal((await client.generate({ model: 'pirate', prompt: 'Hello' })).response, 'Ahoy, matey!');
  const shown = await client.show({ model: 'pirate' });
  assert.equal(shown.system, 'You are a pirate.');
  assert.equal(shown.details.parent_model, 'tiny-chat:latest');
  const name = `${origin.host}/me/pirate:v1`;
  assert.equal((await client.copy({ source: 'pirate', destination: name })).status, 'success');
  const pushed = [];
  for await (const step of await client.push({ model: name, insecure: true, stream: true })) pushed.push(step.status);
  assert.equal(pushed[0], 'retrieving manifest');
  assert.equal(pushed.at(-1), 'success');
  assert.equal((await client.delete({ model: name })).status, 'success');
  assert.equal((await client.pull({ model: name, insecure: true })).status, 'success');
  for (const gone of ['pirate', name]) await client.delete({ model: gone });
  assert.ok(!(await names()).some((n) => n.includes('pirate')));
});

test('creates from an uploaded file', async () => {
  const bytes = readFileSync(weights);
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  const path = `${server.ollama}/api/blobs/${digest}`;
  const sent = await fetch(path, { method: 'POST', body: bytes });
  assert.ok([200, 201].includes(sent.status));
  assert.equal((await fetch(path, { method: 'HEAD' })).status, 200);
  assert.equal((await client.create({ model: 'uploaded', files: { 'tiny.gguf': digest } })).status, 'success');
  assert.equal((await client.chat({ model: 'uploaded', messages: user('ping'), options })).message.content, 'pong');
  await client.delete({ model: 'uploaded' });
});

test('embeds in both forms', async () => {
  const { embedding } = await client.embeddings({ model: 'tiny-embed', prompt: 'cat' });
  assert.equal(embedding.length, 128);
  assert.equal((await client.embed({ model: 'tiny-embed', input: 'cat', dimensions: 32 })).embeddings[0].length, 32);
});

test('says what is wrong', async () => {
  await assert.rejects(client.create({ model: 'x' }), { status_code: 400, message: /neither 'from' or 'files' was specified/ });
  await assert.rejects(client.copy({ source: 'nope', destination: 'x' }), { status_code: 404, message: /model "nope" not found/ });
  await assert.rejects(client.delete({ model: 'nope' }), { status_code: 404, message: /model 'nope' not found/ });
  await assert.rejects(client.delete({ model }), { status_code: 403 });
});
