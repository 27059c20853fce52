import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { capital, model, user, weather } from './asks.js';
import { start } from './server.js';

let server;
before(async () => { server = await start(); });
after(async () => assert.equal(await server.stop(), 0));

for (const port of ['ollama', 'lmstudio', 'management']) {
  const client = () => new OpenAI({ baseURL: `${server[port]}/v1`, apiKey: 'none', maxRetries: 0 });

  test(`${port}: lists models`, async () => {
    const ids = [];
    for await (const m of client().models.list()) ids.push(m.id);
    assert.ok(ids.some((id) => id.startsWith('tiny-chat')));
  });

  test(`${port}: chats, streamed and not`, async () => {
    const whole = await client().chat.completions.create({ model, messages: user('Hello'), temperature: 0 });
    assert.equal(whole.choices[0].message.content, 'Hello! How can I help you today?');
    let text = '';
    for await (const chunk of await client().chat.completions.create({ model, messages: user('Count to 100.'), temperature: 0, stream: true })) {
      text += chunk.choices[0]?.delta.content ?? '';
    }
    assert.ok(text.startsWith('1, 2, 3, 4, 5'));
  });

  test(`${port}: calls tools and keeps to a schema`, async () => {
    const called = await client().chat.completions.create({ model, messages: user('What is the weather in Paris?'), tools: [weather], temperature: 0 });
    assert.deepEqual(JSON.parse(called.choices[0].message.tool_calls[0].function.arguments), { city: 'Paris' });
    const shaped = await client().chat.completions.create({
      model, messages: user('Give me the capital of France as JSON.'), temperature: 0,
      response_format: { type: 'json_schema', json_schema: { name: 'capital', schema: capital } },
    });
    assert.deepEqual(JSON.parse(shaped.choices[0].message.content), { country: 'France', capital: 'Paris' });
  });

  test(`${port}: completes and embeds`, async () => {
    const done = await client().completions.create({ model, prompt: 'Once upon a time', max_tokens: 8, temperature: 0 });
    assert.ok(done.choices[0].text);
    const { data } = await client().embeddings.create({ model: 'tiny-embed', input: ['cat', 'dog'] });
    assert.deepEqual(data.map((d) => d.embedding.length), [128, 128]);
  });

  test(`${port}: says what is wrong`, async () => {
    await assert.rejects(client().chat.completions.create({ model, messages: [] }), { status: 400 });
    if (port === 'lmstudio') return; // LM Studio answers an unknown name with the only loaded LLM (contract 2)
    await assert.rejects(client().chat.completions.create({ model: 'nope', messages: user('x') }), { status: 404, code: 'model_not_found' });
  });
}
