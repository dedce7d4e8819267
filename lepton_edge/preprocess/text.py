"""The text step: Hugging Face's `tokenizers` with a tokenizer.json that the bundle carries."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lepton_edge.bundle.binding import Arrays
from lepton_edge.errors import DataError
from lepton_edge.preprocess.extras import library
from lepton_edge.preprocess.spec import TextTokenize
from lepton_edge.preprocess.tokenizer_check import check_tokenizer

MAX_TEXT = 128 * 1024
"""Bytes of one text. A tokenizer.json may hold an expression that takes quadratic time; this is what bounds it."""
OUTPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Tokenizing(NamedTuple):
    """A text.tokenize step, ready to run.

    Attributes:
        tokenizer: a tokenizers.Tokenizer.
        feeds: the model's input -> the tokenizer's output.
        special_tokens: whether to add them.
        where: how messages name the tokenizer.
    """

    tokenizer: Any
    feeds: Mapping[str, str]
    special_tokens: bool
    where: str


def load_text(source: Path | bytes, *, name: str = "text") -> str:
    """Read a text, UTF-8, without a byte order mark and without the newline at its end.

    Raises:
        DataError: unreadable, too long, not UTF-8, or nothing but white space.
    """
    where = str(source) if isinstance(source, Path) else name
    if isinstance(source, Path):
        try:
            with source.open("rb") as file:
                source = file.read(MAX_TEXT + 1)
        except OSError as cause:
            raise DataError(f"{where}: {cause.strerror or cause}") from cause
    try:
        text = source[: MAX_TEXT + 1].decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        if len(source) <= MAX_TEXT:
            raise DataError(f"{where}: not UTF-8 text ({cause})") from cause
        text = ""
    if len(source) > MAX_TEXT:
        raise DataError(f"{where}: more than {MAX_TEXT} bytes of text in one sample")
    if not text.strip():
        raise DataError(f"{where}: an empty text")
    return text.rstrip("\r\n")


def open_tokenizer(step: TextTokenize, data: bytes, *, where: str) -> Any:
    """A tokenizers.Tokenizer from a tokenizer.json, with the step's truncation and padding.

    Raises:
        DataError: not a tokenizer.json, one that would cost too much, or `tokenizers` is not installed.
    """
    check_tokenizer(data, where)
    tokenizers = library("tokenizers", extra="text")
    tokenizer = _guarded(lambda: tokenizers.Tokenizer.from_str(data.decode("utf-8")), f"{where}: no tokenizer.json")
    if step.max_length is not None:
        special = tokenizer.num_special_tokens_to_add(is_pair=False) if step.special_tokens else 0
        if step.max_length <= special:
            raise DataError(f"{where}: max_length is {step.max_length}, and {special} special tokens are added")
        tokenizer.enable_truncation(step.max_length)
    if step.padding == "none":
        tokenizer.no_padding()
    if step.padding == "max_length":
        pad = tokenizer.padding or _pad_token(tokenizer, where)
        tokenizer.enable_padding(**{**pad, "length": step.max_length, "pad_to_multiple_of": None})
    return tokenizer


def _pad_token(tokenizer: Any, where: str) -> dict[str, Any]:
    """The padding token of a tokenizer.json that says nothing of padding: found by its usual names."""
    for token in ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>"):
        number = tokenizer.token_to_id(token)
        if number is not None:
            return {"pad_id": number, "pad_token": token}
    raise DataError(f"{where}: it names no padding token: add a padding section to it")


def prepare(step: TextTokenize, files: Mapping[str, bytes], inputs: Sequence[str]) -> Tokenizing:
    """Open the step's tokenizer and decide which model input takes which of its outputs.

    Raises:
        DataError: the file is not among `files` or no tokenizer, or an input would get nothing.
    """
    if step.file not in files:
        raise DataError(f"the file {step.file} is not in the bundle")
    tokenizer = open_tokenizer(step, files[step.file], where=step.file)
    return Tokenizing(tokenizer, _feeds(step, inputs), step.special_tokens, step.file)


def _feeds(step: TextTokenize, inputs: Sequence[str]) -> Mapping[str, str]:
    if step.outputs:
        if sorted(step.outputs) != sorted(inputs):
            raise DataError(f"outputs feed {sorted(step.outputs)}, the model takes {list(inputs)}")
        return step.outputs
    feeds = {name: name.partition(":")[0] for name in inputs}
    if all(output in OUTPUTS for output in feeds.values()):
        return feeds
    if len(inputs) == 1:
        return {inputs[0]: "input_ids"}
    raise DataError(
        f"which of {list(inputs)} takes which of {', '.join(OUTPUTS)} is not clear: say so, "
        f'as in outputs = {{ {inputs[0]} = "input_ids" }}'
    )


def tokenize(text: str, step: Tokenizing) -> Arrays:
    """One int64 array of shape (tokens,) for each input that the step feeds.

    Raises:
        DataError: no token comes out, or the tokenizer fails.
    """
    encoding = _guarded(
        lambda: step.tokenizer.encode(text, add_special_tokens=step.special_tokens),
        f"{step.where}: it failed on a text",
    )
    given = {
        "input_ids": encoding.ids,
        "attention_mask": encoding.attention_mask,
        "token_type_ids": encoding.type_ids,
    }
    if not given["input_ids"]:
        raise DataError(f"{step.where}: no token comes out of {text[:40]!r}")
    return {name: np.asarray(given[output], np.int64) for name, output in step.feeds.items()}


def _guarded(call: Any, what: str) -> Any:
    """Call into the library: it raises bare Exceptions, and panics as a BaseException of its own."""
    try:
        return call()
    except BaseException as cause:
        if isinstance(cause, Exception) or type(cause).__name__ == "PanicException":
            raise DataError(f"{what} ({str(cause)[:200]})") from cause
        raise
