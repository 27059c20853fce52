import { fetchState } from '../api/client';
import { EVENT_TYPES, type ModelView, type ServerEvent, type StateView } from '../api/types';
import { needsSnapshot, reduce } from './reduce';

export type Connection = 'connecting' | 'live' | 'stale';

const SNAPSHOT_EVERY_MS = 700;
const SETTLED_MS = 1500;
const RETRY_MS = 2000;

/** What the server says, kept current by one event stream. Every page renders this and nothing else. */
export class ServerStore {
  state = $state.raw<StateView | null>(null);
  connection = $state<Connection>('connecting');
  /** When the last news came; shown while the stream is lost. */
  seenAt = $state(0);
  stopping = $state(false);

  #source: EventSource | null = null;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #snapshot: ReturnType<typeof setTimeout> | undefined;
  #settle: ReturnType<typeof setTimeout> | undefined;
  #snapshotAt = 0;

  connect(): void {
    this.#source?.close();
    const source = new EventSource('/v1/events');
    this.#source = source;
    source.addEventListener('state', (event) => {
      this.#receive(JSON.parse((event as MessageEvent<string>).data) as StateView);
    });
    for (const type of EVENT_TYPES) {
      source.addEventListener(type, (event) => {
        this.#apply(JSON.parse((event as MessageEvent<string>).data) as ServerEvent);
      });
    }
    source.onerror = () => {
      this.connection = this.state ? 'stale' : 'connecting';
      // The browser retries a broken stream by itself, but gives up on a refused one.
      clearTimeout(this.#retry);
      if (source.readyState === EventSource.CLOSED) this.#retry = setTimeout(() => this.connect(), RETRY_MS);
    };
  }

  close(): void {
    this.#source?.close();
    clearTimeout(this.#retry);
    clearTimeout(this.#snapshot);
    clearTimeout(this.#settle);
  }

  model(key: string): ModelView | undefined {
    return this.state?.models.find((model) => model.key === key);
  }

  #receive(state: StateView): void {
    this.state = state;
    this.connection = 'live';
    this.stopping = false;
    this.seenAt = Date.now();
  }

  #apply(event: ServerEvent): void {
    this.seenAt = Date.now();
    this.connection = 'live';
    if (event.type === 'shutting_down') this.stopping = true;
    if (this.state) this.state = reduce(this.state, event);
    if (needsSnapshot(event)) this.refresh();
  }

  /** Asks for a snapshot, soon and not more often than a page needs. */
  refresh(): void {
    clearTimeout(this.#settle);
    // Memory is measured now and then, not with each event: one more look when things have calmed down.
    this.#settle = setTimeout(() => this.#later(0), SETTLED_MS);
    this.#later(Math.max(0, this.#snapshotAt + SNAPSHOT_EVERY_MS - Date.now()));
  }

  #later(wait: number): void {
    this.#snapshot ??= setTimeout(() => void this.#take(), wait);
  }

  async #take(): Promise<void> {
    // From here on, a new wish makes a new snapshot: this one may miss what comes now.
    this.#snapshot = undefined;
    this.#snapshotAt = Date.now();
    try {
      this.#receive(await fetchState());
    } catch {
      // The event stream notices a lost server; until then the last state stays.
    }
  }
}

export const server = new ServerStore();
