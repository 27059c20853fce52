"""The official `ollama` client and the store behind it: create in all its forms, blobs, copy, delete, and what a made model does
afterwards."""
import hashlib
import json
import os
import struct
import urllib.error
import urllib.request

import ollama
import pytest

from conftest import FIXTURES
from origin import Origin

MODEL = "tiny-chat"
WEIGHTS = FIXTURES / "models" / "tiny-chat.gguf"
ZERO = {"temperature": 0}


@pytest.fixture(scope="module")
def client(runner):
    return ollama.Client(host=runner.ollama)


def user(text):
    return [{"role": "user", "content": text}]


def names(client):
    return {m.model for m in client.list().models}


def test_create_from_a_model_with_everything(client):
    made = client.create(
        model="everything", from_=MODEL, template="{{ .Prompt }}", license=["one", "two"], system="You are a pirate.",
        parameters={"temperature": 0, "num_predict": 40, "stop": ["zzz"]},
        messages=[{"role": "user", "content": "My name is Alice."},
                  {"role": "assistant", "content": "Nice to meet you, Alice."}])
    assert made.status == "success"
    shown = client.show("everything")
    assert shown.template == "{{ .Prompt }}" and shown.license == "one\ntwo"
    assert "temperature" in shown.parameters and 'stop                           "zzz"' in shown.parameters
    assert "SYSTEM \"\"\"You are a pirate.\"\"\"" in shown.modelfile
    assert shown.details.parent_model == "tiny-chat:latest"
    assert client.chat("everything", user("What is my name?")).message.content == "Your name is Alice."
    # The request's own options and system prompt go before the stored ones.
    assert client.chat("everything", user("Count to 100."), options={"num_predict": 3}).eval_count == 3
    client.delete("everything")
    assert "everything:latest" not in names(client)


def test_create_streams_its_steps(client):
    steps = [step.status for step in client.create(model="steps", from_=MODEL, system="x", stream=True)]
    assert steps[0].startswith("using existing layer sha256:") and steps[-2:] == ["writing manifest", "success"]
    assert any(step.startswith("creating new layer sha256:") for step in steps)
    client.delete("steps")


def test_a_stored_system_prompt_is_used_until_the_request_brings_one(client):
    client.create(model="pirate", from_=MODEL, system="You are a pirate.", parameters=ZERO)
    assert client.chat("pirate", user("Hello")).message.content == "Ahoy, matey!"
    assert client.generate("pirate", "Hello").response == "Ahoy, matey!"
    own = [{"role": "system", "content": "You are helpful."}, *user("Hello")]
    assert client.chat("pirate", own).message.content != "Ahoy, matey!"
    client.delete("pirate")


def test_create_from_an_uploaded_file(client):
    digest = client.create_blob(WEIGHTS)
    assert digest == "sha256:" + hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert client.create_blob(WEIGHTS) == digest, "sending it again does no harm"
    assert client.create(model="me/uploaded:v1", files={"tiny.gguf": digest}).status == "success"
    assert "me/uploaded:v1" in names(client)
    assert client.chat("me/uploaded:v1", user("ping"), options=ZERO).message.content == "pong"
    assert client.embed("me/uploaded:v1", "ping").embeddings
    client.delete("me/uploaded:v1")
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("me/uploaded:v1", user("ping"))
    assert caught.value.status_code == 404


def test_copy_runs_in_the_same_engine(client):
    client.create(model="first", from_=MODEL)
    client.copy("first", "second")
    for name in ("first", "second"):
        assert client.chat(name, user("ping"), options=ZERO).message.content == "pong"
    loaded = {m.model for m in client.ps().models}
    assert len(loaded & {"first:latest", "second:latest"}) == 1, loaded
    digests = {m.model: m.digest for m in client.list().models}
    assert digests["first:latest"] == digests["second:latest"]
    for name in ("first", "second"):
        client.delete(name)


