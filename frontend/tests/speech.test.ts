import { describe, expect, it } from 'vitest';
import type { TranscriptionView } from '../src/api/types';
import { reduce, transcriptionOf, underWay } from '../src/state/reduce';
import { recorderProblem } from '../src/state/recorder.svelte';
import { LANGUAGES, languageName, languages } from '../src/text/language';
import { view } from './fixtures';
import { transcriptName, writeTranscript, type Transcription } from '../src/text/transcript';

const transcript: Transcription = {
  text: 'Hello --> there. Bye.',
  language: 'en',
  duration: 3725.5,
  segments: [
    { start: 0, end: 1.52, text: ' Hello --> there.' },
    { start: 3723.0004, end: 3725.4996, text: ' Bye.' },
  ],
};

describe('writeTranscript', () => {
  it('writes the forms that the server writes', () => {
    expect(writeTranscript(transcript, 'txt')).toBe('Hello --> there. Bye.\n');
    expect(writeTranscript(transcript, 'srt')).toBe(
      '1\n00:00:00,000 --> 00:00:01,520\nHello -> there.\n\n2\n01:02:03,000 --> 01:02:05,500\nBye.\n\n',
    );
    expect(writeTranscript(transcript, 'vtt')).toBe(
      'WEBVTT\n\n00:00:00.000 --> 00:00:01.520\nHello -> there.\n\n01:02:03.000 --> 01:02:05.500\nBye.\n\n',
    );
    expect(JSON.parse(writeTranscript(transcript, 'json'))).toEqual({
      text: transcript.text,
      language: 'en',
      duration: 3725.5,
      segments: [
        { start: 0, end: 1.52, text: 'Hello --> there.' },
        { start: 3723.0004, end: 3725.4996, text: 'Bye.' },
      ],
    });
  });

  it('writes an empty one', () => {
    const empty = { text: '', language: null, duration: 3, segments: [] };
    expect(writeTranscript(empty, 'srt')).toBe('');
    expect(writeTranscript(empty, 'vtt')).toBe('WEBVTT\n\n');
  });

  it.each([
    ['talk.mp3', 'talk.srt'],
    ['a.b.m4a', 'a.b.srt'],
    ['noending', 'noending.srt'],
    ['.mp3', 'transcript.srt'],
  ])('%s is saved as %s', (recording, name) => expect(transcriptName(recording, 'srt')).toBe(name));
});

describe('languages', () => {
  it('are all of Whisper, each with a name', () => {
    expect(LANGUAGES).toHaveLength(100);
    expect(new Set(LANGUAGES).size).toBe(100);
    expect(languageName('de')).toBe('German');
    expect(languageName('jw')).toBe('Javanese');
    expect(languageName('not a code')).toBe('not a code');
    const names = languages().map((entry) => entry.name);
    expect(names).toEqual([...names].sort((a, b) => a.localeCompare(b)));
  });
});

describe('transcriptions', () => {
  const job = (change: Partial<TranscriptionView>): TranscriptionView => ({
    id: 1, model: 'm', asked: 'm', task: 'transcribe', state: 'running', progress: 0, duration: null, language: null,
    processing_s: null, characters: 0, error: null, ...change,
  });
  const after = (...jobs: TranscriptionView[]) =>
    jobs.reduce((state, transcription) => reduce(state, { seq: 1, at_ms: 1, type: 'transcription', transcription }), view());

  it('are listed the newest first, and move where they are', () => {
    const { transcriptions } = after(job({ id: 10 }), job({ id: 9, state: 'queued' }), job({ id: 10, progress: 0.5 }));
    expect(transcriptions.map(({ id, progress }) => [id, progress])).toEqual([[9, 0], [10, 0.5]]);
  });

  it('keeps those under way and a few more', () => {
    const jobs = Array.from({ length: 100 }, (_, at) => job({ id: at + 1, state: at === 0 ? 'running' : 'completed' }));
    const { transcriptions } = after(...jobs);
    expect(transcriptions.length).toBe(21);
    expect([transcriptions[0]?.id, transcriptions.at(-1)?.id]).toEqual([100, 1]);
  });

  it.each([['queued', true], ['running', true], ['completed', false], ['failed', false], ['cancelled', false]] as const)(
    '%s is under way: %s',
    (state, wanted) => expect(underWay(job({ state }))).toBe(wanted),
  );

  it('are found by the id of their answer', () => {
    const list = [job({ id: 255 }), job({ id: 16 })];
    expect(transcriptionOf('0000000000000010', list)?.id).toBe(16);
    expect(transcriptionOf('00000000000000ff', list)?.id).toBe(255);
    for (const none of ['of-the-caller', '0000000000000011', null]) expect(transcriptionOf(none, list)).toBeUndefined();
  });
});

describe('recorderProblem', () => {
  it('says what to do', () => {
    const told = ['NotAllowedError', 'NotFoundError', 'NotReadableError', 'AbortError'].map(recorderProblem);
    expect(new Set(told).size).toBe(4);
    for (const sentence of told) expect(sentence).toMatch(/[Cc]hoose a file/);
  });
});
