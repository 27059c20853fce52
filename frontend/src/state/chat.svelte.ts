import { streamChat, type ChatTiming, type ChatTurn } from '../api/chat';
import { t } from '../text';

export type AnswerStatus = 'waiting' | 'thinking' | 'streaming' | 'done' | 'stopped' | 'failed';

/** One answer of the model. Text grows at most once per frame, however fast tokens come. */
export class Answer {
  readonly role = 'assistant' as const;
  text = $state('');
  reasoning = $state('');
  status = $state<AnswerStatus>('waiting');
  error = $state<string | null>(null);
  timing = $state.raw<ChatTiming | null>(null);
  finish = $state<string | null>(null);
  firstMs = $state<number | null>(null);
  thoughtMs = $state<number | null>(null);
  readonly sentAt = performance.now();

  constructor(
    readonly id: number,
    readonly model: string,
  ) {}
}

export interface Question {
  role: 'user';
  id: number;
  text: string;
}

/** The conversation on the Chat page. Lives as long as the page's tab; nothing is stored. */
export class Conversation {
  turns = $state.raw<readonly (Question | Answer)[]>([]);
  system = $state('');
  temperature = $state<number | null>(null);
  running = $state.raw<Answer | null>(null);

  #ids = 0;
  #stop: AbortController | null = null;

  async send(model: string, text: string): Promise<void> {
    if (this.running) return;
    const question: Question = { role: 'user', id: ++this.#ids, text };
    this.turns = [...this.turns, question];
    await this.#answer(model);
  }

  /** Asks the last question again, dropping the answer it had. */
  async retry(model: string): Promise<void> {
    if (this.running) return;
    const last = this.turns.findLastIndex((turn) => turn.role === 'user');
    if (last < 0) return;
    this.turns = this.turns.slice(0, last + 1);
    await this.#answer(model);
  }

  stop(): void {
    this.#stop?.abort();
  }

  clear(): void {
    this.stop();
    this.turns = [];
  }

  #messages(): ChatTurn[] {
    const messages: ChatTurn[] = this.system.trim() ? [{ role: 'system', content: this.system }] : [];
    for (const turn of this.turns) {
      if (turn.role === 'user') messages.push({ role: 'user', content: turn.text });
      else if (turn.text) messages.push({ role: 'assistant', content: turn.text });
    }
    return messages;
  }

  async #answer(model: string): Promise<void> {
    const messages = this.#messages();
    const answer = new Answer(++this.#ids, model);
    this.turns = [...this.turns, answer];
    this.running = answer;
    const stop = new AbortController();
    this.#stop = stop;
    let text = '';
    let reasoning = '';
    let frame = 0;
    const show = () => {
      frame = 0;
      answer.text = text;
      answer.reasoning = reasoning;
    };
    const grow = () => {
      answer.firstMs ??= performance.now() - answer.sentAt;
      frame ||= requestAnimationFrame(show);
    };
    let thinkingSince = 0;
    try {
      await streamChat(
        { model, messages, temperature: this.temperature ?? undefined },
        {
          text(piece) {
            if (reasoning && answer.thoughtMs === null) answer.thoughtMs = performance.now() - thinkingSince;
            text += piece;
            answer.status = 'streaming';
            grow();
          },
          reasoning(piece) {
            thinkingSince ||= performance.now();
            reasoning += piece;
            answer.status = 'thinking';
            grow();
          },
          timing(timing) {
            answer.timing = timing;
          },
          finish(reason) {
            answer.finish = reason;
          },
        },
        stop.signal,
      );
      answer.status = 'done';
    } catch (error) {
      if (stop.signal.aborted) {
        answer.status = 'stopped';
      } else {
        answer.status = 'failed';
        // A TypeError is fetch's word for a lost connection.
        answer.error = error instanceof TypeError ? t.chat.lost : error instanceof Error ? error.message : String(error);
      }
    } finally {
      cancelAnimationFrame(frame);
      show();
      this.running = null;
      this.#stop = null;
    }
  }
}

export const conversation = new Conversation();
