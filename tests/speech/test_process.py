"""How the program starts, waits, and stops."""
import json
import os
import signal
import socket
import time

import httpx
import pytest

from conftest import AUDIO, MODEL, TOKEN, Engine, engine, inside


def test_it_listens_first_and_tells_how_far_it_is():
    with engine("--task", "transcribe", "--model", MODEL) as started:
        line = started.until("listening")
        assert started.lines[0] == line and line["port"] > 0
        # It takes connections from that line on.
        health = httpx.get(f"http://127.0.0.1:{line['port']}/health", timeout=10)
        assert health.json()["status"] in ("loading", "ready")
        assert (health.status_code == 200) == (health.json()["status"] == "ready")
        ready = started.until("ready")
        assert ready["port"] == line["port"]
        assert (ready["device"], ready["compute_type"], ready["multilingual"], ready["translates"]) == ("cpu", "int8", True, True)
        assert {"en", "de", "zh"} <= set(ready["languages"])
        progress = [each["progress"] for each in started.lines if each["event"] == "loading"]
        assert progress == sorted(progress) and progress[0] == 0 and progress[-1] == 1
        health = httpx.get(f"http://127.0.0.1:{line['port']}/health")
        assert health.status_code == 200 and health.json()["status"] == "ready" and health.json()["device"] == "cpu"


@pytest.mark.parametrize("key", [None, "", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN])
def test_nobody_is_served_without_the_key(hearing, key):
    headers = {} if key is None else {"Authorization": key}
    with httpx.Client(base_url=f"http://127.0.0.1:{hearing.port}", headers=headers) as client:
        assert client.get("/health").status_code == 200
        for answer in (client.get("/stats"), client.get("/voices"), client.get("/other"), client.post("/transcribe", json={"path": str(AUDIO / "fox.wav")})):
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_what_is_no_request(hearing):
    with hearing.client as client:
        assert client.get("/other").status_code == 404
        assert client.get("/transcribe").status_code == 404
        assert client.post("/transcribe", content=b"no json").json()["error"]["code"] == "invalid_value"
        answer = client.post("/transcribe", json={"path": "x" * 1_000_001})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        assert client.post("/speak", json={"sentences": ["x"]}).json()["error"]["code"] == "model_not_supported"
        assert client.get("/voices").json() == {"voices": []}
        missing = client.post("/transcribe", json={"path": "/no/such/file"})
        assert (missing.status_code, missing.json()["error"]["code"]) == (500, "engine_failed")


@pytest.mark.parametrize("arguments, env, code, words", [
    (["--task", "transcribe", "--model", "/no/such/folder"], {}, 3, "does not exist"),
    (["--task", "transcribe", "--model", AUDIO], {}, 3, "model.bin, config.json, tokenizer.json, vocabulary.json"),
    (["--task", "speak", "--model", "nobody"], {}, 3, "no voice engine"),
    (["--task", "speak", "--model", AUDIO], {}, 3, "holds no voices"),
    (["--task", "sing", "--model", MODEL], {}, 4, "sing"),
    (["--task", "transcribe", "--model", MODEL, "--wrong"], {}, 4, "--wrong"),
    (["--task", "transcribe", "--model", MODEL], {"LR_SIDECAR_TOKEN": ""}, 4, "LR_SIDECAR_TOKEN"),
])
def test_a_start_that_fails_says_why(arguments, env, code, words):
    started = Engine(*arguments, env=env)
    line = started.until("load_failed")
    assert words in line["error"] and "\n" not in line["error"]
    assert started.process.wait(10) == code