def test_tools_thinking_and_schema_of_a_made_model(client):
    client.create(model="able", from_=MODEL, parameters=ZERO)
    weather = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
    calls = client.chat("able", user("What is the weather in Paris?"), tools=[weather]).message.tool_calls
    assert calls[0].function.arguments == {"city": "Paris"}
    assert client.chat("able", user("Think: what is 3 times 4?"), think=True).message.thinking
    schema = {"type": "object", "properties": {"country": {"type": "string"}, "capital": {"type": "string"}},
              "required": ["country", "capital"]}
    answer = client.chat("able", user("Give me the capital of France as JSON."), format=schema).message.content
    assert json.loads(answer)["capital"] == "Paris"
    client.delete("able")


def test_context_of_a_reply_continues_it(client):
    first = client.generate(MODEL, "My name is Alice.", options=ZERO)
    again = client.generate(MODEL, "What is my name?", context=list(first.context), options=ZERO)
    assert "Alice" in again.response
    assert list(again.context)[: len(first.context)] == list(first.context)


@pytest.mark.parametrize("call, status, text", [
    (lambda c: c.create(model="x"), 400, "neither 'from' or 'files' was specified"),
    (lambda c: c.create(model="a b", from_=MODEL), 400, "invalid model name"),
    (lambda c: c.create(model="x", files={"m.gguf": "sha256:zz"}), 400, "invalid digest format"),
    (lambda c: c.create(model="x", files={"m.gguf": "sha256:" + "0" * 64}), 400, "is missing"),
    (lambda c: c.create(model="x", files={"/m.gguf": "sha256:" + "0" * 64}), 400, "file path must be relative"),
    (lambda c: c.create(model="x", from_=MODEL, quantize="Q9"), 400, "unsupported quantization type Q9"),
    (lambda c: c.create(model="x", from_=MODEL, template="{{ if }}"), 400, "template error"),
    (lambda c: c.create(model="x", from_=MODEL, parameters={"num_ctx": "a"}), 400, "must be of type integer"),
    (lambda c: c.copy("nope", "x"), 404, 'model "nope" not found'),
    (lambda c: c.delete("nope"), 404, "model 'nope' not found"),
    (lambda c: c.delete(MODEL), 403, "not in LlamaRunner's own store"),
])
def test_errors(client, call, status, text):
    with pytest.raises(ollama.ResponseError) as caught:
        call(client)
    assert caught.value.status_code == status and text in caught.value.error
    assert "x:latest" not in names(client)


def test_create_pulls_what_it_is_made_from(start):
    origin = Origin()
    try:
        origin.set_up(models=[{"name": "base", "layers": [{"kind": "model", "from": str(WEIGHTS)}]}])
        client = ollama.Client(start(models=None, config=origin.config).ollama)
        steps = [step.status for step in client.create(model="made", from_="base", system="x", stream=True)]
        assert steps[0] == "pulling manifest" and steps[-1] == "success"
        assert {"made:latest", "base:latest"} <= names(client)
    finally:
        origin.stop()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def foreign_store(root):
    """A store as Ollama leaves it, with one model in it."""
    def blob(data):
        path = root / "blobs" / digest(data).replace(":", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"digest": digest(data), "size": len(data)}

    kind = "application/vnd.ollama.image."
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", **blob(b'{"model_format":"gguf"}')},
        "layers": [{"mediaType": kind + "model", **blob(WEIGHTS.read_bytes())},
                   {"mediaType": kind + "system", **blob(b"You are a pirate.")},
                   {"mediaType": kind + "params", **blob(b'{"temperature":0}')}],
    }
    path = root / "manifests" / "registry.ollama.ai" / "library" / "theirs" / "1b"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(manifest))


def snapshot(root):
    return sorted((str(p.relative_to(root)), p.stat().st_mtime_ns, p.stat().st_size) for p in root.rglob("*"))


def test_another_programs_store_is_served_in_place(start, tmp_path):
    root = tmp_path / "ollama-models"
    foreign_store(root)
    before = snapshot(root)
    os.chmod(root, 0o555)
    try:
        client = ollama.Client(start(models=None, env={"OLLAMA_MODELS": str(root)}).ollama)
        assert "theirs:1b" in names(client)
        assert client.chat("theirs:1b", user("Hello")).message.content == "Ahoy, matey!"
        assert client.show("theirs:1b").modelinfo["general.architecture"] == "llama"
        with pytest.raises(ollama.ResponseError) as caught:
            client.delete("theirs:1b")
        assert caught.value.status_code == 403
        # A copy is ours, and refers to the same bytes.
        client.copy("theirs:1b", "mine")
        client.delete("mine")
        with pytest.raises(ollama.ResponseError) as caught:
            client.chat("theirs", user("Hello"))
        assert caught.value.status_code == 404, "another tag is another model"
    finally:
        os.chmod(root, 0o755)
    assert snapshot(root) == before


