"""Chat templates: rendered as transformers renders them, in a sandbox, with errors in the template's own words."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from model_folders import make_tokenizer

from tilewright.errors import ModelError
from tilewright.models.chat import ChatTemplate
from tilewright.models.tokenizer import Tokenizer

MESSAGES = [
    {"role": "system", "content": "Be <brief> & kind."},
    {"role": "user", "content": "héllo"},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": "more"},
]
TEMPLATE = """{{ bos_token }}
{%- for message in messages %}
    {%- if loop.index > 3 %}{% continue %}{% endif %}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}[{{ message['content'] }}]{% endgeneration %}
    {%- else %}
<{{ message['role'] }}>{{ message['content'] | trim }}{{ eos_token }}
    {%- endif %}
{%- endfor %}
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- if add_generation_prompt %}<assistant>{% endif %}"""


@pytest.mark.parametrize("tools", [None, [{"type": "function", "function": {"name": "f", "description": "<é>"}}]])
def test_agrees_with_transformers(tmp_path, tools):
    theirs = make_tokenizer(tmp_path, chat_template=TEMPLATE)
    tokenizer = Tokenizer.from_folder(tmp_path)
    for prompt in (True, False):
        wanted = theirs.apply_chat_template(MESSAGES, tokenize=False, tools=tools, add_generation_prompt=prompt)
        assert tokenizer.render_chat(MESSAGES, add_generation_prompt=prompt, tools=tools) == wanted
    ids = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    assert tokenizer.encode_chat(MESSAGES) == ids


def render(source, messages=MESSAGES, **variables):
    return ChatTemplate(source).render(messages, **variables)


def test_date():
    assert render("{{ strftime_now('%Y') }}") == str(datetime.now().year)


def test_raise_exception():
    with pytest.raises(ModelError, match=r"the chat template refused the messages: roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__['jinja2'] }}",
        "{{ 1 / 0 }}",
        "{{ 2.0 ** 100000 }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
)
def test_sandbox(source):
    with pytest.raises(ModelError, match="refused the messages"):
        render(source)


def test_not_jinja():
    with pytest.raises(ModelError, match=r"chat_template: the chat template refused"):
        render("{% for %}")


@pytest.mark.parametrize(
    ("messages", "message"),
    [([], "the conversation is empty"), (["hi"], r"message 0 is 'hi'"), ([{"content": "hi"}], r"message 0 is")],
)
def test_bad_messages(messages, message):
    with pytest.raises(ModelError, match=message):
        render("{{ messages }}", messages)


def test_where_templates_lie(tmp_path):
    assert ChatTemplate.from_folder(tmp_path, {}) is None
    several = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    assert ChatTemplate.from_folder(tmp_path, {"chat_template": several}).source == "D"
    assert ChatTemplate.from_folder(tmp_path, json.loads('{"chat_template": "C"}')).source == "C"
    (tmp_path / "chat_template.jinja").write_text("J")
    assert ChatTemplate.from_folder(tmp_path, {"chat_template": "C"}).source == "J"
