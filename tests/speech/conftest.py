"""The speech program by itself: started as the supervisor starts it, with the real faster-whisper and a tiny model."""
import contextlib
import json
import os
import pathlib
import queue
import subprocess
import threading
import time
import wave

import httpx
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "crates" / "engines" / "speech"
FIXTURES = ROOT / "crates" / "testkit" / "fixtures"
AUDIO = FIXTURES / "audio"
MODEL = FIXTURES / "models" / "tiny-whisper"
TOKEN = "a-key-for-tests"


def speech_python():
    """The Python with the speech environment that `cargo xtask test` made sure of."""
    named = os.environ.get("LLAMARUNNER_SPEECH_PYTHON")
    if named:
        return named
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "llama-runner"
    made = sorted((cache / "python").glob("speech-*/bin/python"))
    return str(made[-1]) if made else None


def pytest_collection_modifyitems(items):
    if speech_python() is None:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="no speech environment: run `cargo xtask setup --test`"))


def inside(code, *arguments):
    """Run Python within the speech environment, with the program's modules at hand; what it prints as JSON comes back."""
    done = subprocess.run(
        [speech_python(), "-c", f"import sys; sys.path.insert(0, {str(PROGRAM)!r})\n{code}", *map(str, arguments)],
        capture_output=True, text=True, timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Engine:
    """A running speech program."""

    def __init__(self, *arguments, env=None):
        self.process = subprocess.Popen(
            [speech_python(), "-I", "-u", PROGRAM / "speech_engine.py", "--host", "127.0.0.1", "--port", "0", *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LR_SIDECAR_TOKEN": TOKEN, **(env or {})},
        )
        self.lines = []
        self.errors = []
        self._new = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))
            self._new.put(self.lines[-1])
        self._new.put(None)

    def until(self, event, seconds=60):
        """The next line of that kind; `None`: the program ended without one."""
        deadline = time.monotonic() + seconds
        while True:
            line = self._new.get(timeout=max(0.01, deadline - time.monotonic()))
            if line is None or line["event"] == event:
                return line

    def ready(self):
        line = self.until("ready")
        assert line is not None, (self.lines, self.errors)
        return self

    @property
    def port(self):
        return next(line["port"] for line in self.lines if line["event"] == "listening")

    @property
    def client(self):
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)

    def get(self, path):
        with self.client as client:
            return client.get(path)

    def stats(self):
        return self.get("/stats").json()

    def wait_for(self, what, **wanted):
        """Wait until the counts are as wanted."""
        deadline = time.monotonic() + 30
        while any(self.stats()[name] != value for name, value in wanted.items()):
            assert time.monotonic() < deadline, f"not in time: {what}; {self.stats()}"
            time.sleep(0.01)

    def post(self, path, /, **body):
        with self.client as client:
            return client.post(path, json=body)

    def hear(self, path, /, **options):
        """The events of a recording that can be heard."""
        answer = self.post("/transcribe", path=str(path), **options)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/x-ndjson"
        return Heard([json.loads(line) for line in answer.text.splitlines()])

    def stop(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()


class Heard:
    """The events of one recording."""

    def __init__(self, events):
        self.events = events
        self.info = events[0]
        self.last = events[-1]
        self.segments = [event for event in events if event["event"] == "segment"]
        self.text = "".join(segment["text"] for segment in self.segments).strip()


@contextlib.contextmanager
def engine(*arguments, env=None):
    started = Engine(*arguments, env=env)
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def hearing():
    with engine("--task", "transcribe", "--model", MODEL) as started:
        yield started.ready()


@pytest.fixture
def busy_engine(long_recording):
    """An engine of its own, hearing a long recording; the answer stands open."""
    with engine("--task", "transcribe", "--model", MODEL) as started:
        started.ready()
        with started.client as client, client.stream("POST", "/transcribe", json={"path": str(long_recording)}) as answer:
            lines = answer.iter_lines()
            assert json.loads(next(lines))["event"] == "info"
            yield started, answer, lines


@pytest.fixture(scope="session")
def long_recording(tmp_path_factory):
    """Ten minutes of speech: hearing it takes long enough to be broken off."""
    path = tmp_path_factory.mktemp("audio") / "long.wav"
    with wave.open(str(AUDIO / "two-sentences.wav")) as source, wave.open(str(path), "wb") as out:
        out.setparams(source.getparams())
        frames = source.readframes(source.getnframes())
        for _ in range(100):
            out.writeframes(frames)
    return path
