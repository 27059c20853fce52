/** Wire types of the product's own API (`GET /v1/state`, `GET /v1/events`). Unknown fields are ignored. */

export type ModelStateName = 'unloaded' | 'queued' | 'loading' | 'ready' | 'draining' | 'failed';

export interface Launch {
  mode?: string;
  context: number;
  parallel: number;
}

export interface InstanceView {
  id: number;
  model: string;
  engine: string;
  state: ModelStateName;
  /** 0 to 1, while loading. */
  progress?: number;
  /** One sentence, when failed. */
  reason?: string;
  /** Last lines of the engine, when failed. */
  log?: string[];
  port: number | null;
  pid: number | null;
  ready_at_ms: number | null;
  last_used_ms: number | null;
  /** When it is unloaded if nothing comes; null: busy, for ever, or not ready. */
  expires_at_ms: number | null;
  active: number;
  queued: number;
  launch: Launch;
  memory_bytes: number | null;
  vram_bytes: number | null;
  load_ms: number | null;
}

export interface ModelView {
  key: string;
  display_name: string;
  description: string | null;
  source: string;
  size: number;
  quantization: string;
  parameters: number;
  context_length: number | null;
  capabilities: string[];
  state: ModelStateName;
  progress: number | null;
  reason: string | null;
  instance: InstanceView | null;
  pinned: boolean;
  aliases: string[];
  /** The name whose instance serves this one too; the instance is told there alone. */
  runs_as: string | null;
}

export interface PortHolder {
  pid: number;
  name: string;
}

export interface ListenerView {
  enabled: boolean;
  address: string | null;
  problem: { error: string; held_by: PortHolder | null } | null;
}

export type ListenerName = 'ollama' | 'lmstudio' | 'management';

export interface RequestView {
  id: number | string;
  model: string;
  operation: string;
  client: string;
  phase: 'queued' | 'loading' | 'running';
  started_ms: number;
}

export type DownloadState =
  | 'queued'
  | 'resolving'
  | 'downloading'
  | 'verifying'
  | 'paused'
  | 'completed'
  | 'failed'
  | 'cancelled';

export interface DownloadView {
  id: string;
  /** What was asked for: a model name or an address. */
  name: string;
  quantization: string | null;
  state: DownloadState;
  bytes_done: number;
  /** null: not known yet. */
  bytes_total: number | null;
  bytes_per_second: number;
  /** Why it failed or paused by itself. */
  error: string | null;
  /** False: no published hash was compared. */
  verified: boolean;
  /** The model's name in the library, once it is there. */
  model: string | null;
  started_ms: number;
  ended_ms: number | null;
}

/** A transcription or translation of any app. It does not hold the text. */
export interface TranscriptionView {
  id: number;
  model: string;
  /** The name the app used. */
  asked: string;
  task: 'transcribe' | 'translate';
  state: 'queued' | 'running' | 'completed' | 'failed' | 'cancelled';
  /** 0 to 1. */
  progress: number;
  /** Seconds, once known. */
  duration: number | null;
  language: string | null;
  processing_s: number | null;
  characters: number;
  error: string | null;
}

export interface StateView {
  version: string;
  uptime_s: number;
  listeners: Record<ListenerName, ListenerView>;
  engine: { available: boolean; version: string | null; build: number | null; error: string | null };
  models: ModelView[];
  requests: RequestView[];
  /** Newest first. */
  downloads: DownloadView[];
  /** Newest first: those under way and the last that ended, this window's own too. */
  transcriptions: TranscriptionView[];
  memory: { total: number; available: number; engines: number };
  problems: string[];
  config: { path: string; ok: boolean; error: string | null };
}

interface Stamp {
  seq: number;
  at_ms: number;
}

export type ServerEvent = Stamp &
  (
    | { type: 'instance'; instance: InstanceView }
    | { type: 'instance_gone'; model: string }
    | { type: 'model_failed'; model: string; reason: string }
    | { type: 'catalog_changed'; models: number }
    | { type: 'config'; accepted: boolean; message: string }
    | { type: 'download'; job: DownloadView }
    | { type: 'transcription'; transcription: TranscriptionView }
    | { type: 'requests'; active: number }
    | { type: 'log' }
    | { type: 'shutting_down' }
  );

export const EVENT_TYPES = [
  'instance',
  'instance_gone',
  'model_failed',
  'catalog_changed',
  'config',
  'download',
  'transcription',
  'requests',
  'shutting_down',
] as const;
