"""Output scales of sums on which kernels with fixed-point and with float multipliers round alike.

A sum of int8 tensors is a * sa/so + b * sb/so, rounded. XNNPACK holds the two ratios in 21 bits, so that what lies
within 1e-4 of the middle between two steps may go the other way than in float (ONNX Runtime): few pairs of steps do,
yet one of them may be common. A scale that is wider by less than half a percent moves both ratios onto fixed-point
numbers.

Source: XNNPACK, the initialisation of its qs8 addition parameters; ONNX Runtime, QLinearAdd.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from converters.quantize.encoding import SHIFT, STEPS, Encoding
from converters.quantize.units import Unit

_WIDEST = 2.0**-8
_CANDIDATES = 4096
_FINALISTS = 4
_BITS = 20
"""The larger of the two multipliers lies in 2**20 .. 2**21."""
_FLOAT_ERROR = 2e-5
"""Of a sum of two products of a float32 ratio and a step."""
_COMMON = 8.0
"""Steps around zero are common: those further off weigh less by their distance over this."""

Floats = npt.NDArray[np.float64]


class Sum(NamedTuple):
    """What is added. follows: whether an addend shares the sum's own encoding, whichever that is; sign: -1 of Sub."""

    first: Encoding
    second: Encoding
    follows: tuple[bool, bool] = (False, False)
    sign: int = 1

    def ratios(self, scales: Floats) -> Floats:
        """Each addend's scale over the sum's; shape (2, scales), of float32's precision."""
        pairs = zip((self.first, self.second), self.follows, strict=True)
        own = [np.ones_like(scales) if same else addend.scale / scales for addend, same in pairs]
        return np.asarray(own, np.float32).astype(np.float64)


def settle_sums(
    units: Sequence[Unit], encodings: dict[str, Encoding], group_of: Callable[[str], str], *, keep: frozenset[str]
) -> None:
    """Widen the encodings of sums in place, each with all that share it; in the order of the graph.

    Args:
        units: of the whole graph, in its order.
        encodings: by the tensor's name.
        group_of: names a tensor's group: those that share an encoding.
        keep: groups whose encoding follows from something else.
    """
    members: dict[str, list[str]] = {}
    for name in encodings:
        members.setdefault(group_of(name), []).append(name)
    done = set(keep)
    for unit in units:
        output = unit.outputs[0].name or "" if unit.outputs else ""
        if unit.operator not in {"Add", "Sub"} or output not in encodings or group_of(output) in done:
            continue
        addends = [value.name or "" for value in unit.data]
        if len(addends) != 2 or any(name not in encodings for name in addends):
            continue
        done.add(group_of(output))
        same = group_of(addends[0]) == group_of(output), group_of(addends[1]) == group_of(output)
        sign = -1 if unit.operator == "Sub" else 1
        settled = settle(encodings[output], Sum(encodings[addends[0]], encodings[addends[1]], same, sign))
        encodings.update(dict.fromkeys(members[group_of(output)], settled))


def settle(encoding: Encoding, added: Sum) -> Encoding:
    """The encoding, wider by less than half a percent, on which the fewest common pairs of steps are rounded apart."""
    steps = 1 + _WIDEST * np.arange(_CANDIDATES) / _CANDIDATES
    scales = (np.float32(encoding.scale) * steps).astype(np.float32).astype(np.float64)
    multipliers = added.ratios(scales) * _unit(added.ratios(scales))
    finalists = np.argsort(np.max(np.abs(multipliers - np.rint(multipliers)), axis=0), kind="stable")[:_FINALISTS]
    apart = [_apart(added, float(scales[index])) for index in finalists]
    return Encoding(float(scales[finalists[int(np.argmin(apart))]]), encoding.zero_point)


def _unit(ratios: Floats) -> Floats:
    """What a ratio is multiplied by to become a fixed-point number; shape (scales,)."""
    unit: Floats = np.ldexp(1.0, _BITS + 1 - np.frexp(ratios.max(axis=0))[1])
    return unit


def _apart(added: Sum, scale: float) -> float:
    """The weight of the pairs of steps whose sum lies so near the middle that the two kernels may part."""
    ratios = added.ratios(np.asarray([scale]))
    unit = _unit(ratios)
    error = _FLOAT_ERROR + SHIFT * float(np.abs(np.rint(ratios * unit) / unit - ratios).sum())
    first, second = (np.arange(STEPS + 1) - one.zero_point for one in added[:2])
    exact = ratios[0] * first[:, None] + added.sign * ratios[1] * second
    middle = np.abs(exact - np.floor(exact) - 0.5) < error
    common = [1 / (1 + np.abs(steps) / _COMMON) for steps in (first, second)]
    return float(common[0] @ middle @ common[1])
