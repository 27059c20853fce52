// A real LlamaRunner with a real llama-server, on free ports and in a throw-away home.
import { spawn } from 'node:child_process';
import { mkdtempSync, mkdirSync, readdirSync, existsSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';

const root = resolve(import.meta.dirname, '../../..');

function enginePath() {
  if (process.env.LLAMARUNNER_LLAMA_SERVER) return process.env.LLAMARUNNER_LLAMA_SERVER;
  const folder = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'llama-runner/engines/llama.cpp');
  const built = (existsSync(folder) ? readdirSync(folder) : []).map((n) => join(folder, n, 'llama-server')).filter(existsSync);
  if (!built.length) throw new Error('no llama-server: run `cargo xtask setup --test`');
  return built.at(-1);
}

/** The Python with the speech engine that `cargo xtask test` made sure of, as a variable of the environment. */
function speechPython() {
  if (process.env.LLAMARUNNER_SPEECH_PYTHON) return { LLAMARUNNER_SPEECH_PYTHON: process.env.LLAMARUNNER_SPEECH_PYTHON };
  const folder = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'llama-runner/python');
  const names = (existsSync(folder) ? readdirSync(folder) : []).filter((name) => name.startsWith('speech-'));
  const made = names.map((name) => join(folder, name, 'bin/python')).filter(existsSync);
  return made.length ? { LLAMARUNNER_SPEECH_PYTHON: made.at(-1) } : {};
}

/** The recordings that the tests hear. */
export const recordings = join(root, 'crates/testkit/fixtures/audio');

/** Starts the server and resolves with its addresses and a stop function. `config`: its configuration. */
export async function start({ config } = {}) {
  const home = mkdtempSync(join(tmpdir(), 'llama-runner-js-'));
  mkdirSync(join(home, 'run'), { mode: 0o700 });
  if (config) {
    mkdirSync(join(home, 'config/llama-runner'), { recursive: true });
    writeFileSync(join(home, 'config/llama-runner/config.json'), JSON.stringify(config));
  }
  const binary = process.env.LLAMA_RUNNER_BIN || join(root, 'target/debug/llama-runner');
  const child = spawn(binary, ['serve', '--ollama-port', '0', '--lmstudio-port', '0', '--management-port', '0',
    '--models-dir', join(root, 'crates/testkit/fixtures/models')], {
    env: {
      HOME: home, PATH: process.env.PATH, LANG: 'C.UTF-8', XDG_CONFIG_HOME: join(home, 'config'),
      XDG_DATA_HOME: join(home, 'data'), XDG_CACHE_HOME: join(home, 'cache'), XDG_RUNTIME_DIR: join(home, 'run'),
      LLAMARUNNER_LLAMA_SERVER: enginePath(), ...speechPython(),
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  child.stderr.on('data', (piece) => { log += piece; process.stderr.write(piece); });
  const exited = new Promise((done) => child.once('exit', (code) => done(code)));
  const lines = createInterface({ input: child.stdout });
  const ready = await Promise.race([
    new Promise((done) => lines.once('line', (line) => done(JSON.parse(line)))),
    exited.then((code) => { throw new Error(`llama-runner ended with ${code} before it was ready`); }),
  ]);
  const url = (name) => `http://${ready.listeners[name]}`;
  return {
    ollama: url('ollama'), lmstudio: url('lmstudio'), management: url('management'),
    /** What the server wrote to stderr. */
    log: () => log,
    async stop() {
      child.kill('SIGTERM');
      const code = await exited;
      rmSync(home, { recursive: true, force: true });
      return code;
    },
  };
}

/** A fake Ollama registry on loopback (`fake-origin` of testkit); `config` is what a server needs to ask it. */
export async function startOrigin() {
  const binary = process.env.FAKE_ORIGIN_BIN || join(root, 'target/debug/fake-origin');
  // It ends with its standard input, so also with us.
  const child = spawn(binary, [], { stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = new Promise((done) => child.once('exit', (code) => done(code)));
  const lines = createInterface({ input: child.stdout });
  const ready = await new Promise((done) => lines.once('line', (line) => done(JSON.parse(line))));
  return {
    host: ready.host,
    config: { downloads: { huggingface_base_url: ready.url, ollama_registry_base_url: ready.url, allow_private_hosts: true } },
    /** Adds `models`, `repos`, `faults` (see testkit's OriginSetup). */
    async setUp(setup) {
      const answer = await fetch(`${ready.url}/__fake/setup`, { method: 'POST', body: JSON.stringify(setup) });
      if (!answer.ok) throw new Error(await answer.text());
    },
    stop() {
      child.stdin.end();
      return exited;
    },
  };
}
