import type { Segment } from '../api/speech';

/** What a transcript can be saved as. */
export const TRANSCRIPT_FORMATS = ['txt', 'srt', 'vtt', 'json'] as const;
export type TranscriptFormat = (typeof TRANSCRIPT_FORMATS)[number];

export interface Transcription {
  text: string;
  language: string | null;
  duration: number | null;
  segments: readonly Segment[];
}

const TYPES: Record<TranscriptFormat, string> = {
  txt: 'text/plain;charset=utf-8',
  srt: 'application/x-subrip',
  vtt: 'text/vtt',
  json: 'application/json',
};

export const transcriptType = (format: TranscriptFormat): string => TYPES[format];

/** `HH:MM:SS,mmm`, as subtitle files have it. */
function stamp(seconds: number, point: string): string {
  const ms = Math.max(0, Math.round(seconds * 1000));
  const two = (n: number) => String(n).padStart(2, '0');
  return `${two(Math.floor(ms / 3_600_000))}:${two(Math.floor(ms / 60_000) % 60)}:${two(Math.floor(ms / 1000) % 60)}${point}${String(ms % 1000).padStart(3, '0')}`;
}

/** Times as the server writes them into the same formats (audio contract 1). */
export function writeTranscript(transcript: Transcription, format: TranscriptFormat): string {
  const line = (segment: Segment, point: string) => `${stamp(segment.start, point)} --> ${stamp(segment.end, point)}`;
  // An arrow inside the text would end it.
  const words = (segment: Segment) => segment.text.trim().replaceAll('-->', '->');
  switch (format) {
    case 'txt':
      return `${transcript.text.trim()}\n`;
    case 'srt':
      return transcript.segments.map((s, at) => `${at + 1}\n${line(s, ',')}\n${words(s)}\n\n`).join('');
    case 'vtt':
      return `WEBVTT\n\n${transcript.segments.map((s) => `${line(s, '.')}\n${words(s)}\n\n`).join('')}`;
    case 'json': {
      const segments = transcript.segments.map(({ start, end, text }) => ({ start, end, text: text.trim() }));
      const { text, language, duration } = transcript;
      return `${JSON.stringify({ text, language, duration, segments }, null, 2)}\n`;
    }
  }
}

/** `talk.mp3` becomes `talk.srt`. */
export function transcriptName(recording: string, format: TranscriptFormat): string {
  const stem = recording.replace(/\.[^.]{1,5}$/, '') || 'transcript';
  return `${stem}.${format}`;
}
