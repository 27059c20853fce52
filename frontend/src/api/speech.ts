import { ApiError, errorMessage } from './client';
import { SseSplitter } from './sse';

/** A piece of a transcript; times in seconds. */
export interface Segment {
  start: number;
  end: number;
  text: string;
}

export interface ListenOptions {
  recording: Blob;
  /** File name, for the server's log only. */
  name: string;
  model: string;
  /** Language code; undefined: found out. */
  language?: string | undefined;
  /** English text, whatever is spoken. */
  translate: boolean;
}

/** What is known at the end. */
export interface Heard {
  text: string;
  /** Code of the language that was spoken; null: there was nothing to tell it from. */
  language: string | null;
  /** How sure that is, 0 to 1; null: it was asked for, or nobody said. */
  confidence: number | null;
  /** Seconds. */
  duration: number | null;
}

export interface ListenSink {
  /** The server has taken the recording and begins; `id` names the job in its events. */
  begin(id: string | null): void;
  /** A piece was heard; `progress` 0 to 1. */
  segment(segment: Segment, progress: number | null): void;
  done(heard: Heard): void;
}

interface Event {
  type?: string;
  delta?: string;
  segment?: { start?: number; end?: number };
  progress?: number;
  text?: string;
  language?: string | null;
  source_language?: string | null;
  detected_language?: string | null;
  language_probability?: number;
  duration?: number;
  error?: unknown;
}

/** Feeds one `data:` payload of a transcription to the sink. Throws on an error event. */
export function readSpeechEvent(data: string, sink: ListenSink): void {
  if (data === '[DONE]') return;
  const event = JSON.parse(data) as Event;
  if (event.error !== undefined) throw new ApiError(errorMessage(data, 500), 500);
  if (event.type === 'transcript.text.delta') {
    const { start = 0, end = 0 } = event.segment ?? {};
    sink.segment({ start, end, text: event.delta ?? '' }, event.progress ?? null);
  } else if (event.type === 'transcript.text.done') {
    const spoken = event.source_language !== undefined ? event.source_language : event.detected_language === null ? null : event.language;
    sink.done({
      text: event.text ?? '',
      language: spoken ?? null,
      confidence: event.language_probability ?? null,
      duration: event.duration ?? null,
    });
  }
}

/** Sends a recording and streams its words into the sink. Aborting the signal closes the connection, which stops the work. */
export async function streamTranscription(options: ListenOptions, sink: ListenSink, signal: AbortSignal): Promise<void> {
  const form = new FormData();
  form.set('model', options.model);
  form.set('stream', 'true');
  if (options.language && !options.translate) form.set('language', options.language);
  form.set('file', options.recording, options.name);
  const path = options.translate ? '/v1/audio/translations' : '/v1/audio/transcriptions';
  const response = await fetch(path, { method: 'POST', body: form, signal });
  if (!response.ok || !response.body) {
    throw new ApiError(errorMessage(await response.text(), response.status), response.status);
  }
  sink.begin(response.headers.get('x-request-id'));
  const reader = response.body.getReader();
  const splitter = new SseSplitter();
  let over = false;
  const watched: ListenSink = {
    ...sink,
    done(heard) {
      over = true;
      sink.done(heard);
    },
  };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    for (const event of splitter.push(value)) readSpeechEvent(event.data, watched);
  }
  // A body that ends early is a lost connection, which fetch calls by this name.
  if (!over) throw new TypeError('cut short');
}

export interface Voice {
  id: string;
  name: string;
  language: string | null;
}

export async function fetchVoices(model: string): Promise<Voice[]> {
  const response = await fetch(`/v1/audio/voices?model=${encodeURIComponent(model)}`);
  if (!response.ok) throw new ApiError(errorMessage(await response.text(), response.status), response.status);
  const body = (await response.json()) as { data?: Voice[] };
  return body.data ?? [];
}

export interface SpeakOptions {
  text: string;
  model: string;
  voice: string;
  speed: number;
}

/** The text as an MP3. */
export async function speak(options: SpeakOptions, signal: AbortSignal): Promise<Blob> {
  const body = { model: options.model, input: options.text, voice: options.voice, speed: options.speed, response_format: 'mp3' };
  const response = await fetch('/v1/audio/speech', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw new ApiError(errorMessage(await response.text(), response.status), response.status);
  return response.blob();
}
