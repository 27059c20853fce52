import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { zodFunction, zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
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

  test(`${port}: parses by zod`, async () => {
    const Capital = z.object({ country: z.string(), capital: z.string() });
    const parsed = await client().chat.completions.parse({
      model, messages: user('Give me the capital of France as JSON.'), temperature: 0, response_format: zodResponseFormat(Capital, 'capital'),
    });
    assert.deepEqual(parsed.choices[0].message.parsed, { country: 'France', capital: 'Paris' });
    const called = await client().chat.completions.parse({
      model, messages: user('What is the weather in Paris?'), temperature: 0,
      tools: [zodFunction({ name: 'get_weather', parameters: z.object({ city: z.string() }) })],
    });
    assert.deepEqual(called.choices[0].message.tool_calls[0].function.parsed_arguments, { city: 'Paris' });
    const answer = await client().responses.parse({
      model, input: 'Give me the capital of France as JSON.', temperature: 0, text: { format: zodTextFormat(Capital, 'capital') },
    });
    assert.deepEqual(answer.output_parsed, { country: 'France', capital: 'Paris' });
  });

  test(`${port}: runs tools by itself`, async () => {
    const runner = client().chat.completions.runTools({
      model, messages: user('What is the weather in Paris?'), temperature: 0, stream: true,
      tools: [{ type: 'function', function: { ...weather.function, parse: JSON.parse, function: () => 'sunny' } }],
    });
    assert.equal(await runner.finalContent(), 'It is sunny in Paris.');
  });

  test(`${port}: keeps responses`, async () => {
    const responses = client().responses;
    const first = await responses.create({ model, input: 'My name is Alice.', temperature: 0 });
    assert.match(first.id, /^resp_[0-9a-f]{48}$/);
    assert.equal((await responses.retrieve(first.id)).output_text, first.output_text);
    const stream = responses.stream({ model, input: 'What is my name?', previous_response_id: first.id, temperature: 0 });
    let text = '';
    let last = -1;
    for await (const event of stream) {
      assert.equal(event.sequence_number, ++last);
      if (event.type === 'response.output_text.delta') text += event.delta;
    }
    const second = await stream.finalResponse();
    assert.ok(second.output_text.includes('Alice') && second.output_text === text);
    const items = [];
    for await (const item of responses.inputItems.list(second.id)) items.push(item);
    assert.deepEqual(items.map((item) => item.content[0].text), ['What is my name?']);
    await responses.delete(first.id);
    await assert.rejects(responses.retrieve(first.id), { status: 404 });
    await assert.rejects(responses.create({ model, input: 'x', previous_response_id: first.id }), { status: 400, code: 'previous_response_not_found' });
  });

  test(`${port}: calls tools in responses`, async () => {
    const tools = [{ type: 'function', name: 'get_weather', strict: true, parameters: weather.function.parameters }];
    const stream = client().responses.stream({ model, input: 'What is the weather in Paris?', tools, temperature: 0 });
    let pieces = '';
    stream.on('response.function_call_arguments.delta', (event) => { pieces += event.delta; });
    const [call] = (await stream.finalResponse()).output;
    assert.equal(pieces, call.arguments);
    assert.deepEqual(JSON.parse(call.arguments), { city: 'Paris' });
    const told = await client().responses.create({
      model, tools, temperature: 0, previous_response_id: (await stream.finalResponse()).id,
      input: [{ type: 'function_call_output', call_id: call.call_id, output: 'sunny' }],
    });
    assert.equal(told.output_text, 'It is sunny in Paris.');
    await assert.rejects(client().responses.create({ model, input: 'x', tools: [{ type: 'file_search' }] }), { status: 400, param: 'tools' });
  });

  test(`${port}: cuts vectors`, async () => {
    const { data } = await client().embeddings.create({ model: 'tiny-embed', input: 'cat', dimensions: 16 });
    assert.equal(data[0].embedding.length, 16);
    assert.ok(Math.abs(data[0].embedding.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-4);
  });

  test(`${port}: says what is wrong`, async () => {
    await assert.rejects(client().chat.completions.create({ model, messages: [] }), { status: 400 });
    if (port === 'lmstudio') return; // LM Studio answers an unknown name with the only loaded LLM (contract 2)
    await assert.rejects(client().chat.completions.create({ model: 'nope', messages: user('x') }), { status: 404, code: 'model_not_found' });
  });
}
