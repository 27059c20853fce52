import { Lexer, type Token, type TokensList } from 'marked';

/**
 * Markdown that grows: finished blocks are lexed once, only the open tail again. Lexing the whole answer for each
 * token costs seconds of main-thread time per long answer (UX guide 5).
 */
export class GrowingMarkdown {
  /** Finished blocks, in order. */
  readonly blocks: Token[] = [];
  /** Tokens of the part that may still change. */
  tail: Token[] = [];
  #text = '';
  #done = 0;

  /** Sets the text so far. Text that does not continue the last one starts over. */
  set(text: string): void {
    if (!text.startsWith(this.#text)) {
      this.blocks.length = 0;
      this.#done = 0;
    }
    this.#text = text;
    const tokens: TokensList = new Lexer({ gfm: true }).lex(text.slice(this.#done));
    // The last block is open, and so is the blank line after it: an item after a blank line continues a list.
    let open = tokens.length - 1;
    while (open > 0 && tokens[open]?.type === 'space') open -= 1;
    const finished = tokens.slice(0, Math.max(0, open));
    // Lexing normalises line ends; without them the offsets are exact.
    if (text.includes('\r')) {
      this.tail = tokens;
      return;
    }
    for (const token of finished) {
      this.#done += token.raw.length;
      if (token.type !== 'space') this.blocks.push(token);
    }
    this.tail = tokens.slice(finished.length).filter((token) => token.type !== 'space');
  }
}
