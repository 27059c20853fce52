import { speak, streamTranscription, type Segment, type SpeakOptions } from '../api/speech';
import { t } from '../text';

export type ListenStatus = 'waiting' | 'listening' | 'done' | 'stopped' | 'failed';

/** One recording and what was heard in it. */
export class Transcript {
  status = $state<ListenStatus>('waiting');
  segments = $state.raw<readonly Segment[]>([]);
  text = $state('');
  /** 0 to 1; null: nothing heard yet. */
  progress = $state<number | null>(null);
  language = $state<string | null>(null);
  confidence = $state<number | null>(null);
  duration = $state<number | null>(null);
  error = $state<string | null>(null);
  /** The server's name for the job. */
  id = $state<string | null>(null);
  /** When the server began to listen. */
  heardSince = $state(0);
  tookMs = $state<number | null>(null);

  constructor(
    /** Name of the recording. */
    readonly name: string,
    readonly model: string,
    readonly translate: boolean,
  ) {}
}

/** A lost connection is a TypeError to fetch. */
const sentence = (error: unknown): string =>
  error instanceof TypeError ? t.chat.lost : error instanceof Error ? error.message : String(error);

export interface Wishes {
  model: string;
  language?: string | undefined;
  translate: boolean;
}

/** The transcription on the Speech page. Lives as long as the page's tab; nothing is stored. */
export class Dictation {
  current = $state.raw<Transcript | null>(null);
  /** What was sent last, to send it again. */
  recording: File | null = null;
  #stop: AbortController | null = null;

  get running(): boolean {
    const status = this.current?.status;
    return status === 'waiting' || status === 'listening';
  }

  stop(): void {
    this.#stop?.abort();
  }

  async start(recording: File, wishes: Wishes): Promise<void> {
    this.stop();
    this.recording = recording;
    const name = recording.name;
    const stop = new AbortController();
    this.#stop = stop;
    const transcript = new Transcript(name, wishes.model, wishes.translate);
    this.current = transcript;
    const since = performance.now();
    try {
      await streamTranscription(
        { recording, name, ...wishes },
        {
          begin(id) {
            transcript.id = id;
            transcript.heardSince = performance.now();
            transcript.status = 'listening';
          },
          segment(segment, progress) {
            transcript.segments = [...transcript.segments, segment];
            transcript.text += segment.text;
            transcript.progress = progress ?? transcript.progress;
          },
          done(heard) {
            transcript.text = heard.text;
            transcript.language = heard.language;
            transcript.confidence = heard.confidence;
            transcript.duration = heard.duration;
          },
        },
        stop.signal,
      );
      transcript.tookMs = performance.now() - since;
      transcript.status = 'done';
    } catch (error) {
      transcript.status = stop.signal.aborted ? 'stopped' : 'failed';
      if (transcript.status === 'failed') transcript.error = sentence(error);
    } finally {
      if (this.#stop === stop) this.#stop = null;
    }
  }
}

export const dictation = new Dictation();

/** The text being said on the Speech page. */
export class Saying {
  text = $state('');
  speed = $state(1);
  busy = $state(false);
  error = $state<string | null>(null);
  /** Address of the sound; null: nothing was said yet. */
  sound = $state<string | null>(null);
  /** It was not played yet. A page that is opened again must not begin to speak. */
  fresh = $state(false);
  #stop: AbortController | null = null;

  stop(): void {
    this.#stop?.abort();
  }

  async say(options: SpeakOptions): Promise<void> {
    if (this.busy) return;
    const stop = new AbortController();
    this.#stop = stop;
    this.busy = true;
    this.error = null;
    if (this.sound) URL.revokeObjectURL(this.sound);
    this.sound = null;
    try {
      this.sound = URL.createObjectURL(await speak(options, stop.signal));
      this.fresh = true;
    } catch (error) {
      if (!stop.signal.aborted) this.error = sentence(error);
    } finally {
      this.busy = false;
      this.#stop = null;
    }
  }
}

export const saying = new Saying();
