// Both versions of LM Studio's JavaScript library, unmodified. It drops what it cannot validate and then waits for ever, so
// a test that ends is a proof; that it complained about nothing is looked up in the server's log.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import * as sdk1 from 'lmstudio-sdk-1';
import * as sdk2 from 'lmstudio-sdk-2';
import { capital } from './asks.js';
import { start } from './server.js';

const zero = { temperature: 0, repeatPenalty: false };
const options = { timeout: 60_000 };
let server;
before(async () => { server = await start(); });
after(async () => {
  assert.equal(await server.stop(), 0);
  assert.deepEqual(server.log().split('\n').filter((line) => line.includes('could not read a message of ours')), []);
});

for (const [version, sdk] of [['1.5', sdk1], ['2.0', sdk2]]) {
  const open = () => new sdk.LMStudioClient({ baseUrl: server.lmstudio.replace('http:', 'ws:') });
  const check = (name, run) => test(`${version}: ${name}`, options, async () => {
    const client = open();
    try {
      await run(client);
    } finally {
      await client[Symbol.asyncDispose]();
    }
  });
  const chat = (client) => client.llm.model('tiny-chat', { verbose: false });

  check('lists what is there', async (client) => {
    const models = await client.system.listDownloadedModels();
    assert.deepEqual(models.map((m) => [m.type, m.modelKey]).sort(), [['embedding', 'text-embedding-tiny-embed'], ['llm', 'tiny-chat']]);
    assert.equal((await client.system.getLMStudioVersion()).version.slice(0, 4), '0.4.');
  });

  check('loads with progress, tells, and unloads', async (client) => {
    const seen = [];
    const model = await client.llm.load('tiny-chat', {
      identifier: 'mine', ttl: 60, verbose: false, config: { contextLength: 512 }, onProgress: (p) => seen.push(p),
    });
    assert.equal(model.identifier, 'mine');
    assert.equal(await model.getContextLength(), 512);
    assert.equal(seen.at(-1), 1);
    assert.equal((await model.getModelInfo()).modelKey, 'tiny-chat');
    assert.ok((await client.llm.listLoaded()).some((m) => m.identifier === 'mine'));
    await assert.rejects(client.llm.load('tiny-chat', { identifier: 'mine', verbose: false }), /already exists/);
    await model.unload();
    assert.ok(!(await client.llm.listLoaded()).some((m) => m.identifier === 'mine'));
    await assert.rejects(model.respond('ping'), /unloaded/i);
    await assert.rejects(client.llm.model('no-such-model', { verbose: false }), /no-such-model/);
  });

  check('a load can be cancelled', async (client) => {
    const abort = new AbortController();
    const load = client.llm.load('tiny-chat', { identifier: 'never', verbose: false, signal: abort.signal });
    abort.abort();
    await assert.rejects(load);
  });

  check('counts, tokens and templates', async (client) => {
    const model = await chat(client);
    const tokens = await model.tokenize('Hello there');
    assert.equal(await model.countTokens('Hello there'), tokens.length);
    const prompt = await model.applyPromptTemplate([{ role: 'system', content: 'You are a pirate.' }, { role: 'user', content: 'Hello' }]);
    assert.match(prompt, /You are a pirate/);
  });

  check('responds, streamed and with statistics', async (client) => {
    const model = await chat(client);
    const progress = [];
    const prediction = model.respond('Count to 100.', { ...zero, onPromptProcessingProgress: (p) => progress.push(p) });
    let text = '';
    for await (const { content } of prediction) text += content;
    const result = await prediction.result();
    assert.ok(text.startsWith('1, 2, 3, 4, 5'));
    assert.equal(result.content, text);
    assert.equal(result.stats.stopReason, 'eosFound');
    assert.ok(result.stats.predictedTokensCount > 50 && result.stats.totalTimeSec > 0);
    assert.equal(progress[0], 0);
    assert.equal(progress.at(-1), 1);
    const thought = await model.respond('Think: what is 3 times 4?', zero);
    assert.equal(thought.reasoningContent.trim(), '3 times 4 is 12.');
    assert.equal(thought.nonReasoningContent.trim(), '12.');
  });

  check('is cancelled', async (client) => {
    const prediction = (await chat(client)).respond('Count to 100.', zero);
    let pieces = 0;
    for await (const _ of prediction) if (++pieces === 3) await prediction.cancel();
    assert.equal((await prediction.result()).stats.stopReason, 'userStopped');
    assert.ok(pieces < 50, `${pieces}`);
  });

  check('stops where asked', async (client) => {
    const model = await chat(client);
    const short = await model.respond('Count to 100.', { ...zero, maxTokens: 5 });
    assert.equal(short.stats.stopReason, 'maxPredictedTokensReached');
    const stopped = await model.respond('Count to 100.', { ...zero, stopStrings: [' 7'] });
    assert.equal(stopped.stats.stopReason, 'stopStringFound');
    if (version !== '1.5') assert.equal(stopped.stats.stopString, ' 7');
  });

  check('keeps to a schema', async (client) => {
    const model = await chat(client);
    const structured = { type: 'json', jsonSchema: capital };
    const result = await model.respond('Give me the capital of France as JSON.', { ...zero, structured });
    assert.deepEqual(JSON.parse(result.content), { country: 'France', capital: 'Paris' });
  });

  check('acts with tools', async (client) => {
    const asked = [];
    const said = [];
    const weather = sdk.rawFunctionTool({
      name: 'get_weather', description: 'Weather of a city',
      parametersJsonSchema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
      implementation: ({ city }) => { asked.push(city); return 'sunny'; },
    });
    const model = await chat(client);
    const { rounds } = await model.act('What is the weather in Paris?', [weather], { ...zero, onMessage: (m) => said.push(m) });
    assert.deepEqual(asked, ['Paris']);
    assert.equal(rounds, 2);
    assert.match(said.at(-1).getText(), /sunny/);
  });

  check('completes', async (client) => {
    const result = await (await chat(client)).complete('Once upon a time', { ...zero, maxTokens: 8 });
    assert.ok(result.content);
    assert.equal(result.stats.predictedTokensCount, 8);
  });

  check('embeds', async (client) => {
    const model = await client.embedding.load('tiny-embed', { identifier: 'vectors', ttl: 60, verbose: false });
    assert.equal((await model.embed('cat')).embedding.length, 128);
    assert.equal((await model.embed(['cat', 'dog'])).length, 2);
    assert.equal((await model.tokenize('cat')).length, await model.countTokens('cat') + 2);
    assert.equal(await model.getContextLength(), 512);
    await model.unload();
  });

  check('uploads files, and says that an image cannot be read', async (client) => {
    const image = await client.files.prepareImageBase64('a.png', 'iVBORw0KGgo=');
    assert.equal(image.type, 'image');
    const model = await chat(client);
    await assert.rejects(model.respond([{ role: 'user', content: 'What?', images: [image] }]).result(), /image/);
  });

  check('reads the log', async (client) => {
    const model = await chat(client);
    const seen = [];
    const stop = client.diagnostics.unstable_streamLogs((event) => seen.push(event.data));
    while (!seen.some((data) => data.type === 'llm.prediction.input')) await model.respond('ping', zero);
    await stop?.();
    assert.match(seen.find((data) => data.type === 'llm.prediction.input').input, /ping/);
  });

  check('loads just in time', async (client) => {
    const model = await chat(client);
    await client.embedding.model('tiny-embed', { verbose: false });
    await assert.rejects(model.respond('ping').result(), /unloaded/i);
    assert.equal((await (await chat(client)).respond('ping', zero)).content, 'pong');
  });
}