def test_wrong_methods_and_paths(runner):
    def ask(method, path):
        request = urllib.request.Request(runner.ollama + path, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    assert ask("GET", "/api/pull") == (405, b"405 method not allowed")
    assert ask("POST", "/api/delete") == (405, b"405 method not allowed")
    assert ask("GET", "/api/nothing") == (404, b"404 page not found")
    assert ask("DELETE", "/api/delete")[0] == 400
    assert ask("GET", "/api/tags/")[0] == 200, "after a redirect"


def peak_memory(pid):
    status = open(f"/proc/{pid}/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def test_a_large_upload_does_not_touch_memory(runner):
    piece, pieces = bytes(1 << 20), 384
    expected = hashlib.sha256()
    for _ in range(pieces):
        expected.update(piece)
    before = peak_memory(runner.process.pid)
    # As the client's own `create_blob` sends it: in chunks, without a length.
    request = urllib.request.Request(f"{runner.ollama}/api/blobs/sha256:{expected.hexdigest()}", method="POST",
                                     data=(piece for _ in range(pieces)), headers={"transfer-encoding": "chunked"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 201
    assert peak_memory(runner.process.pid) - before < 32 << 20


def lora(rank, width, value):
    """An adapter for the first attention of the tiny model, as llama.cpp's converter writes it."""
    def text(value):
        return struct.pack("<Q", len(value)) + value

    keys = [(b"general.type", b"adapter"), (b"general.architecture", b"llama"), (b"adapter.type", b"lora")]
    head = b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in keys)
    head += text(b"adapter.lora.alpha") + struct.pack("<If", 6, float(rank))
    infos, data = b"", b""
    for name, shape in ((b"blk.0.attn_q.weight.lora_a", (width, rank)), (b"blk.0.attn_q.weight.lora_b", (rank, width))):
        infos += text(name) + struct.pack("<IQQIQ", 2, *shape, 0, len(data))
        data += struct.pack(f"<{shape[0] * shape[1]}f", *[value] * (shape[0] * shape[1]))
    whole = b"GGUF" + struct.pack("<IQQ", 3, 2, len(keys) + 1) + head + infos
    return whole + bytes(-len(whole) % 32) + data


def test_create_with_an_adapter(client, runner, tmp_path):
    width = client.show(MODEL).modelinfo["llama.embedding_length"]
    file = tmp_path / "adapter.gguf"
    file.write_bytes(lora(2, width, 3.0))
    digest = client.create_blob(file)
    client.create(model="adapted", from_=MODEL, adapters={"adapter.gguf": digest}, parameters=ZERO)
    assert "ADAPTER " in client.show("adapted").modelfile
    question = user("Count to 100.")
    plain = client.chat(MODEL, question, options=ZERO).message.content
    assert client.chat("adapted", question).message.content != plain, "the adapter changes the answer"
    with urllib.request.urlopen(f"{runner.ollama}/lora-adapters?model=adapted", timeout=10) as answer:
        assert len(json.loads(answer.read())) == 1
    client.delete("adapted")
    with pytest.raises(ollama.ResponseError) as caught:
        client.create(model="x", from_=MODEL, adapters={"a.gguf": client.create_blob(WEIGHTS)})
    assert caught.value.status_code == 400 and "is not an adapter" in caught.value.error


def test_a_template_in_the_engines_language_is_used(client):
    template = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ 'ping' if m.role == 'user' else m.content }}<|im_end|>\n"
                "{% endfor %}<|im_start|>assistant\n")
    client.create(model="deaf", from_=MODEL, template=template, parameters=ZERO)
    assert client.chat("deaf", user("What is the capital of France?")).message.content.strip() == "pong"
    shown = client.show("deaf")
    assert shown.template == template and "tools" not in shown.capabilities
    client.delete("deaf")
