"""The official `anthropic` client, unmodified, on all three ports."""
import anthropic
import pytest

MODEL = "tiny-chat"
WEATHER = {"name": "get_weather", "description": "Weather of a city",
           "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
# The newest clients know no temperature any more, but send what they are given.
ASK = {"model": MODEL, "max_tokens": 300, "extra_body": {"temperature": 0}}


@pytest.fixture(params=["ollama", "lmstudio", "management"])
def client(runner, request):
    return anthropic.Anthropic(base_url=getattr(runner, request.param), api_key="none", max_retries=0)


def user(content):
    return [{"role": "user", "content": content}]


def test_message(client):
    answer = client.messages.create(**ASK, messages=user("Hello"))
    assert answer.content[0].text == "Hello! How can I help you today?"
    assert (answer.type, answer.role, answer.model, answer.stop_reason) == ("message", "assistant", MODEL, "end_turn")
    assert answer.id.startswith("msg_") and len(answer.id) == 28
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0
    assert answer._request_id.startswith("req_")


def test_system(client):
    blocks = [{"type": "text", "text": "You are a pirate.", "cache_control": {"type": "ephemeral"}}]
    for system in ("You are a pirate.", blocks):
        assert client.messages.create(**ASK, system=system, messages=user("Hello")).content[0].text == "Ahoy, matey!"
    inside = [{"role": "system", "content": "You are a pirate."}, *user([{"type": "text", "text": "Hello"}])]
    assert client.messages.create(**ASK, messages=inside).content[0].text == "Ahoy, matey!"


def test_stream(client):
    with client.messages.stream(**ASK, messages=user("Count to 100.")) as stream:
        pieces = list(stream.text_stream)
        answer = stream.get_final_message()
    assert len(pieces) > 50 and "".join(pieces).startswith("1, 2, 3, 4, 5")
    assert answer.content[0].text == "".join(pieces) and answer.stop_reason == "end_turn"
    whole = client.messages.create(**ASK, messages=user("Count to 100."))
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (whole.usage.input_tokens, whole.usage.output_tokens)


def test_events_come_in_order(client):
    events = list(client.messages.create(**ASK, messages=user("ping"), stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start" and events[0].message.usage.input_tokens > 0 and events[0].message.content == []
    assert kinds[1] == "content_block_start" and kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client, stream):
    ask = {**ASK, "messages": user("What is the weather in Paris and London?"), "tools": [WEATHER]}
    if stream:
        pieces = 0
        with client.messages.stream(**ask) as events:
            for event in events:
                pieces += event.type == "input_json"
            answer = events.get_final_message()
        assert pieces > 4, "the input comes as the model writes it"
    else:
        answer = client.messages.create(**ask)
    assert answer.stop_reason == "tool_use"
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert [(call.name, call.input) for call in calls] == [("get_weather", {"city": "Paris"}), ("get_weather", {"city": "London"})]
    assert len({call.id for call in calls}) == 2


def test_tool_results(client):
    asked = user("What is the weather in Paris?")
    called = client.messages.create(**ASK, messages=asked, tools=[WEATHER])
    call = next(block for block in called.content if block.type == "tool_use")
    for content in ("sunny", [{"type": "text", "text": "sunny"}]):
        result = {"type": "tool_result", "tool_use_id": call.id, "content": content}
        history = [*asked, {"role": "assistant", "content": called.content}, *user([result])]
        assert client.messages.create(**ASK, messages=history, tools=[WEATHER]).content[0].text == "It is sunny in Paris."


def test_tool_choice(client):
    ask = {**ASK, "messages": user("What is the weather in Paris?"), "tools": [WEATHER]}
    none = client.messages.create(**ask, tool_choice={"type": "none"})
    assert [block.type for block in none.content] == ["text"] and none.stop_reason == "end_turn"
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}):
        assert client.messages.create(**ask, tool_choice=choice).stop_reason == "tool_use"
    with pytest.raises(anthropic.BadRequestError, match="not in tools"):
        client.messages.create(**ask, tool_choice={"type": "tool", "name": "other"})


