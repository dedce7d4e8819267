"""What a tokenizer.json may hold before it is given to the tokenizers library, so that a hostile one stays cheap.

The library's parser bounds its own depth, and its regular expressions stop after ten million steps of backtracking.
What it does not bound is refused here: rules that blow a text up without end, and word lists whose tree or automaton
would take many times the file's size (measured with tokenizers 0.23: 330 bytes a character of a Unigram word list,
80 bytes and 1.7 us a character of added tokens).
"""

from typing import Annotated

import msgspec

from lepton_edge.errors import DataError

MAX_BYTES = 64 * 1024 * 1024
"""The largest tokenizer.json that is in use today has 34 MB."""
MAX_RULES_BYTES = 8 * 1024 * 1024
MAX_TOKEN_BYTES = 4096
MAX_UNIGRAM_BYTES = 4 * 1024 * 1024
MAX_ADDED_BYTES = 2 * 1024 * 1024
MAX_GROWTH = 64
"""By how much the normaliser's replacements may lengthen a text: Llama's and T5's stay below 4."""
MAX_TEMPLATE = 64
_MAX_DEPTH = 16


class _Pattern(msgspec.Struct):
    String: str | None = None
    Regex: str | None = None


class _Normalizer(msgspec.Struct):
    type: str = ""
    normalizers: list["_Normalizer"] = []
    pattern: _Pattern | None = None
    content: str = ""
    prepend: str = ""


class _Added(msgspec.Struct):
    content: str = ""


class _Processor(msgspec.Struct):
    processors: list["_Processor"] = []
    single: list[msgspec.Raw] = []


class _Model(msgspec.Struct):
    type: str = ""
    vocab: msgspec.Raw = msgspec.Raw(b"{}")


class _File(msgspec.Struct):
    model: _Model
    added_tokens: list[_Added] = []
    normalizer: msgspec.Raw = msgspec.Raw(b"null")
    post_processor: msgspec.Raw = msgspec.Raw(b"null")


_Entry = tuple[Annotated[str, msgspec.Meta(max_length=MAX_TOKEN_BYTES)], float]


def check_tokenizer(data: bytes, where: str) -> None:
    """Look through a tokenizer.json.

    Raises:
        DataError: no JSON of this kind, or one that would cost too much; the message names what.
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"{where}: {len(data)} bytes, at most {MAX_BYTES} are accepted")
    try:
        _check(msgspec.json.decode(data, type=_File), where)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise DataError(f"{where}: no tokenizer.json ({cause})") from cause


def _check(file: _File, where: str) -> None:
    for name, rules in (("normalizer", file.normalizer), ("post_processor", file.post_processor)):
        if len(bytes(rules)) > MAX_RULES_BYTES:
            raise DataError(f"{where}: its {name} has more than {MAX_RULES_BYTES} bytes")
    _check_words("added_tokens", [token.content for token in file.added_tokens], MAX_ADDED_BYTES, where)
    vocab = bytes(file.model.vocab).lstrip()
    # A Unigram list is told by its form: the type may be left out, and the library then tries each.
    if vocab.startswith(b"["):
        entries = msgspec.json.decode(vocab, type=list[_Entry])
        _check_words("the Unigram vocabulary", [word for word, _ in entries], MAX_UNIGRAM_BYTES, where)
    normalizer = msgspec.json.decode(file.normalizer, type=_Normalizer | None)
    if normalizer and (growth := _growth(normalizer, 0)) > MAX_GROWTH:
        raise DataError(
            f"{where}: its normalizer could make a text {growth:.3g} times as long; refused above {MAX_GROWTH}"
        )
    processor = msgspec.json.decode(file.post_processor, type=_Processor | None)
    if processor and (pieces := _pieces(processor, 0)) > MAX_TEMPLATE:
        raise DataError(f"{where}: its post_processor puts {pieces} pieces into one text; refused above {MAX_TEMPLATE}")


def _check_words(what: str, words: list[str], limit: int, where: str) -> None:
    total = sum(len(word.encode("utf-8", "surrogatepass")) for word in words)
    if total > limit:
        raise DataError(f"{where}: {what} holds {total} bytes of text; refused above {limit}")
    if any(len(word) > MAX_TOKEN_BYTES for word in words):
        raise DataError(f"{where}: {what} holds a token of more than {MAX_TOKEN_BYTES} characters")


def _growth(rule: _Normalizer, depth: int) -> float:
    """An upper bound on how much longer a text becomes: a match of n characters becomes len(content)."""
    if depth > _MAX_DEPTH:
        return float("inf")
    growth = 1.0
    if rule.pattern is not None:
        # A regular expression may match nothing, between every two characters.
        literal = rule.pattern.String
        growth = max(1.0, len(rule.content) / len(literal)) if literal else 1.0 + len(rule.content)
    if rule.prepend:
        growth *= 1.0 + min(1.0, len(rule.prepend) / MAX_GROWTH)
    for inner in rule.normalizers:
        growth *= _growth(inner, depth + 1)
    return growth


def _pieces(rule: _Processor, depth: int) -> int:
    if depth > _MAX_DEPTH:
        return MAX_TEMPLATE + 1
    pieces = max(1, len(rule.single))
    for inner in rule.processors:
        pieces *= _pieces(inner, depth + 1)
        if pieces > MAX_TEMPLATE:
            break
    return pieces
