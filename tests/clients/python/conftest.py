"""A real LlamaRunner with a real llama-server, on free ports and in a throw-away home."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading

import pytest

# The clients ask nobody but us: no price list, no telemetry.
os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False", LANGSMITH_TRACING="false",
                  LANGCHAIN_TRACING_V2="false", HF_HUB_OFFLINE="1", OTEL_SDK_DISABLED="true")

ROOT = pathlib.Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "crates" / "testkit" / "fixtures"


def engine_path():
    """The engine that `cargo xtask test` made sure of."""
    named = os.environ.get("LLAMARUNNER_LLAMA_SERVER")
    if named:
        return named
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "llama-runner"
    built = sorted((cache / "engines" / "llama.cpp").glob("*/llama-server"))
    assert built, "no llama-server: run `cargo xtask setup --test`"
    return str(built[-1])


def speech_python():
    """The Python with the speech engine that `cargo xtask test` made sure of; None: there is none."""
    named = os.environ.get("LLAMARUNNER_SPEECH_PYTHON")
    if named:
        return named
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "llama-runner"
    made = sorted((cache / "python").glob("speech-*/bin/python"))
    return str(made[-1]) if made else None


def binary():
    return os.environ.get("LLAMA_RUNNER_BIN") or str(ROOT / "target" / "debug" / "llama-runner")


class Runner:
    """A running `llama-runner serve`."""

    def __init__(self, home, *args, models=FIXTURES / "models", config=None, env=None):
        self.home = pathlib.Path(home)
        self.env = {
            "HOME": str(self.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8",
            "XDG_CONFIG_HOME": str(self.home / "config"), "XDG_DATA_HOME": str(self.home / "data"),
            "XDG_CACHE_HOME": str(self.home / "cache"), "XDG_RUNTIME_DIR": str(self.home / "run"),
            "LLAMARUNNER_LLAMA_SERVER": engine_path(),
        }
        if speech_python():
            self.env["LLAMARUNNER_SPEECH_PYTHON"] = speech_python()
        self.env.update(env or {})
        (self.home / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
        if config is not None:
            (self.home / "config" / "llama-runner").mkdir(parents=True, exist_ok=True)
            (self.home / "config" / "llama-runner" / "config.json").write_text(json.dumps(config))
        command = [binary(), "serve", "--ollama-port", "0", "--lmstudio-port", "0", "--management-port", "0"]
        if models:
            command += ["--models-dir", str(models)]
        self.log = open(self.home / "stderr.log", "wb")
        self.process = subprocess.Popen(command + list(args), env=self.env, stdout=subprocess.PIPE, stderr=self.log)
        line = self._ready_line(30)
        self.ready = json.loads(line)
        listeners = self.ready["listeners"]
        self.ollama = "http://" + listeners["ollama"]
        self.lmstudio = "http://" + listeners["lmstudio"]
        self.management = "http://" + listeners["management"]

    def _ready_line(self, seconds):
        lines = []
        reader = threading.Thread(target=lambda: lines.append(self.process.stdout.readline()), daemon=True)
        reader.start()
        reader.join(seconds)
        if not lines or not lines[0]:
            self.process.kill()
            raise AssertionError("no ready line:\n" + (self.home / "stderr.log").read_text())
        return lines[0]

    def command(self, *args, **kwargs):
        """Runs another verb of the command line against this server."""
        return subprocess.run([binary(), *args, "--management-url", self.management], env=self.env,
                              capture_output=True, text=True, timeout=60, **kwargs)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.log.close()
        return code


@pytest.fixture(scope="session")
def runner(tmp_path_factory):
    server = Runner(tmp_path_factory.mktemp("home"))
    yield server
    assert server.stop() == 0


@pytest.fixture
def start(tmp_path):
    """Starts further servers with their own settings."""
    servers = []

    def begin(*args, **kwargs):
        home = tmp_path / f"home{len(servers)}"
        home.mkdir()
        servers.append(Runner(home, *args, **kwargs))
        return servers[-1]

    yield begin
    for server in servers:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="session")
def speech():
    """The folder of recordings; tests that use it need the speech engine."""
    assert speech_python(), "no speech engine: run `cargo xtask setup --test`"
    return FIXTURES / "audio"


@pytest.fixture(scope="session")
def curl():
    if not shutil.which("curl"):
        pytest.fail("curl is not installed: run `cargo xtask setup --test`")

    def run(*args):
        return subprocess.run(["curl", "-sS", "--max-time", "60", *args], capture_output=True, text=True, check=True).stdout

    return run


def pytest_addoption(parser):
    parser.addoption("--jobs", type=int, default=8)