@pytest.mark.parametrize("stream", [False, True])
def test_thinking(client, stream):
    ask = {**ASK, "max_tokens": 2000, "messages": user("Think: what is 3 times 4?")}
    thinking = {"type": "enabled", "budget_tokens": 1024}
    if stream:
        with client.messages.stream(**ask, thinking=thinking) as events:
            answer = events.get_final_message()
    else:
        answer = client.messages.create(**ask, thinking=thinking)
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].thinking.strip() == "3 times 4 is 12." and answer.content[0].signature == ""
    assert answer.content[1].text == "12."
    # What was thought goes back as it came.
    history = [*ask["messages"], {"role": "assistant", "content": answer.content}, *user("ping")]
    assert client.messages.create(**ASK, messages=history).stop_reason in ("end_turn", "max_tokens")
    off = client.messages.create(**ask, thinking={"type": "disabled"})
    assert [block.type for block in off.content] == ["text"]


@pytest.mark.parametrize("stream", [False, True])
def test_stop_sequences(client, stream):
    ask = {**ASK, "messages": user("Count to ten."), "stop_sequences": ["never", "7"]}
    if stream:
        with client.messages.stream(**ask) as events:
            answer = events.get_final_message()
    else:
        answer = client.messages.create(**ask)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "7")
    assert answer.content[0].text == "1, 2, 3, 4, 5, 6, "


def test_length(client):
    answer = client.messages.create(**{**ASK, "max_tokens": 5}, messages=user("Count to 100."))
    assert answer.stop_reason == "max_tokens" and answer.usage.output_tokens == 5


def test_count_tokens(client):
    plain = client.messages.count_tokens(model=MODEL, messages=user("Hello")).input_tokens
    system = client.messages.count_tokens(model=MODEL, messages=user("Hello"), system="You are a pirate.").input_tokens
    tools = client.messages.count_tokens(model=MODEL, messages=user("Hello"), tools=[WEATHER]).input_tokens
    assert 0 < plain < system and plain < tools
    # What is counted is what is read.
    assert client.messages.create(**ASK, messages=user("Hello")).usage.input_tokens == plain


def test_structured_output(client):
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}
    answer = client.messages.create(**ASK, messages=user("Give me a JSON object with the name and age of Alice."),
                                    output_config={"format": {"type": "json_schema", "schema": schema}, "effort": "low"})
    assert answer.content[0].text == '{"name": "Alice", "age": 20}'


def test_images_are_refused_by_a_model_without_eyes(client):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    with pytest.raises(anthropic.BadRequestError, match="does not support image input"):
        client.messages.create(**ASK, messages=user([image, {"type": "text", "text": "What is it?"}]))
    result = {"type": "tool_result", "tool_use_id": "t", "content": [image]}
    use = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]}
    with pytest.raises(anthropic.BadRequestError, match="does not support image input"):
        client.messages.create(**ASK, messages=[*user("Look"), use, *user([result])])
    remote = {"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/a.png"}}
    with pytest.raises(anthropic.BadRequestError, match="base64"):
        client.messages.create(**ASK, messages=user([remote]))


def test_errors(client):
    with pytest.raises(anthropic.BadRequestError) as wrong:
        client.messages.create(model=MODEL, max_tokens=0, messages=user("x"))
    body = wrong.value.body
    assert body["type"] == "error" and body["error"]["type"] == "invalid_request_error"
    assert body["error"]["message"] == "max_tokens is required and must be positive"
    assert body["request_id"] == wrong.value.request_id and body["request_id"].startswith("req_")
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: [0-9]+ tokens > [0-9]+ maximum"):
        client.messages.create(**ASK, messages=user("word " * 20000))


def test_unknown_models(runner):
    for port in ("ollama", "management"):  # LM Studio's port answers with the only loaded model
        client = anthropic.Anthropic(base_url=getattr(runner, port), api_key="none", max_retries=0)
        with pytest.raises(anthropic.NotFoundError) as unknown:
            client.messages.create(**{**ASK, "model": "nope"}, messages=user("x"))
        assert unknown.value.body["error"]["type"] == "not_found_error"


def test_models(client):
    listed = client.models.list()
    assert any(model.id.startswith(MODEL) for model in listed.data) and not listed.has_more
    one = client.models.retrieve(MODEL)
    assert one.type == "model" and one.display_name and one.created_at.year >= 2024


@pytest.mark.asyncio
async def test_async(runner):
    client = anthropic.AsyncAnthropic(base_url=runner.ollama, api_key="none", max_retries=0)
    async with client.messages.stream(**ASK, messages=user("Hello")) as stream:
        text = "".join([piece async for piece in stream.text_stream])
    assert text == "Hello! How can I help you today?"
