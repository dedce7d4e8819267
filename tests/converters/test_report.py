"""The page stands alone, and nothing of the user's gets into it unescaped."""

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np

from converters.measure.accuracy import Evaluation, Example, Marks
from converters.measure.metrics import METRICS
from converters.outcome import Outcome
from converters.report.page import render
from lepton_edge.bundle import Bundle

VOID = {"meta", "br"}
NASTY = "<script>alert('x')</script>&\""


class Balance(HTMLParser):
    """Fails on a tag that is closed wrongly."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(page: str) -> set[str]:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert not re.search(r"https?:|src=|@import|url\(", page)
    return parser.seen


def test_page_stands_alone_and_shows_the_figures(converted: tuple[Outcome, Bundle, Path]) -> None:
    outcome, _, path = converted
    page = path.with_name("digits.report.html").read_text(encoding="utf-8")
    assert {"svg", "table", "style"} <= checked(page)
    for text in ("int8-onnx-u8s8", "int8-onnx-u8u8", "99.07 %", "Newcombe"):
        assert text in page
    assert f"{outcome.variants[1].latency[0].p50_ms:.3f}" in page


def test_what_comes_from_the_user_is_escaped(converted: tuple[Outcome, Bundle, Path]) -> None:
    variants = [msgspec.structs.replace(one, reason=NASTY, name=NASTY) for one in converted[0].variants]
    outcome = msgspec.structs.replace(
        converted[0], name=NASTY, reason=NASTY, warnings=[NASTY], variants=variants, kept=False
    )
    marks = Marks(rows=[np.ones(1)], agrees=[False], examples=[Example(NASTY, 0, 0, 1)])
    evaluation = Evaluation(METRICS["top1"], Marks(rows=[np.ones(1)], agrees=[True]), {NASTY: marks}, left_out=0)
    page = render(outcome, evaluation, [NASTY, NASTY])
    assert "script" not in checked(page)
    assert "<script" not in page
