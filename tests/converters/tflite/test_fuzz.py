"""Random nets through the TFLite writer, held against ONNX Runtime; `make fuzz` is the long form."""

from pathlib import Path

import pytest

from tests.converters.tflite.fuzzing import (
    ALL,
    REWRITTEN,
    TFLITE,
    Calibrated,
    fuzz_float,
    fuzz_layout,
)

FLOAT_SEEDS, LAYOUT_SEEDS, INT8_SEEDS = range(5000, 5080), range(5000, 5030), range(5000, 5018)

ONCE_WRONG = (209, 448, 548, 1167, 1342, 1378)
"""Shapes of computed sizes, digits near 0, names of open sizes, axes that two layouts cut across each other."""


def test_float_files_compute_what_onnx_runtime_computes(tmp_path: Path) -> None:
    wrong, compared = [], 0
    for seed in FLOAT_SEEDS:
        found = fuzz_float(seed, tmp_path)
        compared += len(found)
        wrong += [(seed, one) for one in found if one.wrong]
    assert not wrong
    assert compared >= 10 * len(FLOAT_SEEDS)


@pytest.mark.parametrize("seed", ONCE_WRONG)
def test_nets_that_were_wrong_or_refused_once(seed: int, tmp_path: Path) -> None:
    assert [one for one in fuzz_float(seed, tmp_path) if one.wrong] == []


def test_layouts_cost_what_the_best_of_all_choices_costs() -> None:
    costs = [fuzz_layout(seed, native=bool(seed % 2)) for seed in LAYOUT_SEEDS]
    tried = [one for one in costs if one.least is not None]
    assert len(tried) >= len(costs) // 3
    assert [one.chosen for one in tried] == [one.least for one in tried]


@pytest.mark.parametrize("profile", [*TFLITE, ALL, REWRITTEN])
def test_int8_operators_are_within_two_steps_alone_and_the_file_is_the_quantised_graph(
    profile: str, tmp_path: Path, calibrated: dict[int, Calibrated]
) -> None:
    made = {seed: net.quantised(profile, tmp_path, native=True) for seed, net in calibrated.items()}
    found = {seed: one for seed, one in made.items() if one is not None}
    assert found
    assert {seed: far for seed, one in found.items() if (far := one.far)} == {}
    assert {seed: one.apart for seed, one in found.items() if one.strays} == {}


@pytest.fixture(scope="module")
def calibrated() -> dict[int, Calibrated]:
    return {seed: Calibrated(seed) for seed in INT8_SEEDS}
