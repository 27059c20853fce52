"""The official `openai` client, unmodified, on all three ports."""
import json

import openai
import pydantic
import pytest

MODEL = "tiny-chat"
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


@pytest.fixture(params=["ollama", "lmstudio", "management"])
def client(runner, request):
    return openai.OpenAI(base_url=getattr(runner, request.param) + "/v1", api_key="none", max_retries=0)


def user(text):
    return [{"role": "user", "content": text}]


def test_models(client):
    ids = {m.id: m for m in client.models.list().data}
    names = {i.split(":")[0] for i in ids}
    assert "tiny-chat" in names and all(any(n.endswith(known) for n in names) for known in ("tiny-embed", "tiny-rerank"))
    one = client.models.retrieve(MODEL)
    assert one.object == "model" and one.owned_by and one.created > 0
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")


def test_chat(client):
    answer = client.chat.completions.create(model=MODEL, messages=user("Hello"), temperature=0)
    assert answer.choices[0].message.content == "Hello! How can I help you today?"
    assert answer.choices[0].finish_reason == "stop" and answer.usage.completion_tokens > 0


def test_chat_streams(client):
    chunks = list(client.chat.completions.create(
        model=MODEL, messages=user("Count to 100."), temperature=0, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text.startswith("1, 2, 3, 4, 5") and len(chunks) > 50
    assert chunks[-1].usage.completion_tokens > 50
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client, stream):
    if not stream:
        answer = client.chat.completions.create(model=MODEL, messages=user("What is the weather in Paris?"), tools=[WEATHER], temperature=0)
        call = answer.choices[0].message.tool_calls[0]
        assert answer.choices[0].finish_reason == "tool_calls"
        assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
        return
    name, arguments = "", ""
    for chunk in client.chat.completions.create(model=MODEL, messages=user("What is the weather in Paris?"),
                                                tools=[WEATHER], temperature=0, stream=True):
        for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert (name, json.loads(arguments)) == ("get_weather", {"city": "Paris"})


class Capital(pydantic.BaseModel):
    country: str
    capital: str


def test_structured_output(client):
    answer = client.chat.completions.parse(model=MODEL, messages=user("Give me the capital of France as JSON."),
                                           temperature=0, response_format=Capital)
    assert answer.choices[0].message.parsed == Capital(country="France", capital="Paris")


def test_completions(client):
    answer = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=12, temperature=0)
    assert answer.choices[0].text and answer.choices[0].finish_reason == "length"
    text = "".join(c.choices[0].text for c in client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=12, temperature=0, stream=True) if c.choices)
    assert text == answer.choices[0].text


def test_embeddings(client):
    answer = client.embeddings.create(model="tiny-embed", input=["cat", "dog"])
    assert len(answer.data) == 2 and len(answer.data[0].embedding) == 128 and answer.usage.prompt_tokens > 0
    plain = client.embeddings.create(model="tiny-embed", input="cat", encoding_format="float")
    assert max(abs(a - b) for a, b in zip(plain.data[0].embedding, answer.data[0].embedding)) < 1e-5


def test_reasoning_is_split_off(client):
    message = client.chat.completions.create(model=MODEL, messages=user("Think: what is 3 times 4?"), temperature=0).choices[0].message
    assert message.content.strip() == "12." and "3 times 4 is 12." in message.reasoning_content


def test_unknown_model(client, runner):
    if str(client.base_url).startswith(runner.lmstudio):
        # LM Studio answers an unknown name with the only loaded LLM (contract 2); ours says so in a header.
        client.chat.completions.create(model=MODEL, messages=user("ping"), temperature=0)
        answer = client.chat.completions.with_raw_response.create(model="gpt-4", messages=user("ping"), temperature=0)
        assert answer.headers["x-llamarunner-model-fallback"] == MODEL
        assert answer.parse().choices[0].message.content == "pong"
        return
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nope", messages=user("x"))
    assert caught.value.code == "model_not_found" and "nope" in caught.value.message


def test_errors(client):
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=MODEL, messages=[])
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=MODEL, messages=user("word " * 9000), stream=stream)
        assert caught.value.code == "context_length_exceeded"
