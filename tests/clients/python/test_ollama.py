"""The official `ollama` client, unmodified, on both ports: every inference and catalogue method it has."""
import base64
import datetime
import json
import math

import ollama
import pydantic
import pytest

MODEL = "tiny-chat"
ZERO = {"temperature": 0}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather", "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(params=["ollama", "lmstudio"])
def client(runner, request):
    return ollama.Client(host=getattr(runner, request.param))


def user(text):
    return [{"role": "user", "content": text}]


def test_lists_models(client):
    models = {m.model: m for m in client.list().models}
    assert {"tiny-chat:latest", "tiny-embed:latest", "tiny-rerank:latest"} <= set(models)
    tiny = models["tiny-chat:latest"]
    assert tiny.details.format == "gguf" and tiny.details.family == "llama" and tiny.details.quantization_level == "F16"
    assert tiny.size == 1798016 and len(tiny.digest) == 64
    assert tiny.details.parameter_size == "893.06K" or tiny.details.parameter_size.endswith(("K", "M"))


def test_shows_a_model(client):
    shown = client.show(MODEL)
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.context_length"] == 4096
    assert {"completion", "tools", "thinking"} <= set(shown.capabilities)
    assert "<|im_start|>" in shown.template
    assert "embedding" in client.show("tiny-embed").capabilities


def test_chat(client):
    answer = client.chat(MODEL, user("Hello"), options=ZERO)
    assert answer.message.content == "Hello! How can I help you today?"
    assert answer.model == MODEL and answer.done and answer.done_reason == "stop"
    for duration in (answer.total_duration, answer.load_duration, answer.prompt_eval_duration, answer.eval_duration):
        assert duration > 0
    assert answer.eval_count > 0 and answer.prompt_eval_count > 0
    assert datetime.datetime.fromisoformat(answer.created_at.replace("Z", "+00:00"))


def test_chat_streams(client):
    parts = list(client.chat(MODEL, user("Count to 100."), stream=True, options=ZERO))
    assert len(parts) > 50 and parts[-1].done and parts[-1].done_reason == "stop"
    assert not any(p.done for p in parts[:-1])
    assert "".join(p.message.content for p in parts).startswith("1, 2, 3, 4, 5")
    assert parts[-1].eval_count > 50


def test_chat_keeps_characters_whole(client):
    whole = client.chat(MODEL, user("Say hello with an emoji."), options=ZERO).message.content
    pieces = [p.message.content for p in client.chat(MODEL, user("Say hello with an emoji."), stream=True, options=ZERO)]
    assert "".join(pieces) == whole and "\ufffd" not in whole and any(ord(c) > 127 for c in whole)


def test_system_prompt_and_history(client):
    assert client.chat(MODEL, [{"role": "system", "content": "You are a pirate."}, *user("Hello")],
                       options=ZERO).message.content == "Ahoy, matey!"
    history = [*user("My name is Alice."), {"role": "assistant", "content": "Nice to meet you, Alice."}, *user("What is my name?")]
    assert client.chat(MODEL, history, options=ZERO).message.content == "Your name is Alice."


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client, stream):
    answer = client.chat(MODEL, user("What is the weather in Paris?"), tools=[WEATHER], stream=stream, options=ZERO)
    parts = list(answer) if stream else [answer]
    calls = [call for part in parts for call in part.message.tool_calls or []]
    assert [(c.function.name, dict(c.function.arguments)) for c in calls] == [("get_weather", {"city": "Paris"})]
    assert parts[-1].done_reason == "stop"
    history = [*user("What is the weather in Paris?"),
               {"role": "assistant", "content": "", "tool_calls": [c.model_dump() for c in calls]},
               {"role": "tool", "tool_name": "get_weather", "content": "sunny"}]
    assert client.chat(MODEL, history, tools=[WEATHER], options=ZERO).message.content == "It is sunny in Paris."


def test_two_tool_calls_in_one_answer(client):
    answer = client.chat(MODEL, user("What is the weather in Paris and London?"), tools=[WEATHER], options=ZERO)
    assert [c.function.arguments["city"] for c in answer.message.tool_calls] == ["Paris", "London"]


