"""Lines of nanoseconds over work, fitted to measurements: what a profile's table holds."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

NOISE = 50
"""Nanoseconds below which a difference of chains says nothing."""
_NAMES = ("fixed", "mac", "read", "written")

Work = tuple[int, int, int]
"""Multiply-accumulates, elements read, elements written."""
Line = dict[str, float]


def fit(works: Sequence[Work], times: Sequence[float]) -> Line:
    """Non-negative least squares on relative errors (Lawson and Hanson, 1974); 0 where all is noise."""
    pairs = [(work, time) for work, time in zip(works, times, strict=True) if time > NOISE]
    if not pairs:
        return {}
    found = np.array([time for _, time in pairs])
    work = np.array([[1.0, *work] for work, _ in pairs]) / found[:, None]
    if all(one[1] == one[2] for one, _ in pairs):
        work[:, 3] = 0
    factors, _ = nnls(work, np.ones(len(pairs)))
    return {name: float(f"{value:.4g}") for name, value in zip(_NAMES, factors, strict=True) if value > 0}


def along(line: Line, work: Work) -> float:
    """Nanoseconds that a line gives."""
    return sum(line.get(name, 0) * factor for name, factor in zip(_NAMES, (1, *work), strict=True))


def error(line: Line, work: Work, time: float) -> float:
    """How far off it is, as a share of what was measured."""
    wanted = max(time, 1.0)
    return abs(along(line, work) - wanted) / wanted
