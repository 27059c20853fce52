import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { model, user } from './asks.js';
import { start } from './server.js';

let server;
before(async () => { server = await start(); });
after(async () => assert.equal(await server.stop(), 0));

const weather = { name: 'get_weather', description: 'Weather of a city', input_schema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } };
const ask = { model, max_tokens: 300, temperature: 0 };
const pixel = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==';

for (const port of ['ollama', 'lmstudio', 'management']) {
  const client = () => new Anthropic({ baseURL: server[port], apiKey: 'none', maxRetries: 0 });

  test(`${port}: answers, streamed and not`, async () => {
    const whole = await client().messages.create({ ...ask, system: 'You are a pirate.', messages: user('Hello') });
    assert.deepEqual([whole.content[0].text, whole.stop_reason, whole.type], ['Ahoy, matey!', 'end_turn', 'message']);
    assert.match(whole._request_id, /^req_/);
    const stream = client().messages.stream({ ...ask, messages: user('Count to 100.') });
    let text = '';
    stream.on('text', (piece) => { text += piece; });
    const final = await stream.finalMessage();
    assert.ok(text.startsWith('1, 2, 3, 4, 5'));
    assert.equal(final.content[0].text, text);
    assert.ok(final.usage.input_tokens > 0 && final.usage.output_tokens > 50);
  });

  test(`${port}: calls tools and takes their results`, async () => {
    const asked = user('What is the weather in Paris?');
    let pieces = 0;
    const stream = client().messages.stream({ ...ask, messages: asked, tools: [weather] });
    stream.on('inputJson', () => { pieces += 1; });
    const called = await stream.finalMessage();
    assert.equal(called.stop_reason, 'tool_use');
    const call = called.content.find((block) => block.type === 'tool_use');
    assert.deepEqual([call.name, call.input, pieces > 2], ['get_weather', { city: 'Paris' }, true]);
    const answer = await client().messages.create({
      ...ask, tools: [weather],
      messages: [...asked, { role: 'assistant', content: called.content }, { role: 'user', content: [{ type: 'tool_result', tool_use_id: call.id, content: 'sunny' }] }],
    });
    assert.equal(answer.content[0].text, 'It is sunny in Paris.');
    const none = await client().messages.create({ ...ask, messages: asked, tools: [weather], tool_choice: { type: 'none' } });
    assert.deepEqual(none.content.map((block) => block.type), ['text']);
  });

  test(`${port}: thinks`, async () => {
    const messages = user('Think: what is 3 times 4?');
    const answer = await client().messages.stream({ ...ask, max_tokens: 2000, thinking: { type: 'enabled', budget_tokens: 1024 }, messages }).finalMessage();
    assert.deepEqual(answer.content.map((block) => block.type), ['thinking', 'text']);
    assert.equal(answer.content[0].thinking.trim(), '3 times 4 is 12.');
  });

  test(`${port}: stops where it is told to`, async () => {
    const answer = await client().messages.create({ ...ask, messages: user('Count to ten.'), stop_sequences: ['7'] });
    assert.deepEqual([answer.stop_reason, answer.stop_sequence, answer.content[0].text], ['stop_sequence', '7', '1, 2, 3, 4, 5, 6, ']);
  });

  test(`${port}: counts tokens`, async () => {
    const { input_tokens: plain } = await client().messages.countTokens({ model, messages: user('Hello') });
    const { input_tokens: more } = await client().messages.countTokens({ model, messages: user('Hello'), tools: [weather], system: 'You are a pirate.' });
    assert.ok(plain > 0 && more > plain);
  });

  test(`${port}: says what is wrong`, async () => {
    await assert.rejects(client().messages.create({ ...ask, max_tokens: 0, messages: user('x') }),
      (error) => error.status === 400 && error.error.error.type === 'invalid_request_error' && /^req_/.test(error.requestID));
    const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: pixel } };
    await assert.rejects(client().messages.create({ ...ask, messages: user([image]) }), /does not support image input/);
    if (port === 'lmstudio') return; // LM Studio answers an unknown name with the only loaded LLM (contract 2)
    await assert.rejects(client().messages.create({ ...ask, model: 'nope', messages: user('x') }), { status: 404 });
  });

  test(`${port}: lists models`, async () => {
    const ids = [];
    for await (const listed of client().models.list()) ids.push(listed.id);
    assert.ok(ids.some((id) => id.startsWith('tiny-chat')));
    assert.equal((await client().models.retrieve(model)).type, 'model');
  });
}
