"""An imported graph held against the model that it was made from: both run, and their outputs are compared."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

from converters.data.dataset import Dataset
from converters.ort import ERRORS, PROVIDERS, first_line, open_plain, options
from converters.source import Reference, Source
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.errors import ModelError, SelfTestError
from lepton_edge.runtimes import Session

TOLERANCE = 1e-3
"""Of the largest value of an output. Two float32 implementations add in different orders: measured, 1e-7 to 2e-5 on
nets of up to 150 layers. A lost operator, a swapped axis or a frozen branch gives 1e-1 and more."""
HALF_TOLERANCE = 2e-2
"""Where the output is float16, whose steps are 8,000 times those of float32."""
SAMPLES = 8
"""Of the user's data: random ones were tried before, and a source's own framework may be slow."""
UNEQUAL_SHARE = 0.01
"""Of an integer output: an argmax between two values that rounding alone keeps apart."""
_TINY = 1e-4
"""Outputs below that are judged as if they were of it: a sigmoid near 0 is right to 1e-7, not to 1e-3 of itself."""


_NUDGE = 2.0**-18
"""Of each input: 32 steps of float32, about what the sums of many layers are rounded by."""
_NUDGES = 8
"""Few of them may hit what blows up."""
_MAGNIFIED = 8.0
"""Rounding in every layer moves an output further than the nudge of the inputs alone: measured, up to 5 times on nets
of 240 layers fed with what they were not made for."""

Seen = dict[str, set[tuple[int, ...]]]
"""The shapes that outputs had, by name."""


class Checked(NamedTuple):
    """What a check found. seen: the shapes of the outputs; notes: what it could not tell."""

    seen: Seen
    notes: list[str]


def check_import(source: Source, samples: Iterable[Arrays], *, nudge: bool = False) -> Checked:
    """Run inputs through the graph and through `source.reference`; nothing is done where there is none.

    Args:
        source: the imported model.
        samples: inputs by the signature's names, each of a batch size that the signature takes.
        nudge: they are made up, and a net that is fed with what it was not made for may blow up rounding. Where an
            output differs, the inputs of the source are nudged by as little as rounding would: what moves its own
            output as far says nothing against the graph, and becomes a note.

    Raises:
        ModelError: ONNX Runtime does not run the graph, or an output differs; it names the output and the difference.
    """
    seen: Seen = {spec.name: set() for spec in source.signature.outputs}
    notes: dict[str, str] = {}
    if source.reference is None:
        return Checked(seen, [])
    try:
        session = onnxruntime.InferenceSession(source.to_bytes(), options(threads=1), providers=PROVIDERS)
    except ERRORS as cause:
        raise ModelError(f"{source.where}: ONNX Runtime cannot load what was exported: {first_line(cause)}") from cause
    names = [spec.name for spec in source.signature.outputs]
    for inputs in samples:
        want = source.reference(inputs)
        try:
            got = session.run(names, inputs)
        except ERRORS as cause:
            shapes = {name: list(array.shape) for name, array in inputs.items()}
            raise ModelError(
                f"{source.where}: ONNX Runtime cannot run what was exported on {shapes}: {first_line(cause)}"
            ) from cause
        answer = {name: np.asarray(array) for name, array in zip(names, got, strict=True)}
        notes |= _compare(source, inputs, answer, want, nudge=nudge)
        for name in names:
            seen[name].add(want[name].shape)
    return Checked(seen, list(notes.values()))


def check_on_data(source: Source, data: Dataset) -> None:
    """Hold the graph against its source on the user's own samples, the first few. Raises as `check_import`."""
    check_import(source, (data.inputs(index) for index in range(min(SAMPLES, len(data)))))


def check_canonical(original: Path, file: Path, samples: Sequence[Arrays], *, where: str) -> None:
    """Hold the float file that everything else is made of against the graph that was imported.

    Args:
        original: the imported graph; files, so that no second copy of the weights is held in memory.
        file: the canonical graph.
        samples: inputs of single runs; one is enough.
        where: how messages name the model.

    Raises:
        ModelError: an output differs, though the imported graph gives the same each time that it is run.
        SelfTestError: ONNX Runtime does not take one of the two.
    """
    executor = open_plain(original, threads=1, optimise=True)
    wanted = [executor.execute(sample) for sample in samples]
    again = executor.execute(samples[0])
    del executor
    if any(_apart(again[name], array) for name, array in wanted[0].items()):
        return  # a random operator: it is refused where the golden outputs are made
    executor = open_plain(file, threads=1, optimise=True)
    for sample, want in zip(samples, wanted, strict=True):
        got = executor.execute(sample)
        for name, array in want.items():
            if _apart(got[name], array):
                raise ModelError(
                    f"{where}: its simplified graph gives another {name!r} than the model itself: a fault of "
                    "lepton-edge, so nothing was written; please report it with the model"
                )