def test_tool_from_a_python_function(client):
    def add(a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: first
            b: second
        """
        return a + b

    answer = client.chat(MODEL, user("Add 2 and 6."), tools=[add], options=ZERO)
    assert answer.message.tool_calls[0].function.arguments == {"a": 2, "b": 6}


def test_thinking(client):
    question = user("Think: what is 3 times 4?")
    answer = client.chat(MODEL, question, options=ZERO)
    assert answer.message.thinking.strip() == "3 times 4 is 12." and answer.message.content.strip() == "12."
    parts = list(client.chat(MODEL, question, think=True, stream=True, options=ZERO))
    assert "".join(p.message.thinking or "" for p in parts).strip() == "3 times 4 is 12."
    off = client.chat(MODEL, question, think=False, options=ZERO)
    assert not off.message.thinking and off.message.content.strip() == "12."


class Capital(pydantic.BaseModel):
    country: str
    capital: str


def test_structured_output(client):
    question = user("Give me the capital of France as JSON.")
    answer = client.chat(MODEL, question, format=Capital.model_json_schema(), options=ZERO)
    assert Capital.model_validate_json(answer.message.content) == Capital(country="France", capital="Paris")
    assert json.loads(client.chat(MODEL, question, format="json", options=ZERO).message.content)["capital"] == "Paris"


def test_logprobs(client):
    answer = client.chat(MODEL, user("ping"), logprobs=True, top_logprobs=3, options=ZERO)
    assert answer.logprobs and all(entry.logprob <= 0 for entry in answer.logprobs)
    assert len(answer.logprobs[0].top_logprobs) == 3


def test_generate(client):
    answer = client.generate(MODEL, "What is the capital of France?", options=ZERO)
    assert answer.response == "Paris." and answer.done_reason == "stop" and len(answer.context) > 5
    assert answer.eval_count > 0 and answer.total_duration > 0
    text = "".join(p.response for p in client.generate(MODEL, "What is 2 + 3?", stream=True, options=ZERO))
    assert text == "5"


def test_generate_raw_and_fill_in_the_middle(client):
    raw = client.generate(MODEL, "Once upon a time", raw=True, options={"temperature": 0, "num_predict": 20})
    assert raw.response and raw.context is None
    middle = client.generate(MODEL, "def add(a, b):\n    return ", suffix="\n", options={"temperature": 0, "num_predict": 20})
    assert middle.response.startswith("a + b")


def test_length_limit(client):
    answer = client.generate(MODEL, "Count to 100.", options={"temperature": 0, "num_predict": 7})
    assert answer.done_reason == "length" and answer.eval_count == 7


def test_stop_text(client):
    answer = client.generate(MODEL, "Count to ten.", options={"temperature": 0, "stop": ["5"]})
    assert answer.response.strip() == "1, 2, 3, 4,"


def test_embed(client):
    vectors = client.embed("tiny-embed", ["The cat sleeps on the sofa.", "A dog and a kitten play.", "The stock market fell today."]).embeddings
    assert len(vectors) == 3 and all(len(v) == 128 for v in vectors)
    assert all(abs(math.sqrt(sum(x * x for x in v)) - 1) < 1e-3 for v in vectors)
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    assert dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2]) + 0.1
    short = client.embed("tiny-embed", "cat", dimensions=32).embeddings[0]
    assert len(short) == 32 and abs(sum(x * x for x in short) - 1) < 1e-3
    assert len(client.embeddings("tiny-embed", "cat").embedding) == 128
    assert client.embed("tiny-embed", []).embeddings == []


def test_load_list_unload(client):
    assert client.generate(MODEL, keep_alive="10m").done_reason == "load"
    loaded = {m.model: m for m in client.ps().models}["tiny-chat:latest"]
    assert loaded.size > 0 and loaded.size_vram == 0 and loaded.context_length >= 2048
    left = loaded.expires_at - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(minutes=9) < left < datetime.timedelta(minutes=11)
    client.generate(MODEL, keep_alive=-1)
    assert {m.model: m for m in client.ps().models}["tiny-chat:latest"].expires_at.year > 2200
    assert client.chat(MODEL, [], keep_alive=0).done_reason == "unload"
    assert "tiny-chat:latest" not in {m.model for m in client.ps().models}


def test_names(client):
    for name in ("tiny-chat:latest", "TINY-CHAT", "library/tiny-chat", "tiny-chat.gguf", "tiny-chat:f16"):
        assert client.chat(name, user("ping"), options=ZERO).message.content == "pong", name


@pytest.mark.parametrize("call, status, text", [
    (lambda c: c.chat("nope", user("x")), 404, "model 'nope' not found"),
    (lambda c: c.generate("nope", "x"), 404, "model 'nope' not found"),
    (lambda c: c.embed("nope", "x"), 404, 'model "nope" not found, try pulling it first'),
    (lambda c: c.show("nope"), 404, "model 'nope:latest' not found"),
    (lambda c: c.chat(MODEL, user("x"), options={"num_ctx": "many"}), 400, 'option "num_ctx" must be of type integer'),
    (lambda c: c.chat(MODEL, user("x"), keep_alive="10"), 400, "missing unit in duration"),
    (lambda c: c.chat("tiny-embed", user("x")), 400, "does not support chat"),
    (lambda c: c.generate(MODEL, "a", raw=True, system="b"), 400, "raw mode does not support template, system, or context"),
    (lambda c: c.generate(MODEL, "a", context=[999999]), 400, "context holds tokens that this model does not have"),
    (lambda c: c.generate(MODEL, "word " * 9000, raw=True, options={"num_predict": 1}), 400, "context"),
])
def test_errors(client, call, status, text):
    with pytest.raises(ollama.ResponseError) as caught:
        call(client)
    assert caught.value.status_code == status and text in caught.value.error


def test_image_to_a_model_without_eyes_is_refused(client):
    png = base64.b64encode(base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==")).decode()
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat(MODEL, [{"role": "user", "content": "What is this?", "images": [png]}])
    assert caught.value.status_code == 400


def test_async_client(runner):
    import asyncio

    async def ask():
        client = ollama.AsyncClient(host=runner.ollama)
        answers = await asyncio.gather(*(client.chat(MODEL, user("What is 2 + 3?"), options=ZERO) for _ in range(16)))
        return {a.message.content for a in answers}

    assert asyncio.run(ask()) == {"5"}
