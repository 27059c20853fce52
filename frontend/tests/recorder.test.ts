import { afterEach, describe, expect, it, vi } from 'vitest';
import { Microphone } from '../src/state/recorder.svelte';

/** A microphone that is granted when the test says so. */
function granted(recorder: unknown) {
  const stop = vi.fn();
  let grant = () => {};
  const stream = new Promise((resolve) => (grant = () => resolve({ getTracks: () => [{ stop }] })));
  vi.stubGlobal('navigator', { mediaDevices: { getUserMedia: () => stream } });
  vi.stubGlobal('MediaRecorder', Object.assign(recorder as object, { isTypeSupported: () => true }));
  return { stop, grant };
}

afterEach(() => vi.unstubAllGlobals());

describe('Microphone', () => {
  it('is off when it is granted after the page was left', async () => {
    const recorder = vi.fn();
    const { stop, grant } = granted(recorder);
    const microphone = new Microphone();
    const keep = vi.fn();
    const started = microphone.start(keep);
    expect(microphone.status).toBe('asking');
    microphone.discard();
    expect(microphone.status).toBe('off');
    grant();
    await started;
    expect(stop).toHaveBeenCalledOnce();
    expect(recorder).not.toHaveBeenCalled();
    expect([microphone.status, microphone.problem]).toEqual(['off', null]);
  });

  it('is off when the browser cannot record', async () => {
    const { stop, grant } = granted(
      class {
        constructor() {
          throw new DOMException('no such type', 'NotSupportedError');
        }
      },
    );
    const microphone = new Microphone();
    const started = microphone.start(vi.fn());
    grant();
    await started;
    expect(stop).toHaveBeenCalledOnce();
    expect(microphone.status).toBe('off');
    expect(microphone.problem).toContain('NotSupportedError');
  });
});
