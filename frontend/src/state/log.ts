/** The newest lines of a log, and how many came before them. */
export class LogWindow {
  lines: readonly string[] = [];
  /** How many older lines were dropped; also the key of the first line kept. */
  first = 0;

  constructor(readonly capacity: number) {}

  push(more: readonly string[]): void {
    const all = this.lines.concat(more);
    const drop = Math.max(0, all.length - this.capacity);
    this.lines = drop > 0 ? all.slice(drop) : all;
    this.first += drop;
  }

  clear(): void {
    this.lines = [];
    this.first = 0;
  }
}
