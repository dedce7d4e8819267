"""Metrics that are made for a conversion: of characters that the user names, and of the user's own function."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from converters.data.call import load_function
from converters.data.targets import Target
from converters.measure import ranking
from converters.measure.intervals import F64, Counts
from converters.measure.metric import COSTLY_RESAMPLES, Answered, Collected, Metric, Row, Rows, first_of, ratios
from lepton_edge.bundle.binding import Array
from lepton_edge.errors import DataError
from lepton_edge.preprocess.postprocess import ctc_text
from lepton_edge.preprocess.spec import Ctc


def character_errors(labels: Sequence[str], step: Ctc) -> Metric:
    """The character error rate of greedy CTC decoding.

    Edits needed to turn what was read into what is written, over the characters written; can be above 1.

    Args:
        labels: characters by class index.
        step: how classes become characters.
    """

    def row(sample: Answered) -> Row:
        if not isinstance(sample.target, str):
            raise DataError(f"{sample.where}: its label is no text")
        try:
            read = ctc_text(first_of(sample.outputs), labels, step)
        except DataError as error:
            raise DataError(f"metric cer: {sample.where}: {error}") from error
        return np.array([ranking.edit_distance(read, sample.target), len(sample.target)], np.float64)

    return Metric("cer", ("texts",), row, ratios, higher_is_better=False)


def user_metric(name: str) -> Metric:
    """A metric from module:function(outputs, labels) -> float.

    It gets the outputs of all samples, stacked (an array, or by name where the model has several; a list where shapes
    differ), and as many labels. Set `function.higher_is_better = False` where less is better.

    Raises:
        DataError: it cannot be imported.
    """
    function = load_function(name)

    def values(rows: Rows, counts: Counts) -> F64:
        kept = [row for row in rows if isinstance(row, Collected)]
        return np.array([_called(function, name, _repeated(kept, one)) for one in counts])

    return Metric(
        name,
        (),
        lambda sample: Collected(sample.outputs, sample.target),
        values,
        unit="own",
        higher_is_better=bool(getattr(function, "higher_is_better", True)),
        every_output=True,
        resamples=lambda _samples, _width: COSTLY_RESAMPLES,
    )


def _repeated(rows: Sequence[Collected], counts: npt.NDArray[np.float64]) -> list[Collected]:
    return [rows[int(place)] for place in np.repeat(np.arange(len(rows)), counts.astype(np.int64))]


def _called(function: Callable[..., object], name: str, rows: Sequence[Collected]) -> float:
    outputs = {key: _joined([row.outputs[key] for row in rows]) for key in rows[0].outputs}
    try:
        given = function(_first_or_all(outputs), _labels_of([row.target for row in rows]))
        return float(given)  # type: ignore[arg-type]
    except Exception as cause:
        raise DataError(f"metric {name}: {type(cause).__name__}: {cause}") from cause


def _first_or_all(outputs: Mapping[str, object]) -> object:
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _joined(arrays: Sequence[Array]) -> object:
    if len({array.shape[1:] for array in arrays}) > 1:
        return list(arrays)
    return np.concatenate([np.atleast_1d(array) for array in arrays])


def _labels_of(targets: Sequence[Target]) -> object:
    if isinstance(targets[0], dict):
        by_name = {key: _joined([t[key] for t in targets if isinstance(t, dict)]) for key in targets[0]}
        return _first_or_all(by_name)
    return None if targets[0] is None else np.array(targets)
