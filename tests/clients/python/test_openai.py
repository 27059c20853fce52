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


def other_tool(name):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize("choice, called", [
    ("none", None), ("auto", "get_weather"), ("required", "get_weather"),
    ({"type": "function", "function": {"name": "get_weather"}}, "get_weather"),
    ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [WEATHER]}}, "get_weather"),
    # The model knows no other tool: asked for this one alone, it must not call the one it would like to.
    ({"type": "function", "function": {"name": "other"}}, "not get_weather")])
def test_tool_choice(client, choice, called):
    message = client.chat.completions.create(model=MODEL, messages=user("What is the weather in Paris?"), temperature=0,
                                             tools=[WEATHER, other_tool("other")], tool_choice=choice, max_tokens=60).choices[0].message
    names = [call.function.name for call in message.tool_calls or []]
    if called == "get_weather":
        assert names == ["get_weather"]
    else:
        assert "get_weather" not in names and "<tool_call>" not in message.content


def test_stream_helper(client):
    with client.chat.completions.stream(model=MODEL, messages=user("What is the weather in Paris?"), tools=[
            openai.pydantic_function_tool(GetWeather, name="get_weather")], temperature=0) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        assert [event.parsed_arguments for event in done] == [GetWeather(city="Paris")]
        assert stream.get_final_completion().choices[0].finish_reason == "tool_calls"


class GetWeather(pydantic.BaseModel):
    """Weather of a city"""
    city: str


def test_several_answers_and_biases(client):
    one = client.chat.completions.create(model=MODEL, messages=user("ping"), temperature=0, max_completion_tokens=20,
                                         parallel_tool_calls=False, logprobs=True, top_logprobs=3)
    token = one.choices[0].logprobs.content[0]
    assert one.choices[0].message.content == "pong" and len(token.top_logprobs) == 3
    banned = client.chat.completions.create(model=MODEL, messages=user("ping"), temperature=0, max_tokens=5,
                                            logit_bias={str(token.model_extra["id"]): -100})
    assert not banned.choices[0].message.content.startswith("pong")
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=user("ping"), n=100)
    assert caught.value.param == "n"
    single = client.chat.completions.create(model=MODEL, messages=user("ping"), n=1, stop=["g"], temperature=0, seed=5)
    assert single.choices[0].message.content == "pon"


@pytest.mark.parametrize("field, value", [
    ("modalities", ["text", "audio"]), ("functions", [{"name": "x"}]), ("web_search_options", {"user_location": None}),
    ("verbosity", "low"), ("best_of", 3)])
def test_what_is_not_supported_is_named(client, field, value):
    with pytest.raises(openai.BadRequestError) as caught:
        if field == "best_of":
            client.completions.create(model=MODEL, prompt="x", best_of=value)
        else:
            client.chat.completions.create(model=MODEL, messages=user("x"), **{field: value})
    assert caught.value.param == field and caught.value.code == "unsupported_parameter"


def test_developer_and_json_object(client):
    answer = client.chat.completions.create(model=MODEL, temperature=0, max_tokens=80, response_format={"type": "json_object"}, messages=[
        {"role": "developer", "content": "Answer in JSON."}, *user("Give me the capital of France as JSON.")])
    assert json.loads(answer.choices[0].message.content)["capital"] == "Paris"


def test_media_need_a_projector(client):
    for part in ({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                 {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}):
        with pytest.raises(openai.BadRequestError, match="does not support (image|audio) input"):
            client.chat.completions.create(model=MODEL, messages=user([{"type": "text", "text": "What?"}, part]))
    with pytest.raises(openai.BadRequestError, match="image URLs are not currently supported"):
        client.chat.completions.create(model=MODEL, messages=user([
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]))


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


def test_completions_echo_and_probabilities(client):
    ask = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 6, "temperature": 0}
    plain = client.completions.create(**ask).choices[0].text
    assert client.completions.create(**ask, echo=True).choices[0].text == "Once upon a time" + plain
    echoed = "".join(c.choices[0].text for c in client.completions.create(**ask, echo=True, stream=True) if c.choices)
    assert echoed == "Once upon a time" + plain
    likely = client.completions.create(**ask, logprobs=2).choices[0].logprobs
    assert "".join(likely.tokens) == plain and len(likely.token_logprobs) == 6 and len(likely.top_logprobs[0]) == 2
    several = client.completions.create(**{**ask, "prompt": ["Once upon a time", "Hello"]})
    assert [c.index for c in several.choices] == [0, 1] and several.choices[0].text == plain


def test_embeddings(client):
    answer = client.embeddings.create(model="tiny-embed", input=["cat", "dog"])
    assert len(answer.data) == 2 and len(answer.data[0].embedding) == 128 and answer.usage.prompt_tokens > 0
    plain = client.embeddings.create(model="tiny-embed", input="cat", encoding_format="float")
    assert max(abs(a - b) for a, b in zip(plain.data[0].embedding, answer.data[0].embedding)) < 1e-5


def test_embeddings_cut_and_of_tokens(client):
    short = client.embeddings.create(model="tiny-embed", input="cat", dimensions=16)
    plain = client.embeddings.create(model="tiny-embed", input="cat", dimensions=16, encoding_format="float")
    for answer in (short, plain):
        assert abs(sum(x * x for x in answer.data[0].embedding) - 1) < 1e-4 and len(answer.data[0].embedding) == 16
    assert max(abs(a - b) for a, b in zip(short.data[0].embedding, plain.data[0].embedding)) < 1e-6
    tokens = client.embeddings.create(model="tiny-embed", input=[[40, 41], [42]])
    assert len(tokens.data) == 2
    for more in ({"encoding_format": "hex"}, {"dimensions": 4096}, {"input": []}):
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(**{"model": "tiny-embed", "input": "cat", **more})


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
