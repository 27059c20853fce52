"""Jobs: one at a time, first come first served, on one thread of their own.

A job runs on the worker's thread and hands what it makes to the event loop, which answers the client. The client that
leaves sets the job's flag; the job looks at it wherever it can stop, and only then is the next one begun.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from speech_lines import log

#: Things made that wait for the client, at most. The job waits when there are more.
_WAITING = 64
#: Seconds without a sign before a job counts as stuck, while no window has been timed (audio contract 7.2).
_PATIENCE_AT_FIRST = 600.0
#: Afterwards: at least this many seconds, and this many times the slowest window.
_PATIENCE = 60.0
_WINDOWS = 10.0


class Refused(Exception):
    """A request that cannot be served: status and code of the audio contract 6, and a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class Cancelled(Exception):
    """Nobody waits for the job any more, or the program stops."""


def stopping() -> Refused:
    """What is answered once the program has been told to stop."""
    return Refused(503, "engine_stopping", "The speech engine is stopping. Try again.")


#: The end of what a job makes.
END = object()


class Job:
    """One piece of work and what it has made so far."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._made: asyncio.Queue[Any] = asyncio.Queue(_WAITING)
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._on_cancel: Callable[[], None] | None = None
        #: Why it was cancelled, when the client did not leave.
        self.refusal: Refused | None = None
        #: When it last showed a sign of life, by `time.monotonic`.
        self.last_sign = time.monotonic()
        #: The longest that one window took, in seconds.
        self.slowest = 0.0

    # On the worker's thread.

    def sign(self) -> None:
        """It goes on. Raises `Cancelled` when it should not."""
        self.last_sign = time.monotonic()
        if self._cancelled.is_set():
            raise Cancelled

    def window(self) -> None:
        """A sign after work that cannot be interrupted: a window of a recording, a sentence."""
        self.slowest = max(self.slowest, time.monotonic() - self.last_sign)
        self.sign()

    def put(self, made: Any) -> None:
        """Hand something to the client; waits while the client is slow."""
        self.sign()
        waiting = asyncio.run_coroutine_threadsafe(self._made.put(made), self._loop)
        while True:
            try:
                waiting.result(timeout=0.2)
                return
            except concurrent.futures.TimeoutError:
                # A client that reads slowly is no stuck job.
                self.last_sign = time.monotonic()
                if self._cancelled.is_set():
                    waiting.cancel()
                    raise Cancelled from None

    def while_running(self, stop: Callable[[], None]) -> _StopOnCancel:
        """A context in which cancelling also calls `stop`, from another thread."""
        return _StopOnCancel(self, stop)

    # On the event loop.

    async def take(self, timeout: float | None = None) -> Any:
        """The next thing made, or `None` after `timeout` seconds without one."""
        if timeout is None:
            return await self._made.get()
        getting = asyncio.ensure_future(self._made.get())
        try:
            # Not wait_for: before Python 3.12 it may lose the thing that comes as the time ends.
            done, _ = await asyncio.wait({getting}, timeout=timeout)
        except asyncio.CancelledError:
            getting.cancel()
            raise
        if not done:
            getting.cancel()
            # It may have come while it was being cancelled.
            await asyncio.wait({getting})
            if getting.cancelled():
                return None
        return getting.result()

    def end(self, last: Any) -> None:
        """Hand over the last thing, however full the queue is."""
        if self._cancelled.is_set() and self.refusal is None:
            return
        asyncio.ensure_future(self._made.put(last), loop=self._loop)

    # From anywhere.

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self, refusal: Refused | None = None) -> None:
        """Stop it as soon as it can be; `refusal` is what the client is told, if there still is one."""
        with self._lock:
            if self._cancelled.is_set():
                return
            self.refusal = refusal
            self._cancelled.set()
            stop = self._on_cancel
        if stop is not None:
            stop()


class _StopOnCancel:
    def __init__(self, job: Job, stop: Callable[[], None]) -> None:
        self._job = job
        self._stop = stop

    def __enter__(self) -> None:
        with self._job._lock:
            if self._job._cancelled.is_set():
                raise Cancelled
            self._job._on_cancel = self._stop

    def __exit__(self, *_: object) -> None:
        with self._job._lock:
            self._job._on_cancel = None


class Worker:
    """The thread that does the jobs, and what is known of it."""

    def __init__(self) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="speech")
        self._jobs: set[Job] = set()
        self._running: Job | None = None
        self._slowest = 0.0
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.counts = {"requests": 0, "completed": 0, "failed": 0, "cancelled": 0}
        self.audio_seconds = 0.0
        self.processing_seconds = 0.0

    def start(self, work: Callable[[Job], None]) -> Job:
        """Queue `work`. It is never begun if its job is cancelled before its turn."""
        loop = asyncio.get_running_loop()
        job = Job(loop)
        if self._stopping:
            raise stopping()
        self._jobs.add(job)
        self._idle.clear()
        self.counts["requests"] += 1
        future = loop.run_in_executor(self._pool, self._run, job, work)
        future.add_done_callback(lambda done: self._ended(job, done))
        return job

    def _run(self, job: Job, work: Callable[[Job], None]) -> None:
        if job.cancelled:
            raise Cancelled
        started = job.last_sign = time.monotonic()
        self._running = job
        try:
            work(job)
        finally:
            self.processing_seconds += time.monotonic() - started
            self._running = None

    def _ended(self, job: Job, done: asyncio.Future[None]) -> None:
        error = done.exception()
        self._slowest = max(self._slowest, job.slowest)
        if error is None:
            self.counts["completed"] += 1
            job.end(END)
        elif isinstance(error, Cancelled):
            self.counts["cancelled"] += 1
            job.end(job.refusal)
        elif isinstance(error, Refused):
            self.counts["failed"] += 1
            job.end(error)
        else:
            self.counts["failed"] += 1
            log("error", f"A request failed: {type(error).__name__}: {error}")
            job.end(
                Refused(500, "engine_failed", f"The speech engine could not go on: {error or type(error).__name__}.")
            )
        self._jobs.discard(job)
        if not self._jobs:
            self._idle.set()

    @property
    def running(self) -> bool:
        return self._running is not None

    @property
    def queued(self) -> int:
        return max(0, len(self._jobs) - (1 if self.running else 0))

    @property
    def stuck(self) -> bool:
        """Whether the job that runs has shown no sign of life for far too long."""
        job = self._running
        if job is None:
            return False
        slowest = max(self._slowest, job.slowest)
        patience = max(_PATIENCE, _WINDOWS * slowest) if slowest else _PATIENCE_AT_FIRST
        return time.monotonic() - job.last_sign > patience

    async def stop(self, seconds: float) -> None:
        """Take no more work and cancel what there is; wait at most `seconds` for it to end."""
        self._stopping = True
        for job in tuple(self._jobs):
            job.cancel(stopping())
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)
