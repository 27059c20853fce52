import { ApiError, errorMessage } from './client';
import { SseSplitter } from './sse';

export interface ChatTurn {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

export interface ChatOptions {
  model: string;
  messages: ChatTurn[];
  temperature?: number | undefined;
}

/** Counts and times of an answer, as the engine reported them. */
export interface ChatTiming {
  tokens: number;
  tokensPerSecond: number | null;
  promptTokens: number | null;
  cachedTokens: number | null;
}

export interface ChatSink {
  text(piece: string): void;
  reasoning(piece: string): void;
  timing(timing: ChatTiming): void;
  finish(reason: string): void;
}

interface Chunk {
  choices?: { delta?: { content?: string | null; reasoning_content?: string | null }; finish_reason?: string | null }[];
  usage?: { completion_tokens?: number; prompt_tokens?: number; prompt_tokens_details?: { cached_tokens?: number } } | null;
  timings?: { predicted_n?: number; predicted_per_second?: number; prompt_n?: number; cache_n?: number };
  error?: { message?: string } | string;
}

/** Feeds one `data:` payload of a chat stream to the sink. Throws on an error event. */
export function readChunk(data: string, sink: ChatSink): void {
  if (data === '[DONE]') return;
  const chunk = JSON.parse(data) as Chunk;
  if (chunk.error !== undefined) throw new ApiError(errorMessage(data, 500), 500);
  for (const choice of chunk.choices ?? []) {
    if (choice.delta?.reasoning_content) sink.reasoning(choice.delta.reasoning_content);
    if (choice.delta?.content) sink.text(choice.delta.content);
    if (choice.finish_reason) sink.finish(choice.finish_reason);
  }
  const { timings, usage } = chunk;
  if (timings || usage) {
    const cached = timings?.cache_n ?? usage?.prompt_tokens_details?.cached_tokens ?? null;
    sink.timing({
      tokens: usage?.completion_tokens ?? timings?.predicted_n ?? 0,
      tokensPerSecond: timings?.predicted_per_second ?? null,
      promptTokens: usage?.prompt_tokens ?? (timings?.prompt_n === undefined ? null : timings.prompt_n + (cached ?? 0)),
      cachedTokens: cached,
    });
  }
}

/** Sends a chat and streams the answer into the sink. Aborting the signal closes the connection, which stops the engine. */
export async function streamChat(options: ChatOptions, sink: ChatSink, signal: AbortSignal): Promise<void> {
  const body: Record<string, unknown> = {
    model: options.model,
    messages: options.messages,
    stream: true,
    stream_options: { include_usage: true },
  };
  if (options.temperature !== undefined) body.temperature = options.temperature;
  const response = await fetch('/v1/chat/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok || !response.body) {
    throw new ApiError(errorMessage(await response.text(), response.status), response.status);
  }
  const reader = response.body.getReader();
  const splitter = new SseSplitter();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    for (const event of splitter.push(value)) readChunk(event.data, sink);
  }
}
