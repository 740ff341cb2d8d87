"""OpenAI's own client in Python gets along with the server."""

from __future__ import annotations

import pytest

openai = pytest.importorskip("openai")

from tilewright.engine.sampling import SamplingParams

SAID = [{"role": "user", "content": "hi"}]
FIELDS = {"max_tokens": 12, "temperature": 0.9, "seed": 3}


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def wanted(alone):
    return alone.chat(SAID, SamplingParams(top_k=50, **FIELDS)).text


def test_a_conversation(client, wanted):
    found = client.chat.completions.create(model="tiny", messages=SAID, **FIELDS)
    assert found.choices[0].message.content == wanted
    assert found.usage.completion_tokens == 12


def test_a_stream(client, wanted):
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model="tiny", messages=SAID, stream=True, stream_options=options, **FIELDS)
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == wanted
    assert chunks[-1].usage.completion_tokens == 12


def test_logprobs(client):
    found = client.chat.completions.create(model="tiny", messages=SAID, logprobs=True, top_logprobs=3, **FIELDS)
    assert len(found.choices[0].logprobs.content) == 12
    assert all(len(entry.top_logprobs) == 3 for entry in found.choices[0].logprobs.content)


def test_a_completion(client, alone):
    found = client.completions.create(model="tiny", prompt="abc", extra_body={"ignore_eos": True}, **FIELDS)
    assert found.choices[0].text == alone.generate("abc", SamplingParams(top_k=50, **FIELDS))[0].text


def test_the_models(client):
    assert [m.id for m in client.models.list()] == ["tiny"]


def test_errors_are_its_own(client):
    with pytest.raises(openai.NotFoundError, match="this server has 'tiny'"):
        client.chat.completions.create(model="gpt-5", messages=SAID)
    with pytest.raises(openai.BadRequestError, match="temperature is -1"):
        client.chat.completions.create(model="tiny", messages=SAID, temperature=-1)
