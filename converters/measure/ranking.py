"""Statistics of classes and rankings over samples that count more than once, as the bootstrap draws them.

Every function takes how often each sample counts, shape (B, n), and gives one figure for each of the B rows: what the
plain statistic would be if each sample stood there that many times.
"""

import numpy as np
import numpy.typing as npt

from converters.measure.intervals import F64, Counts


def ratio(rows: F64, counts: Counts) -> F64:
    """Sum of the first column over the sum of the second; rows: shape (n, 2)."""
    sums = counts @ rows
    return _divided(sums[:, 0], sums[:, 1])


def mean(rows: F64, counts: Counts) -> F64:
    """Mean of rows of shape (n, 1)."""
    return _divided(counts @ rows[:, 0], counts.sum(axis=1))


def macro_f1(labels: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64], counts: Counts) -> F64:
    """Mean of each class's 2 TP / (2 TP + FP + FN), over the classes that occur among labels or choices."""
    classes = int(max(labels.max(), chosen.max())) + 1
    hit = _by_class(labels, counts * (labels == chosen), classes)
    wanted, given = _by_class(labels, counts, classes), _by_class(chosen, counts, classes)
    occurs = wanted + given > 0
    each = np.divide(2 * hit, wanted + given, out=np.zeros_like(hit), where=occurs)
    return _divided(each.sum(axis=1), occurs.sum(axis=1).astype(np.float64))


def _by_class(classes: npt.NDArray[np.int64], counts: Counts, total: int) -> F64:
    """Counts summed over the samples of each class: shape (B, total)."""
    order = np.argsort(classes, kind="stable")
    present, starts = np.unique(classes[order], return_index=True)
    sums = np.zeros((len(counts), total))
    sums[:, present] = np.add.reduceat(counts[:, order], starts, axis=1)
    return sums


def auc(scores: F64, positive: npt.NDArray[np.bool_], counts: Counts) -> F64:
    """Area under the ROC curve of one class: how often a positive scores above a negative, ties counting half.

    NaN where no positive or no negative was drawn. Source: Fawcett, An introduction to ROC analysis, Pattern
    Recognition Letters 27 (2006) 861-874.
    """
    good, bad = _by_score(scores, positive, counts)
    below = np.cumsum(bad, axis=1) - bad
    area = (good * (below + bad / 2)).sum(axis=1)
    return _divided(area, good.sum(axis=1) * bad.sum(axis=1))


def average_precision(scores: F64, positive: npt.NDArray[np.bool_], counts: Counts) -> F64:
    """Mean over positives of the precision among all that score as high or higher; NaN where no positive was drawn."""
    good, bad = _by_score(-scores, positive, counts)
    hits, shown = np.cumsum(good, axis=1), np.cumsum(good + bad, axis=1)
    precision = np.divide(hits, shown, out=np.zeros_like(hits), where=shown > 0)
    return _divided((good * precision).sum(axis=1), good.sum(axis=1))


def _by_score(scores: F64, positive: npt.NDArray[np.bool_], counts: Counts) -> tuple[F64, F64]:
    """Counts of positives and of negatives at each different score, lowest first: shape (B, scores)."""
    order = np.argsort(scores, kind="stable")
    _, starts = np.unique(scores[order], return_index=True)
    drawn = counts[:, order]
    good = np.add.reduceat(drawn * positive[order], starts, axis=1)
    return good, np.add.reduceat(drawn, starts, axis=1) - good


def over_classes(each: list[F64]) -> F64:
    """Mean over the classes that could be judged in a draw: from arrays of shape (B,) to one; NaN where none could."""
    stacked = np.stack(each)
    known = np.isfinite(stacked)
    return _divided(np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))


def edit_distance(one: str, other: str) -> int:
    """Fewest insertions, deletions and replacements of characters (Levenshtein 1966), a row of the table at a time."""
    if not one or not other:
        return len(one) + len(other)
    wanted = np.frombuffer(other.encode("utf-32-le", "surrogatepass"), np.uint32)
    places = np.arange(len(wanted) + 1)
    row = places.copy()
    for number, char in enumerate(one):
        best = np.minimum(row[:-1] + (wanted != ord(char)), row[1:] + 1)
        # An insertion costs 1 more than its left neighbour: a running minimum once each place is set back by its own.
        row = np.minimum.accumulate(np.concatenate([[number + 1], best]) - places) + places
    return int(row[-1])


def _divided(above: F64, below: F64) -> F64:
    return np.asarray(np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0), np.float64)