def test_a_name_that_is_no_utf8_does_not_hide_what_is_wrong(tmp_path):
    started = Engine("--task", "transcribe", "--model", os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    line = started.until("load_failed")
    assert line is not None and "does not exist" in line["error"]
    assert started.process.wait(10) == 3


def test_a_damaged_model_cannot_be_loaded(tmp_path):
    for name in ("config.json", "tokenizer.json", "vocabulary.json"):
        (tmp_path / name).write_bytes((MODEL / name).read_bytes())
    (tmp_path / "model.bin").write_bytes((MODEL / "model.bin").read_bytes()[:1000])
    started = Engine("--task", "transcribe", "--model", tmp_path)
    assert "cannot be loaded" in started.until("load_failed")["error"]
    assert started.process.wait(10) == 3


def test_without_a_gpu_the_cpu_is_used():
    with engine("--task", "transcribe", "--model", MODEL, "--device", "cuda", "--compute-type", "float16", env={"CUDA_VISIBLE_DEVICES": ""}) as started:
        started.ready()
        assert (started.lines[-1]["device"], started.lines[-1]["compute_type"]) == ("cpu", "int8")
        warnings = [line["message"] for line in started.lines if line["event"] == "log" and line["level"] == "warn"]
        assert any("The GPU cannot be used" in each for each in warnings), warnings
        assert started.hear(AUDIO / "fox.wav").text == "The quick brown fox jumps over the lazy dog."


def test_health_is_answered_while_it_works(busy_engine):
    started, _, _ = busy_engine
    slowest = 0.0
    with started.client as client:
        for _ in range(20):
            before = time.monotonic()
            assert client.get("/health").status_code == 200
            slowest = max(slowest, time.monotonic() - before)
            assert client.get("/stats").json()["running"] is True
    assert slowest < 1.0


def test_work_stops_when_the_client_leaves(busy_engine):
    started, answer, lines = busy_engine
    assert any(json.loads(line)["event"] == "segment" for line in lines)
    answer.close()
    started.wait_for("the job has ended", running=False, cancelled=1)
    assert started.hear(AUDIO / "fox.wav").last["event"] == "done"
    assert started.stats()["completed"] == 1


def test_jobs_wait_their_turn_and_those_nobody_waits_for_never_begin(busy_engine):
    started, answer, _ = busy_engine
    waiting = []
    for name in ("fox.wav", "long-90s.ogg"):
        body = json.dumps({"path": str(AUDIO / name)}).encode()
        connection = socket.create_connection(("127.0.0.1", started.port))
        head = f"POST /transcribe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        waiting.append(connection)
        started.wait_for("the job is in the queue", queued=len(waiting))
    # The second one leaves; then the long one makes room.
    waiting[1].close()
    answer.close()
    received = b""
    while b'"done"' not in received:
        received += waiting[0].recv(65536)
    assert b"lazy dog" in received
    started.wait_for("all is over", running=False, queued=0)
    stats = started.stats()
    assert (stats["requests"], stats["completed"], stats["cancelled"]) == (3, 1, 2)
    assert stats["audio_seconds"] == pytest.approx(3.153, abs=0.01)


def test_it_stops_when_its_parent_is_gone(busy_engine):
    started, _, _ = busy_engine
    began = time.monotonic()
    started.process.stdin.close()
    assert started.process.wait(10) == 0
    assert time.monotonic() - began < 5


def test_a_signal_ends_what_is_under_way(busy_engine):
    started, _, lines = busy_engine
    began = time.monotonic()
    started.process.send_signal(signal.SIGTERM)
    last = [json.loads(line) for line in lines][-1]
    assert (last["event"], last["code"]) == ("error", "engine_stopping")
    assert started.process.wait(10) == 0
    assert time.monotonic() - began < 5


def test_a_signal_ends_a_start():
    started = Engine("--task", "transcribe", "--model", MODEL)
    started.until("listening")
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(6) in (0, -signal.SIGTERM)


def test_stuck_is_told_from_slow():
    """A window may take long; ten times as long as any before it, and a minute at least, is too long."""
    answers = inside("""
import json, asyncio, threading
import speech_jobs as jobs
now = [1000.0]
jobs.time.monotonic = lambda: now[0]
async def main():
    worker = jobs.Worker()
    answers = [worker.stuck]
    begun, go = threading.Event(), threading.Event()
    def work(job):
        begun.set(); go.wait(); go.clear()
        job.window(); begun.set(); go.wait()
    loop = asyncio.get_running_loop()
    job = worker.start(work)
    await loop.run_in_executor(None, begun.wait)
    begun.clear()
    # While no window is known to compare with, there is much patience.
    for later in (300, 301):
        now[0] += later
        answers.append(worker.stuck)
    now[0] -= 593
    go.set()
    await loop.run_in_executor(None, begun.wait)
    # That one took 8 s.
    for later in (79, 2):
        now[0] += later
        answers.append(worker.stuck)
    go.set()
    answers.append(await job.take() is jobs.END)
    answers.append(worker.stuck)
    return answers
print(json.dumps(asyncio.run(main())))
""")
    assert answers == [False, False, True, False, True, True, False]


def test_a_quiet_window_is_covered_by_signs_of_life():
    """The event loop tells how far it is while a window takes its time."""
    lines = inside("""
import json, asyncio, threading
import speech_server as server, speech_jobs as jobs
server._SIGN_OF_LIFE_S = 0.05
sent = []
async def send(message): sent.append(message)
async def receive(): await asyncio.Event().wait()
async def main():
    worker = jobs.Worker()
    quiet = threading.Event()
    def work(job):
        job.put({"event": "info"}); job.put({"event": "progress", "progress": 0.5})
        quiet.wait()
        job.put({"event": "done"})
    async def answer():
        await server._Exchange({}, receive, send).stream_lines(worker.start(work))
    answering = asyncio.ensure_future(answer())
    while len(sent) < 6:
        await asyncio.sleep(0.01)
    quiet.set()
    await answering
asyncio.run(main())
print(json.dumps([message["body"].decode() for message in sent[1:]]))
""")
    events = [json.loads(line) for line in lines if line]
    assert len(events) >= 6 and events[0] == {"event": "info"} and events[-1] == {"event": "done"}
    assert all(event == {"event": "progress", "progress": 0.5} for event in events[1:-1])
