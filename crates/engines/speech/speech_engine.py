"""The speech engine of LlamaRunner: one loaded speech model behind a small HTTP server on loopback (audio contract 7).

    python -I -u speech_engine.py --task transcribe --model FOLDER
    python -I -u speech_engine.py --task speak --model espeak-ng|platform|FOLDER

The environment variable `LR_SIDECAR_TOKEN` holds the key that every request but `GET /health` must carry as a bearer
token. Standard output has one JSON object per line: `listening`, `loading`, `ready` or `load_failed`, and `log`. The
program stops at the end of its standard input and at SIGTERM. It ends with 0 after a stop, 3 when the model cannot be
loaded, and 4 at wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

# Isolated mode leaves out the program's own folder.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from speech_lines import emit, log, take_logging, take_stdout

_LOAD_FAILED = 3
_BAD_ARGUMENTS = 4
#: Seconds for what is under way to end after a stop, and for the whole stop.
_JOBS_END_S = 4.0
_STOP_S = 4.8
#: More threads than this make a window slower, not faster.
_MOST_THREADS = 8


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        emit("load_failed", error=f"Wrong arguments: {message}.")
        sys.exit(_BAD_ARGUMENTS)


def _parse() -> argparse.Namespace:
    arguments = _Arguments(prog="speech_engine.py", description="The speech engine of LlamaRunner.", allow_abbrev=False)
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=0, help="0: any that is free")
    arguments.add_argument("--task", choices=("transcribe", "speak"), required=True)
    arguments.add_argument("--model", required=True, help="a folder, or for `speak` also espeak-ng or platform")
    arguments.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    arguments.add_argument("--compute-type", default="auto", help="of CTranslate2, such as int8 or float16")
    arguments.add_argument("--threads", type=int, default=0, help="0: one for each core, but not more than eight")
    arguments.add_argument("--beam-size", type=int, default=5, help="of requests that say nothing of it")
    arguments.add_argument("--batch-size", type=int, default=8, help="windows at a time on a GPU")
    return arguments.parse_args()


def _threads(asked: int) -> int:
    if asked > 0:
        return asked
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return min(cores, _MOST_THREADS)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections from now on; they are answered once the server runs."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    return listener


def _load(arguments: argparse.Namespace) -> Any:
    """The model, or an exception whose text is a sentence for people."""
    threads = _threads(arguments.threads)
    if arguments.task == "speak":
        from speech_speaking import Speaking
        from speech_voices import open_engine

        emit("loading", progress=0.5)
        return Speaking(open_engine(arguments.model, arguments.device), "cpu")
    from pathlib import Path

    import speech_loading

    return speech_loading.load(
        Path(arguments.model),
        arguments.device,
        arguments.compute_type,
        threads,
        arguments.beam_size,
        arguments.batch_size,
    )


class _Program:
    """The program once it listens."""

    def __init__(self, arguments: argparse.Namespace, listener: socket.socket, token: str) -> None:
        import asyncio
        import contextlib

        import uvicorn

        from speech_server import App, State

        class Server(uvicorn.Server):
            @contextlib.contextmanager
            def capture_signals(self) -> Any:
                # Signals stop jobs first, and then the server.
                yield

        self._arguments = arguments
        self._listener = listener
        self._state = State(token)
        self._code = 0
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Task[None] | None = None
        self._server = Server(
            uvicorn.Config(
                App(self._state),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=1,
            )
        )

    def run(self) -> int:
        """Load the model and serve until something ends it. Returns the exit code."""
        for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: self._loop.call_soon_threadsafe(self._begin_stop))
        for work in (self._load, self._watch_stdin):
            threading.Thread(target=work, daemon=True).start()
        self._loop.run_until_complete(self._server.serve(sockets=[self._listener]))
        return self._code

    def _load(self) -> None:
        emit("loading", progress=0.0)
        try:
            loaded = _load(self._arguments)
        except Exception as error:
            self._loop.call_soon_threadsafe(self._failed, str(error) or type(error).__name__)
        else:
            self._loop.call_soon_threadsafe(self._ready, loaded)

    def _ready(self, loaded: Any) -> None:
        self._state.loaded = loaded
        emit("loading", progress=1.0)
        emit("ready", port=self._listener.getsockname()[1], **loaded.facts)

    def _failed(self, sentence: str) -> None:
        if self._stop is None:
            self._code = _LOAD_FAILED
            self._state.error = sentence
            emit("load_failed", error=sentence)
            self._begin_stop()

    def _watch_stdin(self) -> None:
        # The supervisor holds the other end; it is gone when this one ends.
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass
        self._loop.call_soon_threadsafe(self._begin_stop)

    def _begin_stop(self) -> None:
        if self._stop is None:
            # The program ends in time, whatever is under way.
            threading.Timer(_STOP_S, _leave, (self._code,)).start()
            self._stop = self._loop.create_task(self._end())

    async def _end(self) -> None:
        self._state.stopping = True
        await self._state.worker.stop(_JOBS_END_S)
        self._server.should_exit = True


def _leave(code: int) -> NoReturn:
    """End at once, whatever a thread still computes."""
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Run the program."""
    take_stdout()
    take_logging()
    arguments = _parse()
    token = os.environ.pop("LR_SIDECAR_TOKEN", "")
    if not token:
        emit("load_failed", error="The environment variable LR_SIDECAR_TOKEN is missing.")
        _leave(_BAD_ARGUMENTS)
    # Threads that wait for each other sleep. They would spin, and on a busy machine a second of work becomes many.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    # Nothing is ever fetched by this program.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        listener = _listen(arguments.host, arguments.port)
    except (OSError, OverflowError) as error:
        emit("load_failed", error=f"Cannot listen on {arguments.host}:{arguments.port}: {error}.")
        _leave(_BAD_ARGUMENTS)
    emit("listening", port=listener.getsockname()[1])
    try:
        code = _Program(arguments, listener, token).run()
    except ImportError as error:
        emit(
            "load_failed",
            error=f"The speech environment is incomplete: {error}. Run `llama-runner engine whisper install`.",
        )
        code = _LOAD_FAILED
    except Exception as error:
        log("error", f"The speech engine stops: {type(error).__name__}: {error}")
        code = 1
    _leave(code)


if __name__ == "__main__":
    main()
