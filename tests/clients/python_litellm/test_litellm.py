"""litellm, unmodified, by each of its four ways to a local runtime, and its async and responses forms."""
import json

import litellm
import pytest

# Provider prefix, listener, path below it. litellm adds the rest of the path itself.
WAYS = {
    "ollama": ("ollama_chat/tiny-chat", "ollama", ""),
    "openai": ("openai/tiny-chat", "management", "/v1"),
    "lm_studio": ("lm_studio/tiny-chat", "lmstudio", "/v1"),
    "anthropic": ("anthropic/tiny-chat", "ollama", ""),
}
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


@pytest.fixture(params=list(WAYS))
def way(runner, request):
    model, listener, path = WAYS[request.param]
    return {"model": model, "api_base": getattr(runner, listener) + path, "api_key": "none", "temperature": 0,
            "max_tokens": 300, "num_retries": 0}


def user(text):
    return [{"role": "user", "content": text}]


def test_chat(way):
    answer = litellm.completion(messages=[{"role": "system", "content": "You are a pirate."}, *user("Hello")], **way)
    assert answer.choices[0].message.content == "Ahoy, matey!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0


def test_chat_streams(way):
    chunks = list(litellm.completion(messages=user("Count to 100."), stream=True, **way))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.startswith("1, 2, 3, 4, 5") and len(chunks) > 50


async def chunks_of(**asked):
    return [chunk async for chunk in await litellm.acompletion(stream=True, **asked)]


@pytest.mark.asyncio
async def test_chat_streams_asynchronously(way):
    chunks = await chunks_of(messages=user("What is 2 + 3?"), **way)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "5"


@pytest.mark.parametrize("stream", [False, True])
def test_tools(way, stream):
    asked = user("What is the weather in Paris?")
    answer = litellm.completion(messages=asked, tools=[WEATHER], stream=stream, **way)
    if stream:
        answer = litellm.stream_chunk_builder(list(answer), messages=asked)
    call = answer.choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    assert answer.choices[0].finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": "sunny"}
    told = litellm.completion(messages=[*asked, answer.choices[0].message.model_dump(), result], tools=[WEATHER], **way)
    assert told.choices[0].message.content == "It is sunny in Paris."


def test_an_unknown_model_is_not_found(way):
    if way["model"].startswith("lm_studio/"):
        return  # There the only loaded model answers, as in LM Studio (test_lmstudio has that).
    asked = {**way, "model": way["model"].replace("tiny-chat", "nope")}
    with pytest.raises((litellm.NotFoundError, litellm.APIConnectionError)) as raised:
        litellm.completion(messages=user("Hello"), **asked)
    assert "nope" in str(raised.value)


@pytest.mark.parametrize("model, listener, path", [
    ("ollama/tiny-embed", "ollama", ""),
    ("openai/tiny-embed", "management", "/v1"),
    ("lm_studio/tiny-embed", "lmstudio", "/v1"),
])
def test_embeddings(runner, model, listener, path):
    answer = litellm.embedding(model=model, input=["The cat sleeps.", "A dog barks."], api_key="none",
                               api_base=getattr(runner, listener) + path)
    vectors = [item["embedding"] for item in answer.data]
    assert [len(vector) for vector in vectors] == [128, 128]


def test_prompts(runner):
    """The older form of the Ollama way: `/api/generate`."""
    answer = litellm.completion(model="ollama/tiny-chat", messages=user("Hello"), api_base=runner.ollama, temperature=0)
    assert answer.choices[0].message.content


def test_responses(runner):
    answer = litellm.responses(model="openai/tiny-chat", input="What is the capital of France?", temperature=0,
                               api_base=runner.management + "/v1", api_key="none")
    assert answer.output[0].content[0].text == "Paris."
