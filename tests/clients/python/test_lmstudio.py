"""The official `lmstudio` library, unmodified: every method that needs no hub and no vision model."""
import threading
import time

import lmstudio
import pytest

MODEL = "tiny-chat"
EMBED = "text-embedding-tiny-embed"
ZERO = {"temperature": 0, "repeatPenalty": False}
COMPLAINT = "could not read a message of ours"
CAPITAL = {
    "type": "object", "properties": {"country": {"type": "string"}, "capital": {"type": "string"}},
    "required": ["country", "capital"], "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(runner):
    yield runner
    # Neither side found a message of the other invalid.
    log = (runner.home / "stderr.log").read_text()
    assert COMPLAINT not in log, [line for line in log.splitlines() if COMPLAINT in line]


@pytest.fixture(params=["lmstudio", "ollama"])
def client(server, request):
    with lmstudio.Client(getattr(server, request.param).removeprefix("http://")) as client:
        yield client


@pytest.fixture
def model(client):
    return client.llm.model(MODEL)


def test_lists_what_is_there(client):
    models = {m.model_key: m for m in client.list_downloaded_models()}
    assert {MODEL, EMBED} <= set(models)
    assert not [key for key in models if "rerank" in key], "speech and rerank models have no place in these lists"
    assert models[MODEL].type == "llm" and models[EMBED].type == "embedding"
    assert EMBED not in [m.model_key for m in client.list_downloaded_models("llm")]
    info = models[MODEL].info
    assert info.max_context_length == 4096 and info.trained_for_tool_use and info.size_bytes == 1798016


def test_loads_with_progress_and_unloads(client):
    seen = []
    first = client.llm.load_new_instance(MODEL, "mine", config={"contextLength": 512}, ttl=60, on_load_progress=seen.append)
    assert first.identifier == "mine" and first.get_context_length() == 512
    assert seen == sorted(seen) and seen[-1] == 1.0
    with pytest.raises(lmstudio.LMStudioServerError, match="already exists"):
        client.llm.load_new_instance(MODEL, "mine")
    info = first.get_info()
    assert info.identifier == "mine" and info.model_key == MODEL
    assert first.get_load_config().context_length == 512
    assert "mine" in [loaded.identifier for loaded in client.llm.list_loaded()]
    assert first.respond("ping", config=ZERO).content == "pong"
    first.unload()
    assert "mine" not in [loaded.identifier for loaded in client.list_loaded_models()]
    with pytest.raises(lmstudio.LMStudioModelNotFoundError):
        first.respond("ping")


def test_numbers_further_instances(client):
    base = client.llm.model(MODEL)
    second = client.llm.load_new_instance(MODEL)
    assert (base.identifier, second.identifier) == (MODEL, f"{MODEL}:2")
    assert second.respond("ping", config=ZERO).content == "pong"
    second.unload()


def test_unknown_models_are_named_at_once(client):
    for ask in (
        lambda: client.llm.model("no-such-model"),
        lambda: client.llm.unload("no-such-model"),
        lambda: client.embedding.unload("no-such-model"),
        lambda: client.llm.load_new_instance("no-such-model"),
    ):
        with pytest.raises(lmstudio.LMStudioModelNotFoundError):
            ask()


def test_counts_and_tokens(model):
    tokens = model.tokenize("Hello there")
    assert tokens and all(isinstance(token, int) for token in tokens)
    assert model.count_tokens("Hello there") == len(tokens)
    assert [len(t) for t in model.tokenize(["Hello", "Hello there"])] == [1, len(tokens)] or len(model.tokenize(["a", "b"])) == 2
    chat = lmstudio.Chat("You are a pirate.")
    chat.add_user_message("Hello")
    assert "You are a pirate." in model.apply_prompt_template(chat)


def test_responds(model):
    result = model.respond("Hello", config=ZERO)
    assert result.content == "Hello! How can I help you today?"
    stats = result.stats
    assert stats.stop_reason == "eosFound" and stats.predicted_tokens_count > 0 and stats.tokens_per_second > 0
    assert stats.total_tokens_count == stats.prompt_tokens_count + stats.predicted_tokens_count
    assert result.model_info.model_key == MODEL
    chat = lmstudio.Chat("You are a pirate.")
    chat.add_user_message("Hello")
    assert model.respond(chat, config=ZERO).content == "Ahoy, matey!"


def test_streams(model):
    progress, fragments, messages = [], [], []
    chat = lmstudio.Chat()
    chat.add_user_message("Count to 100.")
    stream = model.respond_stream(
        chat, config=ZERO, on_prompt_processing_progress=progress.append, on_message=messages.append)
    with stream:
        for fragment in stream:
            fragments.append(fragment)
    text = "".join(f.content for f in fragments)
    assert text.startswith("1, 2, 3, 4, 5") and len(fragments) > 50
    assert all(f.reasoning_type == "none" and f.tokens_count == 1 for f in fragments)
    assert progress[0] == 0.0 and progress[-1] == 1.0 and progress == sorted(set(progress))
    assert stream.result().content == text and len(messages) == 1


def test_stops_where_asked(model):
    short = model.respond("Count to 100.", config={**ZERO, "maxTokens": 5})
    assert short.stats.stop_reason == "maxPredictedTokensReached" and short.stats.predicted_tokens_count == 5
    stopped = model.respond("Count to 100.", config={**ZERO, "stopStrings": [" 7"]})
    assert stopped.stats.stop_reason == "stopStringFound" and stopped.content.endswith("6,")


def test_is_cancelled(model):
    whole = model.respond("Count to 100.", config=ZERO)
    assert whole.stats.stop_reason == "eosFound"
    stream = model.respond_stream("Count to 100.", config=ZERO)
    for number, _ in enumerate(stream):
        if number == 2:
            stream.cancel()
    result = stream.result()
    assert result.stats.stop_reason == "userStopped"
    # How much came before the word of it arrived depends on the machine; that it did not go on to its end does not.
    assert result.content and whole.content.startswith(result.content) and result.content != whole.content
    assert result.stats.predicted_tokens_count < whole.stats.predicted_tokens_count


def test_thinks(model):
    kinds = {}
    for fragment in model.respond_stream("Think: what is 3 times 4?", config=ZERO):
        kinds[fragment.reasoning_type] = kinds.get(fragment.reasoning_type, "") + fragment.content
    assert kinds["reasoningStartTag"] == "<think>" and kinds["reasoningEndTag"] == "</think>"
    assert kinds["reasoning"].strip() == "3 times 4 is 12." and kinds["none"].strip() == "12."


@pytest.mark.parametrize("form", [
    {"type": "json", "jsonSchema": CAPITAL},
    {"type": "json", "jsonSchema": {"$defs": {"capital": CAPITAL}, "$ref": "#/$defs/capital"}},
    {"type": "gbnf", "gbnfGrammar": 'root ::= "{\\"country\\": \\"" [A-Za-z]+ "\\", \\"capital\\": \\"" [A-Za-z]+ "\\"}"'},
], ids=["schema", "reference", "grammar"])
def test_keeps_to_a_form(model, form):
    result = model.respond("Give me the capital of France as JSON.", response_format=form, config=ZERO)
    # The library sends a schema's properties in alphabetical order, which is not the order the model knows.
    assert set(result.parsed) == {"country", "capital"} and set(result.parsed.values()) == {"France", "Paris"}


def test_acts_with_tools(model):
    asked, said = [], []

    def get_weather(city: str) -> str:
        """Weather of a city."""
        asked.append(city)
        return "sunny"

    rounds = model.act("What is the weather in Paris?", [get_weather], on_message=said.append, config=ZERO).rounds
    assert asked == ["Paris"] and rounds == 2
    assert "sunny" in str(said[-1])


def test_completes(model):
    result = model.complete("Once upon a time", config={**ZERO, "maxTokens": 8})
    assert result.content and result.stats.predicted_tokens_count == 8
    pieces = [f.content for f in model.complete_stream("Once upon a time", config={**ZERO, "maxTokens": 8})]
    assert "".join(pieces) == result.content


def test_a_conversation_longer_than_the_context(client):
    model = client.llm.load_new_instance(MODEL, "short", config={"contextLength": 256}, ttl=60)
    chat = lmstudio.Chat("You are helpful.")
    for _ in range(40):
        chat.add_user_message("Hello")
        chat.add_assistant_response("Hello! How can I help you today?")
    chat.add_user_message("ping")
    for policy in ("truncateMiddle", "rollingWindow"):
        result = model.respond(chat, config={**ZERO, "contextOverflowPolicy": policy})
        assert result.content == "pong" and result.stats.prompt_tokens_count < 256
    with pytest.raises(lmstudio.LMStudioServerError, match="context"):
        model.respond(chat, config={**ZERO, "contextOverflowPolicy": "stopAtLimit"})
    full = model.respond("Count to 100.", config=ZERO)
    assert full.stats.stop_reason in ("contextLengthReached", "eosFound")
    model.unload()


def test_embeds(client):
    model = client.embedding.load_new_instance("tiny-embed", "vectors", ttl=60)
    one, two = model.embed(["cat", "kitten"])
    assert len(one) == 128 and sum(a * b for a, b in zip(one, two)) > 0.5
    assert len(model.embed("cat")) == 128
    # LM Studio counts without the two special tokens.
    assert len(model.tokenize("cat")) == model.count_tokens("cat") + 2
    assert model.get_context_length() == 512
    model.unload()


def test_many_at_once(client, model):
    answers = []

    def ask():
        answers.append(model.respond("Count to ten.", config=ZERO).content)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 5 and len(set(answers)) == 1


def test_a_load_just_in_time_evicts_the_other(client):
    for loaded in client.list_loaded_models():
        loaded.unload()  # other clients' loads are not just in time, and stay
    first = client.llm.model(MODEL)
    assert client.embedding.model(EMBED, ttl=300).identifier == EMBED
    with pytest.raises(lmstudio.LMStudioModelNotFoundError):
        first.respond("ping")
    again = client.llm.model(MODEL)
    assert again.identifier == MODEL and again.respond("ping", config=ZERO).content == "pong"


def test_files(client, model, tmp_path):
    note = tmp_path / "note.txt"
    note.write_text("hello")
    image = tmp_path / "image.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n")
    handle = client.prepare_image(image)
    assert handle.file_type == "image" and handle.size_bytes == 8
    with pytest.raises(lmstudio.LMStudioServerError, match="vision|image"):
        chat = lmstudio.Chat()
        chat.add_user_message("What is this?", images=[handle])
        model.respond(chat)


def test_an_unknown_preset_is_named(model):
    with pytest.raises(lmstudio.LMStudioPresetNotFoundError):
        model.respond("ping", preset="no-such-preset")
    with pytest.raises(lmstudio.LMStudioPresetNotFoundError):
        list(model.respond_stream("ping", preset="no-such-preset"))


def test_leaving_stops_the_answer(server):
    import json
    import urllib.request

    with lmstudio.Client(server.lmstudio.removeprefix("http://")) as client:
        stream = client.llm.model(MODEL).respond_stream("Tell me a story.", config={**ZERO, "maxTokens": 100000})
        next(iter(stream))
    deadline = time.monotonic() + 10
    while True:
        state = json.load(urllib.request.urlopen(server.management + "/v1/state"))
        if not state["requests"]:
            return
        assert time.monotonic() < deadline, state["requests"]
