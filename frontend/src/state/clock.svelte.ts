/** The time, once a second, for countdowns; stands still while the page is hidden or nothing shows it. */
class Clock {
  now = $state(Date.now());
  #timer: ReturnType<typeof setInterval> | undefined;
  #users = 0;

  /** Call from an effect; runs the clock until the returned function is called. */
  run(): () => void {
    this.#users += 1;
    this.now = Date.now();
    this.#timer ??= setInterval(() => {
      if (!document.hidden) this.now = Date.now();
    }, 1000);
    return () => {
      this.#users -= 1;
      if (this.#users > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
    };
  }
}

export const clock = new Clock();
