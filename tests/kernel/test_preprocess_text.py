"""text.tokenize: what comes out, which input it feeds, and tokenizer.json files that mean harm."""

import json
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_edge.errors import DataError
from lepton_edge.preprocess import recipe, tokenizer_check
from lepton_edge.preprocess.pipeline import Pipeline
from lepton_edge.preprocess.recipe import load_preprocess
from lepton_edge.preprocess.spec import Cast, Step, TextTokenize
from lepton_edge.preprocess.text import MAX_TEXT, load_text
from lepton_edge.preprocess.tokenizer_check import check_tokenizer

tokenizers = pytest.importorskip("tokenizers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "##s"]


def document(**changes: Any) -> dict[str, Any]:
    """A small WordPiece tokenizer.json that adds [CLS] and [SEP] and lowercases."""
    special = {name: {"id": name, "ids": [WORDS.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": special,
        },
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: number for number, word in enumerate(WORDS)},
        },
        **changes,
    }


GOOD = json.dumps(document()).encode()
ALL = ["input_ids", "attention_mask", "token_type_ids"]


def run(text: str, *steps: Step, inputs: Sequence[str] = ALL, data: bytes = GOOD) -> dict[str, list[int]]:
    given = Pipeline(steps, files={"t.json": data}, inputs=inputs).load(text)
    return {name: array.tolist() for name, array in given.items()}


def step(**settings: Any) -> TextTokenize:
    return TextTokenize(file="t.json", **settings)


def test_inputs_are_fed_by_their_names() -> None:
    got = run("The cats DOG", step())
    assert got == {
        "input_ids": [2, 4, 5, 7, 1, 3],
        "attention_mask": [1] * 6,
        "token_type_ids": [0] * 6,
    }


def test_an_input_of_another_name_is_fed_as_the_step_says_or_takes_the_ids() -> None:
    assert run("the cat", step(), inputs=["tokens"]) == {"tokens": [2, 4, 5, 3]}
    outputs = {"ids": "input_ids", "mask": "attention_mask"}
    assert run("the", step(outputs=outputs), inputs=["ids", "mask"]) == {"ids": [2, 4, 3], "mask": [1, 1, 1]}
    assert run("the", step(), inputs=["input_ids:0"]) == {"input_ids:0": [2, 4, 3]}


def test_lengths_are_each_texts_own_or_fixed() -> None:
    assert run("the cat sat the cat", step(max_length=4))["input_ids"] == [2, 4, 5, 3]
    padded = run("the", step(max_length=5, padding="max_length"))
    assert padded["input_ids"] == [2, 4, 3, 0, 0]
    assert padded["attention_mask"] == [1, 1, 1, 0, 0]
    assert run("the", step(special_tokens=False))["input_ids"] == [4]


def test_the_tokenizers_own_padding_holds_where_the_step_says_nothing() -> None:
    padding = {
        "strategy": {"Fixed": 6},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 1,
        "pad_type_id": 0,
        "pad_token": "[UNK]",
    }
    data = json.dumps(document(padding=padding)).encode()
    assert run("the", step(), data=data)["input_ids"] == [1, 1, 1, 2, 4, 3]
    assert run("the", step(padding="none"), data=data)["input_ids"] == [2, 4, 3]
    assert run("the", step(max_length=4, padding="max_length"), data=data)["input_ids"] == [1, 2, 4, 3]


def test_a_cast_works_on_one_tensor_or_on_all() -> None:
    made = Pipeline([step(), Cast(to="int32", tensor="input_ids")], files={"t.json": GOOD}, inputs=ALL).load("the")
    assert [str(array.dtype) for array in made.values()] == ["int32", "int64", "int64"]
    with pytest.raises(DataError, match=r"step 2 \(cast\): there is no tensor 'ids'"):
        run("the", step(), Cast(to="int32", tensor="ids"))


REFUSED: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "inputs of unknown meaning": ({}, ["a", "b"], r"outputs = \{ a = "),
    "outputs for other inputs": (
        {"outputs": {"a": "input_ids"}},
        ["b"],
        r"outputs feed \['a'\], the model takes \['b'\]",
    ),
    "no room for special tokens": ({"max_length": 2}, ALL, "max_length is 2, and 2 special tokens"),
}


@pytest.mark.parametrize(("settings", "inputs", "says"), REFUSED.values(), ids=REFUSED)
def test_settings_that_cannot_work(settings: dict[str, Any], inputs: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        Pipeline([step(**settings)], files={"t.json": GOOD}, inputs=inputs)
    assert "step 1 (text.tokenize)" in str(caught.value)


def test_the_bundle_must_carry_the_file() -> None:
    with pytest.raises(DataError, match=r"the file t\.json is not in the bundle"):
        Pipeline([step()], inputs=ALL)


def test_tokenizers_is_asked_for_by_the_name_of_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"pip install 'lepton-edge\[text\]'"):
        Pipeline([step()], files={"t.json": GOOD}, inputs=ALL)


def changed(**changes: Any) -> bytes:
    return json.dumps(document(**changes)).encode()


def bpe(**model: Any) -> bytes:
    return changed(model={"type": "BPE", "vocab": {"a": 0}, "merges": [], **model})


