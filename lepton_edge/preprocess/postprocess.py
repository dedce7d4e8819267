"""The steps from a model's output to an answer, as pure functions over the whole batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lepton_edge.bundle.binding import Array
from lepton_edge.errors import DataError
from lepton_edge.preprocess.spec import Argmax, Ctc, Labels, Softmax, Step, TopK, op_name

Indices = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

SPACE = "<space>"
"""A label that stands for a blank between words: a file of labels has one a line and cannot hold it."""


@dataclass(frozen=True)
class Answer:
    """What is known of an output so far.

    Attributes:
        scores: the output, shape (samples, ..., classes); after argmax (samples, ...), after topk (samples, ..., k).
        indices: class indices behind `scores`, of its shape; None before argmax or topk.
        names: labels of `indices`, nested alike; None before `labels`.
        texts: one a sample; None before `ctc`.
    """

    scores: Array
    indices: Indices | None = None
    names: object = None
    texts: list[str] | None = None


def postprocess(output: Array, steps: Sequence[Step], labels: Sequence[str] = ()) -> Answer:
    """Run the postprocess steps.

    Args:
        output: one of the model's, the first axis the samples.
        steps: as in the manifest.
        labels: by class index.

    Raises:
        DataError: a step that does not belong here or is out of order, or labels that do not suffice.
    """
    answer = Answer(output)
    for number, step in enumerate(steps, start=1):
        try:
            answer = _step(answer, step, labels)
        except DataError as error:
            raise DataError(f"postprocess {number} ({op_name(step)}): {error}") from error
    return answer


def _step(answer: Answer, step: Step, labels: Sequence[str]) -> Answer:
    if isinstance(step, Labels):
        if answer.indices is None:
            raise DataError("there are no class indices yet: put argmax or topk before it")
        return replace(answer, names=named(answer.indices, labels))
    if answer.indices is not None or answer.texts is not None:
        raise DataError("the scores have become an answer already")
    if answer.scores.ndim < 2:
        raise DataError(f"an output of shape {list(answer.scores.shape)} has no classes")
    if isinstance(step, Softmax):
        return replace(answer, scores=softmax(answer.scores).astype(np.float32))
    if isinstance(step, Argmax):
        best = np.argmax(answer.scores, axis=-1)
        scores = np.take_along_axis(answer.scores, best[..., np.newaxis], axis=-1)[..., 0]
        return replace(answer, scores=scores, indices=best.astype(np.int64))
    if isinstance(step, TopK):
        return _topk(answer, step.k)
    if isinstance(step, Ctc):
        return replace(answer, texts=[ctc_text(one, labels, step) for one in answer.scores])
    raise DataError("it works on samples: it belongs under [[step]]")


def softmax(scores: Array) -> F64:
    """exp(x) / sum(exp(x)) along the last axis, in float64."""
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float64)


def _topk(answer: Answer, k: int) -> Answer:
    """The best k, best first; of equal scores the lower index first. All of them where there are fewer."""
    order = np.argsort(-answer.scores.astype(np.float64), axis=-1, kind="stable")[..., :k]
    return replace(answer, scores=np.take_along_axis(answer.scores, order, axis=-1), indices=order.astype(np.int64))


def named(indices: Indices, labels: Sequence[str]) -> object:
    """Class indices as labels, in nested lists of the same shape.

    Raises:
        DataError: an index without a label.
    """
    if not labels:
        raise DataError("the bundle carries no labels: convert with --labels")
    if indices.size and int(indices.max()) >= len(labels):
        raise DataError(f"class {int(indices.max())} has no label, there are {len(labels)}")
    return np.asarray(labels, dtype=object)[indices].tolist()


def ctc_text(scores: Array, labels: Sequence[str], step: Ctc) -> str:
    """Greedy CTC decoding of one sample.

    Args:
        scores: shape (steps, classes), or (steps, 1, classes) and the like.
        labels: by class index, the blank among them, or without it (then the classes behind the blank move up).
        step: which class is the blank, and what stands between labels.

    Raises:
        DataError: the shape or the number of labels does not fit.

    Source: Graves et al., Connectionist temporal classification, ICML 2006, section 3.2 (best path decoding).
    """
    classes = scores.shape[-1] if scores.ndim else 0
    steps = scores.reshape(-1, classes) if classes else scores
    if scores.ndim < 2 or steps.shape[0] != max(scores.shape[:-1]):
        raise DataError(f"an output of shape {list(scores.shape)} for one sample is no list of steps by classes")
    blank = classes - 1 if step.blank == -1 else step.blank
    if blank >= classes:
        raise DataError(f"the blank is class {blank}, but the model has {classes} classes")
    if len(labels) not in {classes, classes - 1}:
        raise DataError(f"{len(labels)} labels for {classes} classes (the blank may be left out of the labels)")
    labels = [" " if label == SPACE else label for label in labels]
    names = labels if len(labels) == classes else [*labels[:blank], "", *labels[blank:]]
    path = np.argmax(steps, axis=-1)
    starts = np.concatenate([[True], path[1:] != path[:-1]])
    return step.joiner.join(names[int(index)] for index in path[starts & (path != blank)])
