"""`/v1/downloads`, as the window and the command line use it: start, list, pause, go on, cancel, forget."""
import json
import time
import urllib.error
import urllib.request

import pytest

from conftest import FIXTURES
from origin import Origin

CHAT = FIXTURES / "models" / "tiny-chat.gguf"


@pytest.fixture
def origin():
    running = Origin()
    running.set_up(models=[{"name": "slow", "layers": [{"kind": "model", "from": str(CHAT)}]}],
                   faults=[{"path": "/cdn/", "fault": {"slow": {"bytes_per_second": 200_000}}}])
    yield running
    assert running.stop() == 0


@pytest.fixture
def ask(start, origin):
    server = start(models=None, config=origin.config)

    def request(method, path, body=None):
        asked = urllib.request.Request(server.management + path, body and json.dumps(body).encode(), method=method)
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    return request


def job_of(ask, job, wanted):
    until = time.monotonic() + 30
    while True:
        status, view = ask("GET", "/v1/downloads/" + job)
        assert status == 200, view
        if wanted(view):
            return view
        assert time.monotonic() < until, json.dumps(view)


def test_a_download_is_paused_and_goes_on(ask):
    status, view = ask("POST", "/v1/downloads", {"model": "slow"})
    assert status == 202
    job = view["id"]
    begun = job_of(ask, job, lambda view: view["bytes_done"] > 0)
    assert [other["id"] for other in ask("GET", "/v1/downloads")[1]["downloads"]] == [job]
    status, paused = ask("POST", "/v1/downloads/" + job + "/pause")
    assert status == 200
    assert job_of(ask, job, lambda view: view["state"] == "paused")["bytes_done"] >= begun["bytes_done"] > 0
    assert ask("POST", "/v1/downloads/" + job + "/resume")[0] == 200
    done = job_of(ask, job, lambda view: view["state"] == "completed")
    assert done["bytes_done"] == done["bytes_total"] >= CHAT.stat().st_size
    assert ask("DELETE", "/v1/downloads/" + job)[0] == 200
    assert ask("GET", "/v1/downloads/" + job)[0] == 404


def test_a_download_is_cancelled_and_forgotten(ask):
    job = ask("POST", "/v1/downloads", {"model": "slow"})[1]["id"]
    job_of(ask, job, lambda view: view["bytes_done"] > 0)
    assert ask("DELETE", "/v1/downloads/" + job)[0] == 200
    assert ask("GET", "/v1/downloads")[1]["downloads"] == []


def test_what_is_no_download(ask):
    for method, path in [("GET", "/v1/downloads/none"), ("DELETE", "/v1/downloads/none"),
                         ("POST", "/v1/downloads/none/pause"), ("POST", "/v1/downloads/none/resume")]:
        status, answer = ask(method, path)
        assert (status, answer["error"]["code"]) == (404, "job_not_found"), (method, path)
    for body in [{}, {"model": ""}, {"model": 1}, []]:
        assert ask("POST", "/v1/downloads", body)[0] == 400, body
