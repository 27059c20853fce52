"""curl as each API's own documentation calls it: no content type, form content type, plain text answers."""
import json
import subprocess

import pytest

ASK = {"messages": [{"role": "user", "content": "Hello"}], "model": "tiny-chat"}


def test_roots_and_versions(runner, curl):
    assert curl(runner.ollama + "/") == "Ollama is running"
    assert "Content-Length: 17" in curl("-I", runner.ollama + "/").replace("content-length", "Content-Length")
    version = json.loads(curl(runner.ollama + "/api/version"))["version"]
    assert [int(p) for p in version.split(".")] >= [0, 6, 4]


def test_ollama_documentation(runner, curl):
    lines = curl(runner.ollama + "/api/generate", "-d", '{"model": "tiny-chat", "prompt": "What is 2 + 3?", "options": {"temperature": 0}}').splitlines()
    parts = [json.loads(line) for line in lines]
    assert all(lines) and "".join(p["response"] for p in parts) == "5" and parts[-1]["done"] and parts[-1]["context"]
    chat = json.loads(curl(runner.ollama + "/api/chat", "-d", json.dumps({**ASK, "stream": False, "options": {"temperature": 0}})))
    assert chat["message"] == {"role": "assistant", "content": "Hello! How can I help you today?"}
    load = curl(runner.ollama + "/api/generate", "-d", '{"model": "tiny-chat"}')
    assert json.loads(load)["done_reason"] == "load"
    assert json.loads(curl(runner.ollama + "/api/ps"))["models"][0]["name"].endswith(":latest")


def test_nulls_and_empties_of_the_go_client(runner, curl):
    body = {"model": "tiny-chat", "prompt": "ping", "suffix": "", "system": "", "template": "", "context": None,
            "options": {"temperature": 0, "num_ctx": None}, "stream": False, "keep_alive": "5m0s", "format": None, "images": None, "raw": False}
    assert json.loads(curl(runner.ollama + "/api/generate", "-d", json.dumps(body)))["response"] == "pong"


def test_openai_and_product_documentation(runner, curl):
    for base in (runner.ollama, runner.lmstudio, runner.management):
        answer = json.loads(curl(base + "/v1/chat/completions", "-H", "Content-Type: application/json", "-d", json.dumps({**ASK, "temperature": 0})))
        assert answer["choices"][0]["message"]["content"] == "Hello! How can I help you today?"
        stream = curl("-N", base + "/v1/chat/completions", "-H", "Content-Type: application/json", "-d", json.dumps({**ASK, "temperature": 0, "stream": True}))
        events = [e for e in stream.split("\n\n") if e]
        assert events[-1] == "data: [DONE]" and all(e.startswith("data: ") for e in events)
        health = json.loads(curl(base + "/health"))
        assert health["status"] == "healthy" and {"timestamp", "version", "uptime"} <= set(health)
        info = json.loads(curl(base + "/v1/models/tiny-chat/info"))
        assert info["format"] == "GGUF" and info["architecture"] == "llama" and info["context_length"] == 4096
        status = json.loads(curl(base + "/v1/models/tiny-chat/status"))
        assert status["status"] == "loaded" and status["port"] and status["memory_usage"] > 0
        system = json.loads(curl(base + "/v1/system/status"))
        assert system["models"]["total"] >= 3 and system["proxies"]["ollama"]["status"] == "running"
        server = json.loads(curl(base + "/v1/server/info"))
        assert {"chat", "completions", "embeddings", "streaming"} <= set(server["features"])


def test_start_and_stop(runner, curl):
    base = runner.lmstudio
    assert json.loads(curl("-X", "POST", base + "/v1/models/tiny-chat/stop"))["success"] is True
    assert json.loads(curl(base + "/v1/models/tiny-chat/status"))["status"] == "unloaded"
    started = json.loads(curl("-X", "POST", base + "/v1/models/tiny-chat/start"))
    assert started["success"] is True and started["status"] in ("starting", "loaded")
    again = json.loads(curl("-X", "POST", base + "/v1/models/tiny-chat/start"))
    assert again["success"] is True


def test_lmstudio_v0(runner, curl):
    base = runner.lmstudio + "/api/v0"
    models = {m["id"]: m for m in json.loads(curl(base + "/models"))["data"]}
    assert models["tiny-chat"]["type"] == "llm" and models["tiny-chat"]["max_context_length"] == 4096
    assert any(m["type"] == "embeddings" for m in models.values())
    answer = json.loads(curl(base + "/chat/completions", "-H", "Content-Type: application/json", "-d", json.dumps({**ASK, "temperature": 0})))
    assert answer["stats"]["stop_reason"] == "eosFound" and answer["stats"]["tokens_per_second"] > 0
    assert answer["model_info"]["quant"] == "F16" and answer["runtime"]["supported_formats"] == ["gguf"]
    assert json.loads(curl(base + "/models/tiny-chat"))["state"] == "loaded"


def test_rerank(runner, curl):
    body = {"model": "tiny-rerank", "query": "What is the capital of France?",
            "documents": ["The cat sleeps.", "Paris is the capital of France."]}
    for path in ("/v1/rerank", "/v1/reranking", "/rerank"):
        answer = json.loads(curl(runner.ollama + path, "-H", "Content-Type: application/json", "-d", json.dumps(body)))
        best = max(answer["results"], key=lambda r: r["relevance_score"])
        assert best["index"] == 1 and answer["results"][0]["relevance_score"] > 0 and len(answer["data"]) == 2


@pytest.mark.parametrize("path, status", [("/api/nothing", 404), ("/v1/nothing", 404), ("/nothing", 404)])
def test_unknown_paths(runner, curl, path, status):
    for base in (runner.ollama, runner.lmstudio, runner.management):
        assert curl("-o", "/dev/null", "-w", "%{http_code}", base + path) == str(status)


def test_other_web_pages_are_refused(runner, curl):
    def code(base, path, *args):
        return curl("-o", "/dev/null", "-w", "%{http_code}", base + path, *args)

    for base in (runner.ollama, runner.lmstudio, runner.management):
        assert code(base, "/v1/models", "-H", "Origin: https://evil.example") == "403"
        assert code(base, "/v1/models", "-H", "Host: evil.example") == "403"
        assert code(base, "/v1/models/tiny-chat/stop", "-X", "POST", "-H", "Origin: http://localhost:3000") == "403"
        assert code(base, "/v1/models", "-H", "Origin: http://localhost:3000") == "200"


def test_all_known_conversations(runner, request):
    """918 conversations through us, streamed and not, eight at a time: every answer exactly as the engine gives it."""
    import os
    import sys
    script = os.path.join(os.path.dirname(__file__), "..", "..", "..", "crates", "testkit", "fixtures", "make", "check_chat.py")
    for base, extra in ((runner.ollama, []), (runner.lmstudio, ["--stream"])):
        done = subprocess.run([sys.executable, script, base, "--model", "tiny-chat", "--jobs", str(request.config.getoption("--jobs")), *extra],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
