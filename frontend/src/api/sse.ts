/** One server-sent event. */
export interface SseEvent {
  event: string;
  data: string;
}

/**
 * Splits a byte stream into server-sent events, whatever the pieces it comes in. Only what our own servers send is
 * understood: `event:`, `data:` (several lines joined), comments, blank line as the end; LF or CRLF.
 */
export class SseSplitter {
  #decoder = new TextDecoder();
  #rest = '';
  #event = '';
  #data: string[] = [];

  push(bytes: Uint8Array): SseEvent[] {
    this.#rest += this.#decoder.decode(bytes, { stream: true });
    const events: SseEvent[] = [];
    let from = 0;
    for (let at = this.#rest.indexOf('\n'); at >= 0; at = this.#rest.indexOf('\n', from)) {
      let line = this.#rest.slice(from, at);
      from = at + 1;
      if (line.endsWith('\r')) line = line.slice(0, -1);
      const event = this.#line(line);
      if (event) events.push(event);
    }
    this.#rest = this.#rest.slice(from);
    return events;
  }

  #line(line: string): SseEvent | null {
    if (line === '') {
      if (this.#data.length === 0) return null;
      const event = { event: this.#event || 'message', data: this.#data.join('\n') };
      this.#event = '';
      this.#data = [];
      return event;
    }
    if (line.startsWith(':')) return null;
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value.startsWith(' ')) value = value.slice(1);
    if (field === 'data') this.#data.push(value);
    else if (field === 'event') this.#event = value;
    return null;
  }
}
