import type { StateView } from './types';

/** A refusal or failure, in the server's own words where it has any. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** The message inside any of our error bodies: `{error: {message}}`, `{error}`, `{message}` or plain text. */
export function errorMessage(text: string, status: number): string {
  try {
    const body = JSON.parse(text) as { error?: unknown; message?: unknown };
    const { error } = body;
    if (typeof error === 'string') return error;
    if (error && typeof error === 'object' && typeof (error as { message?: unknown }).message === 'string') {
      return (error as { message: string }).message;
    }
    if (typeof body.message === 'string') return body.message;
  } catch {
    // Not JSON: the text itself, if it is short enough to be a sentence.
  }
  return text && text.length < 300 ? text : `HTTP ${status}`;
}

async function expectOk(response: Response): Promise<Response> {
  if (response.ok) return response;
  throw new ApiError(errorMessage(await response.text(), response.status), response.status);
}

export async function fetchState(signal?: AbortSignal): Promise<StateView> {
  const response = await expectOk(await fetch('/v1/state', { signal: signal ?? null }));
  return (await response.json()) as StateView;
}

const modelPath = (key: string, action: string) => `/v1/models/${encodeURIComponent(key)}/${action}`;

export async function startModel(key: string): Promise<void> {
  await expectOk(await fetch(modelPath(key, 'start'), { method: 'POST' }));
}

export async function stopModel(key: string): Promise<void> {
  await expectOk(await fetch(modelPath(key, 'stop'), { method: 'POST' }));
}

/** Starts a download; the list of downloads shows how it goes. */
export async function download(name: string): Promise<void> {
  const headers = { 'content-type': 'application/json' };
  await expectOk(await fetch('/v1/downloads', { method: 'POST', headers, body: JSON.stringify({ model: name }) }));
}

export async function changeDownload(id: string, action: 'pause' | 'resume'): Promise<void> {
  await expectOk(await fetch(`/v1/downloads/${encodeURIComponent(id)}/${action}`, { method: 'POST' }));
}

/** Cancels a download and deletes what has come; forgets a finished one. */
export async function removeDownload(id: string): Promise<void> {
  await expectOk(await fetch(`/v1/downloads/${encodeURIComponent(id)}`, { method: 'DELETE' }));
}

/** Follows a model's engine log. Calls back with whole lines; ends when the server does or the signal aborts. */
export async function followLog(
  key: string,
  lines: number,
  onLines: (lines: string[]) => void,
  signal: AbortSignal,
): Promise<void> {
  const response = await expectOk(await fetch(`${modelPath(key, 'logs')}?lines=${lines}&follow=true`, { signal }));
  const reader = response.body?.getReader();
  if (!reader) return;
  const decoder = new TextDecoder();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + decoder.decode(value, { stream: true })).split('\n');
    rest = parts.pop() ?? '';
    if (parts.length > 0) onLines(parts.map((line) => (line.endsWith('\r') ? line.slice(0, -1) : line)));
  }
  if (rest) onLines([rest]);
}