DOUBLE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
EVIL: dict[str, bytes] = {
    "nothing": b"",
    "no json": b"\x93NUMPY",
    "a list": b"[]",
    "truncated": GOOD[:300],
    "nested a hundred thousand deep": b'{"model": ' + b"[" * 100_000,
    "no model": b"{}",
    "a merge of unknown words": bpe(merges=[["a", "zz"]]),
    "a charsmap that is none": changed(normalizer={"type": "Precompiled", "precompiled_charsmap": "////"}),
    "a broken expression": changed(normalizer={"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
    "doublings": changed(normalizer={"type": "Sequence", "normalizers": [DOUBLE] * 60}),
    "an expression that matches nothing": changed(
        normalizer={"type": "Replace", "pattern": {"Regex": ""}, "content": "a" * 1000}
    ),
    "normalizers in normalizers": changed(
        normalizer={"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [DOUBLE] * 4}] * 4}
    ),
    "a text repeated": changed(
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 1000,
            "pair": [],
            "special_tokens": {},
        }
    ),
    "a tree of long words": changed(
        model={"type": "Unigram", "unk_id": 0, "vocab": [[f"{i:05}" * 800, -1.0] for i in range(1100)]}
    ),
    "long added tokens": changed(
        added_tokens=[{"id": 10 + i, "content": f"{i:05}" * 800, "special": False} for i in range(600)]
    ),
    "one giant token": changed(model={"type": "Unigram", "unk_id": 0, "vocab": [["a" * 5000, -1.0]]}),
    "no utf-8": GOOD.replace(b"cat", b"c\xfft"),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("data", EVIL.values(), ids=EVIL)
def test_a_hostile_tokenizer_is_refused_by_name_in_bounded_time_and_memory(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(data)
    (tmp_path / "p.toml").write_text('[[step]]\nop = "text.tokenize"\nfile = "tokenizer.json"\n')
    started = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"p\.toml: tokenizer\.json") as caught:
            load_preprocess(tmp_path / "p.toml")
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 600
    assert time.monotonic() - started < 10


def test_an_expression_that_backtracks_for_ever_ends_in_an_error() -> None:
    rule = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    with pytest.raises(DataError, match=r"t\.json: it failed on a text"):
        run("a" * 60 + "b", step(), data=changed(pre_tokenizer=rule))


def test_giant_files_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.json").write_bytes(GOOD)
    (tmp_path / "p.toml").write_text('[[step]]\nop = "text.tokenize"\nfile = "tokenizer.json"\n')
    monkeypatch.setattr(recipe, "MAX_BYTES", 100)
    with pytest.raises(DataError, match=r"tokenizer\.json, which has more than 100 bytes"):
        load_preprocess(tmp_path / "p.toml")
    monkeypatch.setattr(tokenizer_check, "MAX_BYTES", 100)
    with pytest.raises(DataError, match=r"t\.json: \d+ bytes, at most 100 are accepted"):
        Pipeline([step()], files={"t.json": GOOD}, inputs=ALL)


def test_real_kinds_of_tokenizers_pass_the_check() -> None:
    llama = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        ],
    }
    t5 = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}
    for rule in (None, llama, t5, {"type": "BertNormalizer", "lowercase": True}, {"type": "NFKD"}):
        check_tokenizer(changed(normalizer=rule), "t.json")


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["normalizer", "post_processor", "added_tokens", "model"]), st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "vocab", "single"]), inner),
    max_leaves=8,
)))  # fmt: skip
def test_any_json_is_a_tokenizer_or_a_data_error(changes: dict[str, Any]) -> None:
    with suppress(DataError):
        check_tokenizer(changed(**changes), "t.json")


@given(st.text(min_size=1, max_size=60))
def test_any_text_gives_tokens_or_a_data_error(text: str) -> None:
    pipeline = Pipeline([step(max_length=8)], files={"t.json": GOOD}, inputs=["input_ids"])
    with suppress(DataError):
        ids = pipeline.load(text)["input_ids"]
        assert ids.dtype == np.int64
        assert 2 <= len(ids) <= 8


def test_texts_are_read_with_care(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfthe cat\r\n")
    assert load_text(tmp_path / "a.txt") == "the cat"
    for data, says in ((b" \n", "an empty text"), (b"\xff", "not UTF-8"), (b"a" * (MAX_TEXT + 1), "more than")):
        (tmp_path / "b.txt").write_bytes(data)
        with pytest.raises(DataError, match=rf"b\.txt: {says}"):
            load_text(tmp_path / "b.txt")


def test_the_file_travels_under_a_name_that_is_safe_in_a_bundle(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my tokenizer.json").write_bytes(GOOD)
    lines = [f'[[step]]\nop = "text.tokenize"\nfile = "{name}/my tokenizer.json"' for name in ("one",)]
    (tmp_path / "p.toml").write_text("\n".join(lines))
    loaded = load_preprocess(tmp_path / "p.toml")
    assert loaded.files == {"preprocess/my-tokenizer.json": GOOD}
    assert [one.file for one in loaded.steps if isinstance(one, TextTokenize)] == ["preprocess/my-tokenizer.json"]
    # What the manifest carries, read back, is what a device runs.
    back = msgspec.json.decode(msgspec.json.encode(list(loaded.steps)), type=list[Step])
    got = Pipeline(back, files=loaded.files, inputs=ALL).load("the cat")
    assert got["input_ids"].tolist() == [2, 4, 5, 3]
