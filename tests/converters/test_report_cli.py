"""`report`: the page again, from the bundle alone; and what the page shows beyond tables of figures."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from converters.outcome import KeptFloat, Outcome
from converters.report.page import render
from lepton_edge.bundle import Bundle
from lepton_edge.cli import main
from tests.converters.test_report import NASTY, checked

Converted = tuple[Outcome, Bundle, Path]


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["report", *(str(argument) for argument in arguments)])


def test_page_is_made_again_from_the_bundle(converted: Converted, tmp_path: Path) -> None:
    _, bundle, path = converted
    done = cli(path, "-o", tmp_path / "r.html", "--json")
    assert done.exit_code == 0, done.stderr
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert {"svg", "table"} <= checked(page)
    for variant in bundle.manifest.variants:
        assert variant.name in page
        assert all(f"{timed.p50_ms:.3f}" in page for timed in variant.latency)
    assert "99.07 %" in page
    assert "from the bundle's manifest" in page
    # What a manifest does not hold must not be claimed.
    assert "calibration" not in page
    document = json.loads(done.stdout)
    assert {"bundle", "name", "version", "source", "variants"} <= set(document)


def test_page_lies_beside_the_bundle_by_default(converted: Converted, tmp_path: Path) -> None:
    _, bundle, _ = converted
    bundle.save(tmp_path / "digits.lep")
    assert cli(tmp_path / "digits.lep").exit_code == 0
    assert (tmp_path / "digits.report.html").is_file()


@pytest.mark.parametrize("content", [None, b"no bundle"], ids=["absent", "no bundle"])
def test_what_is_no_bundle_gets_one_line_and_no_page(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.lep"
    if content is not None:
        path.write_bytes(content)
    done = cli(path)
    assert done.exit_code == 1
    assert "x.lep" in done.stderr
    assert not (tmp_path / "x.report.html").exists()


def with_kept_float(outcome: Outcome, kept: list[KeptFloat]) -> Outcome:
    first, *others = outcome.variants
    return msgspec.structs.replace(outcome, variants=[first, msgspec.structs.replace(others[0], kept_float=kept)])


def test_operators_left_float_are_grouped_by_reason_and_folded_away(converted: Converted) -> None:
    kept = [KeptFloat(node=f"scale{n}", operator="Mul", reason="slower in int8 here") for n in range(11)]
    kept.append(KeptFloat(node="mask", operator="Add", reason="its range does not fit"))
    page = render(with_kept_float(converted[0], kept), None, [])
    assert {"details", "summary"} <= checked(page)
    assert "12 operators" in page
    assert page.count("slower in int8 here") == 1
    assert "and 3 more" in page
    assert "details" not in checked(render(with_kept_float(converted[0], []), None, []))


def test_names_of_operators_are_escaped(converted: Converted) -> None:
    kept = [KeptFloat(node=NASTY, operator=NASTY, reason=NASTY)]
    assert "<script" not in render(with_kept_float(converted[0], kept), None, [])


def test_a_metric_in_its_own_unit_is_not_told_in_percent(converted: Converted) -> None:
    def own(one: object) -> object:
        return msgspec.structs.replace(one, name="mse", value=0.25, low=0.2, high=0.3, unit="own")  # type: ignore[type-var]

    outcome = converted[0]
    variants = [msgspec.structs.replace(one, metric=own(one.metric), drop=0.0125) for one in outcome.variants]
    source = msgspec.structs.replace(outcome.source, metric=own(outcome.source.metric))
    page = render(msgspec.structs.replace(outcome, variants=variants, source=source), None, [])
    assert "mse 0.25<br>0.2..0.3" in page
    assert "+0.0125" in page
    assert "25.00 %" not in page
