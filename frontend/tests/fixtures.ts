import type { DownloadView, InstanceView, ModelView, StateView } from '../src/api/types';

export const instance = (change: Partial<InstanceView> = {}): InstanceView => ({
  id: 1,
  model: 'a',
  engine: 'llama-server',
  state: 'ready',
  port: 1,
  pid: 2,
  ready_at_ms: 1,
  last_used_ms: 1,
  expires_at_ms: null,
  active: 0,
  queued: 0,
  launch: { context: 4096, parallel: 1 },
  memory_bytes: null,
  vram_bytes: null,
  load_ms: 1,
  ...change,
});

export const model = (change: Partial<ModelView> = {}): ModelView => ({
  key: 'a',
  display_name: 'a',
  description: null,
  source: 'folder',
  size: 1,
  quantization: 'F16',
  parameters: 1,
  context_length: 4096,
  capabilities: ['chat'],
  state: 'unloaded',
  progress: null,
  reason: null,
  instance: null,
  pinned: false,
  aliases: [],
  runs_as: null,
  ...change,
});

export const view = (change: Partial<StateView> = {}): StateView => ({
  version: '0',
  uptime_s: 0,
  listeners: {
    ollama: { enabled: true, address: '127.0.0.1:11434', problem: null },
    lmstudio: { enabled: true, address: '127.0.0.1:1234', problem: null },
    management: { enabled: true, address: '127.0.0.1:5800', problem: null },
  },
  engine: { available: true, version: 'b1', build: 1, error: null },
  models: [],
  requests: [],
  downloads: [],
  memory: { total: 0, available: 0, engines: 0 },
  problems: [],
  config: { path: '', ok: true, error: null },
  ...change,
});

export const job = (change: Partial<DownloadView> = {}): DownloadView => ({
  id: 'job_0000000001',
  name: 'tiny',
  quantization: null,
  state: 'downloading',
  bytes_done: 1,
  bytes_total: 2,
  bytes_per_second: 1,
  error: null,
  verified: true,
  model: null,
  started_ms: 1,
  ended_ms: null,
  ...change,
});
