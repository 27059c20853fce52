"""The speech engine of LlamaRunner: one loaded speech model behind a small HTTP server on loopback (audio contract 7).

    python -I -u speech_engine.py --task transcribe --model FOLDER
    python -I -u speech_engine.py --task speak --model espeak-ng|platform|FOLDER

The environment variable `LR_SIDECAR_TOKEN` holds the key that every request but `GET /health` must carry as a bearer token.
Standard output has one JSON object per line: `listening`, `loading`, `ready` or `load_failed`, and `log`. The program stops at the
end of its standard input and at SIGTERM. It ends with 0 after a stop, 3 when the model cannot be loaded, and 4 at wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from typing import Any, NoReturn

# Isolated mode leaves out the program's own folder.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from speech_lines import emit, log, take_logging, take_stdout  # noqa: E402

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

    import speech_hearing

    return speech_hearing.load(
        Path(arguments.model), arguments.device, arguments.compute_type, threads, arguments.beam_size, arguments.batch_size
    )


def _serve(arguments: argparse.Namespace, listener: socket.socket, token: str) -> int:
    """Serve until something ends it. Returns the exit code."""
    import asyncio
    import contextlib
    import signal

    import uvicorn
    from speech_server import App, State

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            # Signals stop jobs first, and then the server.
            yield

    state = State(token)
    code = 0
    server = Server(
        uvicorn.Config(
            App(state), loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, date_header=False, timeout_graceful_shutdown=1,
        )
    )  # fmt: skip

    async def stop() -> None:
        # The server stops whether or not the window at hand ends in time.
        state.stopping = True
        state.worker.stop()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(state.worker.idle.wait(), _JOBS_END_S)
        server.should_exit = True

    async def run() -> None:
        loop = asyncio.get_running_loop()
        stops: list[asyncio.Task[None]] = []

        def begin_stop() -> None:
            if not stops:
                threading.Timer(_STOP_S, _leave, (code,)).start()
                stops.append(loop.create_task(stop()))

        def failed(sentence: str) -> None:
            nonlocal code
            code = _LOAD_FAILED
            state.error = sentence
            emit("load_failed", error=sentence)
            begin_stop()

        def load() -> None:
            emit("loading", progress=0.0)
            try:
                loaded = _load(arguments)
                port = listener.getsockname()[1]
            except Exception as error:
                loop.call_soon_threadsafe(failed, str(error) or type(error).__name__)
                return

            def ready() -> None:
                state.loaded = loaded
                emit("loading", progress=1.0)
                emit("ready", port=port, **loaded.facts)

            loop.call_soon_threadsafe(ready)

        def watch_stdin() -> None:
            # The supervisor holds the other end; it is gone when this one ends.
            with contextlib.suppress(OSError):
                while os.read(0, 4096):
                    pass
            loop.call_soon_threadsafe(begin_stop)

        for number in (signal.SIGTERM, signal.SIGINT, *([signal.SIGBREAK] if sys.platform == "win32" else [])):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(begin_stop))
        threading.Thread(target=load, name="load", daemon=True).start()
        threading.Thread(target=watch_stdin, name="stdin", daemon=True).start()
        await server.serve(sockets=[listener])

    asyncio.run(run())
    return code


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
        code = _serve(arguments, listener, token)
    except ImportError as error:
        emit("load_failed", error=f"The speech environment is incomplete: {error}. Run `llama-runner engine whisper install`.")
        code = _LOAD_FAILED
    except Exception as error:
        log("error", f"The speech engine stops: {type(error).__name__}: {error}")
        code = 1
    _leave(code)


if __name__ == "__main__":
    main()