def check_lite(
    plain: Callable[[], Session], lite: Callable[[], Session], *, samples: Sequence[Arrays], where: str
) -> None:
    """Hold the float TFLite file against the float ONNX one; each is opened when the other is closed.

    Raises:
        SelfTestError: an output differs, or a runtime does not take its file.
    """
    wanted, got = _answers(plain, samples), _answers(lite, samples)
    for want, answer in zip(wanted, got, strict=True):
        for name, array in want.items():
            if apart := how_apart(answer[name], array):
                raise SelfTestError(
                    f"{where}: its TFLite file gives another {name!r} than the model itself ({apart}): a fault of "
                    "lepton-edge, so no TFLite is made; please report it with the model"
                )


def _answers(opened: Callable[[], Session], samples: Sequence[Arrays]) -> list[Arrays]:
    session = opened()
    return [session.run(sample) for sample in samples]


def _apart(got: Array, want: Array) -> bool:
    return bool(how_apart(got, want))


def how_apart(got: Array, want: Array) -> str:
    """By how much an output is another than it should be; "" where no more than rounding parts them."""
    if got.shape != want.shape:
        return f"has shape {list(got.shape)}, not {list(want.shape)}"
    error, limit, what = _difference(got, want)
    return "" if error <= limit else f"differs by {error:.2g} {what}, at most {limit:g} is rounding"


def _compare(source: Source, inputs: Arrays, got: Arrays, want: Arrays, *, nudge: bool) -> dict[str, str]:
    """Notes by output on what differs no more than the source does from itself."""
    apart = {name: how for name, array in want.items() if (how := how_apart(got[name], array))}
    if not apart:
        return {}
    moved = _moved(source.reference, inputs, want) if nudge and source.reference else dict.fromkeys(want, 0.0)
    notes = {}
    for name, how in apart.items():
        if not _error(got[name], want[name]) <= _MAGNIFIED * moved[name]:
            raise ModelError(
                f"{source.where}: the exported graph is not the model: output {name!r} {how}: export it to ONNX "
                "yourself, or report this model"
            )
        notes[name] = (
            f"{source.where}: on random inputs output {name!r} of the graph {how}; so does the model from itself when "
            "its inputs change by millionths: only your data can show that the two are one (--data)"
        )
    return notes


def _moved(reference: Reference, inputs: Arrays, want: Arrays) -> dict[str, float]:
    """By how much each output of the source moves where its inputs do by no more than rounding."""
    rng = np.random.default_rng(0)
    moved = dict.fromkeys(want, 0.0)
    for _ in range(_NUDGES):
        nudged = reference({name: _nudged(array, rng) for name, array in inputs.items()})
        moved = {name: max(moved[name], _error(nudged[name], array)) for name, array in want.items()}
    return moved


def _nudged(array: Array, rng: np.random.Generator) -> Array:
    if not np.issubdtype(array.dtype, np.floating):
        return array
    return (array.astype(np.float64) * (1 + rng.uniform(-_NUDGE, _NUDGE, array.shape))).astype(array.dtype)


def _error(got: Array, want: Array) -> float:
    return _difference(got, want)[0] if got.shape == want.shape else np.inf


def _difference(got: Array, want: Array) -> tuple[float, float, str]:
    """Error, limit, and what they are parts of. NaN equals NaN."""
    if not want.size:
        return 0.0, 0.0, "of nothing"
    if not np.issubdtype(want.dtype, np.floating):
        return float(np.mean(got != want)), UNEQUAL_SHARE, "of its elements"
    limit = HALF_TOLERANCE if want.dtype == np.float16 else TOLERANCE
    a, b = got.astype(np.float64), want.astype(np.float64)
    alike = (a == b) | (np.isnan(a) & np.isnan(b))
    scale = max(float(np.max(np.abs(b), where=np.isfinite(b), initial=0.0)), _TINY)
    with np.errstate(invalid="ignore"):
        error = float(np.max(np.where(alike, 0.0, np.abs(a - b)), initial=0.0)) / scale
    return error, limit, "of its largest value"
