"""Text to ids and back, and text in the order of tokens: the pieces joined are the text, whatever the split."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from model_folders import make_tokenizer

from tilewright.errors import ArgumentError, ModelError
from tilewright.models.tokenizer import Detokenizer, Tokenizer

TEXTS = [
    "def fib(n):\n    return n",
    "naïve café",
    "日本語のテキスト",
    "👩‍👩‍👧 family 🎉",
    " leading and trailing ",
    "",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes")
    make_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.from_folder(folder)


@pytest.fixture(scope="module")
def sentencepiece_like(tmp_path_factory):
    """A Llama-2-like tokenizer: leading-space marks, and bytes for what is not in the vocabulary."""
    from tokenizers import Tokenizer as Core
    from tokenizers import decoders, models, normalizers

    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{b:02X}>": 3 + b for b in range(256)}}
    for piece in ("▁", *"abcdehlorw", "▁hello", "▁world"):
        vocab[piece] = len(vocab)
    merges: list[tuple[str, str]] = []
    for word in ("▁hello", "▁world"):
        for i in range(1, len(word)):
            vocab.setdefault(word[: i + 1], len(vocab))
            merges.append((word[:i], word[i]))
    core = Core(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens(["<s>", "</s>"])
    path = tmp_path_factory.mktemp("pieces")
    core.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": {"content": "</s>"}}')
    return Tokenizer.from_folder(path)


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_begin_token_that_the_core_writes_is_not_written_twice():
    core = SimpleNamespace(encode=lambda *_, **__: SimpleNamespace(ids=[1, 5]), token_to_id=lambda _: 1)
    assert Tokenizer(core, {"add_bos_token": True, "bos_token": "<s>"}, None).encode("x") == [1, 5]


def test_agrees_with_transformers(folder, tokenizer):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert tokenizer.encode(text) == theirs.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == theirs.decode(theirs.encode(text))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)


def test_special_tokens(sentencepiece_like):
    assert (sentencepiece_like.bos_id, sentencepiece_like.eos_id) == (1, 2)
    assert sentencepiece_like.decode([1, *sentencepiece_like.encode("hello world"), 2]) == "hello world"
    assert sentencepiece_like.special["eos_token"] == "</s>"


def test_begin_token_where_the_files_ask_for_it(tmp_path):
    make_tokenizer(tmp_path, add_bos_token=True)
    tokenizer = Tokenizer.from_folder(tmp_path)
    ids = tokenizer.encode("ab")
    assert ids[0] == tokenizer.bos_id
    assert ids.count(tokenizer.bos_id) == 1
    assert tokenizer.bos_id not in tokenizer.encode("ab", add_special_tokens=False)


# ------------------------------------------------------------------------------------ text as tokens come


def pieces(tokenizer, ids, prompt=()):
    stream = Detokenizer(tokenizer, prompt)
    return [*(stream.push(i) for i in ids), stream.flush()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text(tokenizer, sentencepiece_like, text):
    for each in (tokenizer, sentencepiece_like):
        ids = each.encode(text)
        assert "".join(pieces(each, ids)) == each.decode(ids)


def test_a_character_comes_whole_with_its_last_byte(tokenizer):
    ids = tokenizer.encode("a€b")  # three bytes, three tokens
    assert pieces(tokenizer, ids) == ["a", "", "", "€", "b", ""]


def test_bytes_of_two_characters_in_a_row(sentencepiece_like):
    ids = [3 + b for b in "你好".encode()]
    assert "".join(pieces(sentencepiece_like, ids)) == "你好"
    assert "\ufffd" not in "".join(pieces(sentencepiece_like, ids))


def test_space_after_the_prompt_is_kept(sentencepiece_like):
    prompt, new = sentencepiece_like.encode("hello"), sentencepiece_like.encode("world")
    assert "".join(pieces(sentencepiece_like, new, prompt)) == " world"


def test_unfinished_character_at_the_end(tokenizer):
    ids = tokenizer.encode("a€")[:-1]
    assert pieces(tokenizer, ids) == ["a", "", "", "\ufffd"]


def test_special_tokens_give_no_text(tokenizer):
    ids = [*tokenizer.encode("a"), tokenizer.eos_id, *tokenizer.encode("b")]
    assert pieces(tokenizer, ids) == ["a", "", "b", ""]


def test_any_bytes_at_all(tokenizer):
    rng = random.Random(3)
    for _ in range(50):
        ids = [rng.randrange(256) for _ in range(rng.randrange(1, 12))]
        assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


def test_endless_nonsense_is_not_held_for_ever(tokenizer):
    bad = tokenizer.encode("€")[-1]  # a continuation byte with nothing before it
    given = pieces(tokenizer, [bad] * 200)
    assert any(given[:30])
    assert len("".join(given)) == 200


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("at", [0, 3])
def test_text_that_is_half_a_character(tokenizer, at):
    with pytest.raises(ArgumentError, match=f"not UTF-8 at character {at}"):
        tokenizer.encode("abc"[:at] + "\udcff")  # what Python makes of the byte 0xff in a C locale


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer.json: no such file; Tilewright needs the fast tokenizer's file"):
        Tokenizer.from_folder(tmp_path)


def test_damaged_file(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer.json: not a tokenizer .*; fetch the file again"):
        Tokenizer.from_folder(tmp_path)


def test_no_chat_template(tokenizer):
    with pytest.raises(ModelError, match=r"this model has no chat template"):
        tokenizer.encode_chat([{"role": "user", "content": "hi"}])
