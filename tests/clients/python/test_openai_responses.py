"""`/v1/responses` by the official `openai` client, unmodified, on all three ports."""
import asyncio
import json

import openai
import pydantic
import pytest

from conftest import Runner

MODEL = "tiny-chat"
WEATHER = {"type": "function", "name": "get_weather", "description": "Weather of a city", "strict": True,
           "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
                          "additionalProperties": False}}
ZERO = {"model": MODEL, "temperature": 0}


def connect(base):
    return openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0)


@pytest.fixture(params=["ollama", "lmstudio", "management"])
def client(runner, request):
    return connect(getattr(runner, request.param))


class Capital(pydantic.BaseModel):
    country: str
    capital: str


def test_create_retrieve_delete(client):
    answer = client.responses.create(**ZERO, input="Hello", metadata={"who": "me"})
    assert answer.output_text == "Hello! How can I help you today?" and answer.status == "completed"
    assert answer.id.startswith("resp_") and len(answer.id) == 53 and answer.metadata == {"who": "me"}
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens > 0
    assert client.responses.retrieve(answer.id) == answer
    items = list(client.responses.input_items.list(answer.id))
    assert [i.content[0].text for i in items] == ["Hello"]
    client.responses.delete(answer.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def test_conversations_branch(client):
    first = client.responses.create(**ZERO, input="My name is Alice.")
    for _ in range(2):
        # Every id is a branch point: the second turn does not see the first one's.
        second = client.responses.create(**ZERO, input="What is my name?", previous_response_id=first.id)
        assert "Alice" in second.output_text and second.previous_response_id == first.id
    unkept = client.responses.create(**ZERO, input="Hello", store=False)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**ZERO, input="And now?", previous_response_id=unkept.id)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_previous_response_after_a_restart(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    server = Runner(home)
    first = connect(server.ollama).responses.create(**ZERO, input="My name is Alice.")
    assert server.stop() == 0
    server = Runner(home)
    try:
        client = connect(server.lmstudio)
        assert client.responses.retrieve(first.id).output_text == first.output_text
        with client.responses.stream(**ZERO, input="What is my name?", previous_response_id=first.id) as stream:
            assert "Alice" in stream.get_final_response().output_text
    finally:
        assert server.stop() == 0


def test_stream(client):
    events = list(client.responses.create(**ZERO, input="Count to 100.", stream=True))
    kinds = [e.type for e in events]
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    assert kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"]
    assert [e.sequence_number for e in events] == list(range(len(events)))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text.startswith("1, 2, 3, 4, 5") and text == events[-1].response.output_text
    assert kinds.count("response.output_text.delta") > 50


def test_stream_helper_parses(client):
    with client.responses.stream(**ZERO, input="Give me the capital of France as JSON.", text_format=Capital) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_parsed == Capital(country="France", capital="Paris")
    answer = client.responses.parse(**ZERO, input="Give me the capital of France as JSON.", text_format=Capital)
    assert answer.output_parsed == Capital(country="France", capital="Paris")


@pytest.mark.parametrize("stream", [False, True])
def test_tools_in_two_turns(client, stream):
    ask = {**ZERO, "input": "What is the weather in Paris?", "tools": [WEATHER]}
    if stream:
        events = list(client.responses.create(**ask, stream=True))
        pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
        answer = events[-1].response
        assert len(pieces) > 1 and "".join(pieces) == answer.output[0].arguments
    else:
        answer = client.responses.create(**ask)
    call = answer.output[0]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "get_weather", {"city": "Paris"})
    told = client.responses.create(**ZERO, tools=[WEATHER], previous_response_id=answer.id, input=[
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}])
    assert told.output_text == "It is sunny in Paris."
    # The same without anything kept here: the client sends the items back.
    told = client.responses.create(**ZERO, tools=[WEATHER], store=False, input=[
        {"role": "user", "content": "What is the weather in Paris?"}, call.to_dict(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}])
    assert told.output_text == "It is sunny in Paris."


