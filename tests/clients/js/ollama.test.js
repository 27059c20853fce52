import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Ollama } from 'ollama';
import { capital, model, user, weather } from './asks.js';
import { start } from './server.js';

const options = { temperature: 0 };

let server;
before(async () => { server = await start(); });
after(async () => assert.equal(await server.stop(), 0));

for (const port of ['ollama', 'lmstudio']) {
  const client = () => new Ollama({ host: server[port] });

  test(`${port}: lists, shows and reports models`, async () => {
    const names = (await client().list()).models.map((m) => m.name);
    assert.ok(names.includes('tiny-chat:latest') && names.includes('tiny-embed:latest'));
    const shown = await client().show({ model });
    assert.equal(shown.model_info['general.architecture'], 'llama');
    assert.ok(shown.capabilities.includes('tools'));
    await client().generate({ model, prompt: '', keep_alive: '5m' });
    assert.ok((await client().ps()).models.some((m) => m.name === 'tiny-chat:latest'));
    assert.match((await client().version()).version, /^\d+\.\d+\.\d+$/);
  });

  test(`${port}: chats, streamed and not`, async () => {
    const whole = await client().chat({ model, messages: user('Hello'), options });
    assert.equal(whole.message.content, 'Hello! How can I help you today?');
    let text = '';
    let last;
    for await (const part of await client().chat({ model, messages: user('Count to 100.'), options, stream: true })) {
      text += part.message.content;
      last = part;
    }
    assert.ok(text.startsWith('1, 2, 3, 4, 5') && last.done && last.eval_count > 50);
  });

  test(`${port}: generates, embeds and uses a schema`, async () => {
    assert.equal((await client().generate({ model, prompt: 'What is 2 + 3?', options })).response, '5');
    const { embeddings } = await client().embed({ model: 'tiny-embed', input: ['cat', 'dog'] });
    assert.deepEqual(embeddings.map((e) => e.length), [128, 128]);
    const answer = await client().chat({ model, messages: user('Give me the capital of France as JSON.'), format: capital, options });
    assert.deepEqual(JSON.parse(answer.message.content), { country: 'France', capital: 'Paris' });
  });

  test(`${port}: calls tools`, async () => {
    const answer = await client().chat({ model, messages: user('What is the weather in Paris?'), tools: [weather], options });
    const [call] = answer.message.tool_calls;
    assert.deepEqual([call.function.name, call.function.arguments], ['get_weather', { city: 'Paris' }]);
    const messages = [...user('What is the weather in Paris?'), answer.message, { role: 'tool', tool_name: 'get_weather', content: 'sunny' }];
    assert.equal((await client().chat({ model, messages, tools: [weather], options })).message.content, 'It is sunny in Paris.');
  });

  test(`${port}: aborts a stream and goes on`, async () => {
    const own = client();
    const stream = await own.chat({ model, messages: user('Count to 100.'), options: { ...options, num_predict: 4000 }, stream: true });
    await assert.rejects(async () => {
      for await (const _ of stream) own.abort();
    }, { name: 'AbortError' });
    assert.equal((await client().chat({ model, messages: user('ping'), options })).message.content, 'pong');
  });

  test(`${port}: says what is wrong`, async () => {
    await assert.rejects(client().chat({ model: 'nope', messages: user('x') }), { status_code: 404, message: /model 'nope' not found/ });
  });
}
