"""langchain-ollama, unmodified, on both ports."""
import pydantic
import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM


@pytest.fixture(params=["ollama", "lmstudio"])
def base(runner, request):
    return getattr(runner, request.param)


@tool
def get_weather(city: str) -> str:
    """Weather of a city."""
    return "sunny"


class Capital(pydantic.BaseModel):
    """A country and its capital."""
    country: str
    capital: str


def test_chat_invoke_and_stream(base):
    chat = ChatOllama(model="tiny-chat", base_url=base, temperature=0, validate_model_on_init=True)
    answer = chat.invoke([SystemMessage("You are a pirate."), HumanMessage("Hello")])
    assert answer.content == "Ahoy, matey!"
    assert answer.response_metadata["done_reason"] == "stop" and answer.usage_metadata["output_tokens"] > 0
    assert "".join(c.content for c in chat.stream("Count to ten.")) == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."


def test_tools(base):
    chat = ChatOllama(model="tiny-chat", base_url=base, temperature=0).bind_tools([get_weather])
    question = HumanMessage("What is the weather in Paris?")
    first = chat.invoke([question])
    assert [(c["name"], c["args"]) for c in first.tool_calls] == [("get_weather", {"city": "Paris"})]
    result = ToolMessage(get_weather.invoke(first.tool_calls[0]["args"]), tool_call_id=first.tool_calls[0]["id"])
    assert chat.invoke([question, first, result]).content == "It is sunny in Paris."


def test_structured_output(base):
    chat = ChatOllama(model="tiny-chat", base_url=base, temperature=0)
    assert chat.with_structured_output(Capital, method="json_schema").invoke(
        "Give me the capital of France as JSON.") == Capital(country="France", capital="Paris")


def test_reasoning(base):
    chat = ChatOllama(model="tiny-chat", base_url=base, temperature=0, reasoning=True)
    answer = chat.invoke("Think: what is 3 times 4?")
    assert answer.content.strip() == "12." and "3 times 4" in answer.additional_kwargs["reasoning_content"]


def test_embeddings_and_llm(base):
    embeddings = OllamaEmbeddings(model="tiny-embed", base_url=base)
    assert len(embeddings.embed_query("cat")) == 128 and len(embeddings.embed_documents(["cat", "dog"])) == 2
    assert OllamaLLM(model="tiny-chat", base_url=base, temperature=0).invoke("What is 2 + 3?") == "5"
