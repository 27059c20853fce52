"""Pulls, pushes and downloads of real models from a fake origin, run by the real engine afterwards."""
import json
import time
import urllib.error
import urllib.request

import ollama
import pytest

from conftest import FIXTURES
from origin import Origin, split_gguf

CHAT = str(FIXTURES / "models" / "tiny-chat.gguf")


@pytest.fixture
def origin():
    running = Origin()
    yield running
    assert not [request for request in running.requests() if request["leak"]]
    assert running.stop() == 0


@pytest.fixture
def server(start, origin):
    return start(models=None, config=origin.config)


@pytest.fixture
def client(server):
    return ollama.Client(server.ollama)


def says_something(client, model):
    answer = client.generate(model, "hi", options={"num_predict": 4, "temperature": 0})
    assert answer.done and answer.response


def test_pull_run_copy_push_delete(client, origin):
    origin.set_up(models=[{"name": "tiny", "layers": [{"kind": "model", "from": CHAT},
                                                      {"kind": "system", "text": "be brief"}]}])
    lines = list(client.pull("tiny", stream=True))
    assert lines[0].status == "pulling manifest" and lines[-1].status == "success"
    layer = [line for line in lines if line.status and line.status.startswith("pulling ") and line.digest]
    assert any(line.completed == line.total for line in layer)
    assert client.show("tiny").modelinfo["general.architecture"]
    says_something(client, "tiny")
    name = origin.host + "/me/copied"
    client.copy("tiny", name)
    assert client.push(name, insecure=True).status == "success"
    client.delete(name)
    assert client.pull(name, insecure=True).status == "success"
    names = [model.model for model in client.list().models]
    assert name + ":latest" in names and "tiny:latest" in names
    pushed = [request for request in origin.requests() if request["method"] == "PUT"]
    assert pushed[-1]["path"] == "/v2/me/copied/manifests/latest"


def test_a_split_repository_of_the_hub(client, origin, tmp_path):
    files = []
    for number, part in enumerate(split_gguf(FIXTURES / "models" / "tiny-chat.gguf", 3), 1):
        name = f"tiny-F16-{number:05}-of-00003.gguf"
        (tmp_path / name).write_bytes(part)
        files.append({"path": "F16/" + name, "from": str(tmp_path / name), "lfs": True})
    origin.set_up(repos=[{"repo": "o/tiny-GGUF", "files": files}])
    assert client.pull("hf.co/o/tiny-GGUF:F16").status == "success"
    says_something(client, "hf.co/o/tiny-GGUF:F16")


def test_what_is_not_there_and_what_is_gated(client, origin):
    with pytest.raises(ollama.ResponseError) as missing:
        client.pull("none")
    assert missing.value.status_code == 500 and missing.value.error == "pull model manifest: file does not exist"
    with pytest.raises(ollama.ResponseError, match="file does not exist"):
        list(client.pull("none", stream=True))
    origin.set_up(repos=[{"repo": "o/gated", "gated": True, "token": "hf_x",
                          "files": [{"path": "x-Q8_0.gguf", "from": CHAT, "lfs": True}]}])
    with pytest.raises(ollama.ResponseError, match="o/gated is gated: accept its licence"):
        client.pull("hf.co/o/gated")
    origin.set_up(faults=[{"path": "/manifests/", "fault": {"status": {"status": 412, "body": "requires a newer version"}}}])
    with pytest.raises(ollama.ResponseError, match="412: requires a newer version"):
        client.pull("new")


def test_lm_studios_download(start, origin):
    origin.set_up(repos=[{"repo": "o/tiny-GGUF", "gated": True, "token": "hf_x",
                          "files": [{"path": "tiny-F16.gguf", "from": CHAT, "lfs": True}]}])
    server = start(models=None, config=origin.config, env={"HF_TOKEN": "hf_x"})

    def ask(path, body=None):
        request = urllib.request.Request(server.lmstudio + path, body and json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    job = ask("/api/v1/models/download", {"model": "o/tiny-GGUF"})
    assert job["total_size_bytes"] == (FIXTURES / "models" / "tiny-chat.gguf").stat().st_size
    until = time.monotonic() + 30
    while (state := ask("/api/v1/models/download/status/" + job["job_id"]))["status"] == "downloading":
        assert time.monotonic() < until, state
    assert state["status"] == "completed" and state["downloaded_bytes"] == state["total_size_bytes"]
    assert ask("/api/v1/models/download", {"model": "o/tiny-GGUF"}) == {"status": "already_downloaded"}
    assert "tiny" in [model["key"] for model in ask("/api/v1/models")["models"]]
    sent = [request for request in origin.requests() if "authorization" in request["headers"]]
    assert sent and all(request["host"] == "origin" for request in sent)