def test_tool_choices_and_namespaces(client):
    other = {"type": "function", "name": "other", "parameters": {"type": "object", "properties": {}}}
    ask = {**ZERO, "input": "What is the weather in Paris?", "tools": [WEATHER, other], "max_output_tokens": 60}
    for choice in ("required", {"type": "function", "name": "get_weather"},
                   {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]}):
        names = {i.name for i in client.responses.create(**ask, tool_choice=choice).output if i.type == "function_call"}
        assert names == {"get_weather"}
    for choice in ("none", {"type": "function", "name": "other"}):
        names = {i.name for i in client.responses.create(**ask, tool_choice=choice).output if i.type == "function_call"}
        assert "get_weather" not in names
    # The model calls the only name it knows; the namespace is where the name came from.
    space = {"type": "namespace", "name": "get_weather", "description": "About cities", "tools": [{**WEATHER, "name": "of_city"}]}
    calls = [i for i in client.responses.create(**{**ask, "tools": [space]}, tool_choice="required").output if i.type == "function_call"]
    assert all((c.namespace, c.name) == ("get_weather", "of_city") for c in calls)


def test_reasoning(client, runner):
    answer = client.responses.create(**ZERO, input="Think: what is 3 times 4?")
    thought = answer.output[0]
    shown = thought.summary if str(client.base_url).startswith(runner.ollama) else thought.content
    assert shown[0].text.strip() == "3 times 4 is 12." and answer.output_text.strip() == "12."
    assert answer.usage.output_tokens_details.reasoning_tokens > 0
    asked = client.responses.create(**ZERO, input="Think: what is 3 times 4?", reasoning={"summary": "auto"}, store=False,
                                    include=["reasoning.encrypted_content"])
    assert asked.output[0].summary[0].text.strip() == "3 times 4 is 12." and asked.output[0].encrypted_content
    kinds = {e.type for e in client.responses.create(**ZERO, input="Think: what is 3 times 4?", stream=True)}
    assert kinds & {"response.reasoning_summary_text.delta", "response.reasoning_text.delta"}
    # Sent back whole, as a client does that keeps its conversations itself.
    again = client.responses.create(**ZERO, input=[
        {"role": "user", "content": "Think: what is 3 times 4?"}, *(i.to_dict() for i in asked.output),
        {"role": "user", "content": "Hello"}])
    assert again.output_text


def test_length_and_probabilities(client):
    answer = client.responses.create(**ZERO, input="Count to 100.", max_output_tokens=5)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    likely = client.responses.create(**ZERO, input="ping", include=["message.output_text.logprobs"], top_logprobs=2)
    tokens = likely.output[0].content[0].logprobs
    assert "".join(t.token for t in tokens).startswith("pong") and len(tokens[0].top_logprobs) == 2


@pytest.mark.parametrize("field, value", [
    ("background", True), ("conversation", "conv_1"), ("tools", [{"type": "file_search"}]), ("prompt", {"id": "p"}),
    ("text", {"verbosity": "low"}), ("tool_choice", {"type": "file_search"})])
def test_what_is_not_supported_is_named(client, field, value):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**ZERO, input="x", extra_body={field: value})
    assert caught.value.param.split(".")[0] == field and caught.value.code == "unsupported_parameter"


def test_errors(client, runner):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**ZERO, input="word " * 9000)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="image input"):
        client.responses.create(**ZERO, input=[{"role": "user", "content": [
            {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,iVBORw0KGgo="}]}])
    if not str(client.base_url).startswith(runner.lmstudio):
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="nope", input="x")


def test_async_client(runner):
    async def ask():
        async with openai.AsyncOpenAI(base_url=runner.ollama + "/v1", api_key="none", max_retries=0) as client:
            async with client.responses.stream(**ZERO, input="Hello") as stream:
                return (await stream.get_final_response()).output_text

    assert asyncio.run(ask()) == "Hello! How can I help you today?"
