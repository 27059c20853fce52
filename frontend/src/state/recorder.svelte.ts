import { t } from '../text';

/** What browsers can record, the best first, with the ending of its files. */
const KINDS: [string, string][] = [
  ['audio/webm;codecs=opus', 'webm'],
  ['audio/ogg;codecs=opus', 'ogg'],
  ['audio/mp4', 'm4a'],
];

/** Why there is no recording, as a sentence. */
export function recorderProblem(name: string): string {
  switch (name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return t.speech.microphone.refused;
    case 'NotFoundError':
    case 'OverconstrainedError':
      return t.speech.microphone.none;
    case 'NotReadableError':
      return t.speech.microphone.busy;
    default:
      return t.speech.microphone.failed(name);
  }
}

/** The microphone: from the press of a button to a file. */
export class Microphone {
  status = $state<'off' | 'asking' | 'recording'>('off');
  /** When the recording began. */
  since = $state(0);
  problem = $state<string | null>(null);
  #recorder: MediaRecorder | null = null;
  #kept: ((recording: File) => void) | null = null;
  /** Counts the wishes to record: an answer to one that was given up is of no use. */
  #wish = 0;

  /** Asks for the microphone and records until `finish` or `discard`. */
  async start(keep: (recording: File) => void): Promise<void> {
    if (this.status !== 'off') return;
    this.problem = null;
    // Browsers hide it from pages that came over an unprotected network.
    if (typeof navigator.mediaDevices?.getUserMedia !== 'function' || typeof MediaRecorder === 'undefined') {
      this.problem = window.isSecureContext ? t.speech.microphone.unable : t.speech.microphone.insecure;
      return;
    }
    this.status = 'asking';
    const wish = ++this.#wish;
    let stream: MediaStream | null = null;
    const release = () => {
      for (const track of stream?.getTracks() ?? []) track.stop();
    };
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      if (wish !== this.#wish) {
        release();
        return;
      }
      const [type, ending] = KINDS.find(([type]) => MediaRecorder.isTypeSupported(type)) ?? ['', 'webm'];
      const recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
      const parts: Blob[] = [];
      recorder.ondataavailable = (event) => parts.push(event.data);
      recorder.onstop = () => {
        release();
        this.status = 'off';
        this.#recorder = null;
        const kept = this.#kept;
        this.#kept = null;
        kept?.(new File(parts, `${t.speech.recordingName}.${ending}`, { type: recorder.mimeType }));
      };
      recorder.onerror = () => {
        this.problem = recorderProblem('');
        this.discard();
      };
      recorder.start(1000);
      this.#recorder = recorder;
      this.#kept = keep;
      this.since = Date.now();
      this.status = 'recording';
    } catch (error) {
      release();
      if (wish !== this.#wish) return;
      this.status = 'off';
      this.problem = recorderProblem(error instanceof Error ? error.name : '');
    }
  }

  finish(): void {
    this.#recorder?.stop();
  }

  discard(): void {
    this.#kept = null;
    this.#recorder?.stop();
    if (this.status === 'asking') {
      this.#wish += 1;
      this.status = 'off';
    }
  }
}

export const microphone = new Microphone();
