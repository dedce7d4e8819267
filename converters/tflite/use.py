"""One operator together with its tensors, for rules that look at both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.tflite.model import DType, Operator, Option, Quantization, Tensor
from converters.tflite.options import defaults

QUANTIZED: frozenset[DType] = frozenset({"int4", "int8", "uint8", "int16"})
"""Types whose elements stand for real numbers where a tensor has scales."""


@dataclass(frozen=True, eq=False)
class Use:
    """One operator with its tensors.

    Attributes:
        operator: as in the model.
        inputs: None for those that are absent.
        outputs: likewise.
    """

    operator: Operator
    inputs: Sequence[Tensor | None]
    outputs: Sequence[Tensor | None]

    @classmethod
    def of(cls, operator: Operator, tensors: Sequence[Tensor]) -> "Use":
        """Look up the tensors of `operator` among those of its subgraph; indices must be in range."""
        return cls(
            operator,
            [tensors[index] if index >= 0 else None for index in operator.inputs],
            [tensors[index] if index >= 0 else None for index in operator.outputs],
        )

    @property
    def code(self) -> str:
        return self.operator.code

    def input(self, index: int) -> Tensor | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def output(self, index: int = 0) -> Tensor | None:
        return self.outputs[index] if index < len(self.outputs) else None

    def option(self, name: str) -> Option:
        """A field of the options: the operator's own, else what would be written for it."""
        options = self.operator.options
        return options[name] if name in options else defaults(self.code)[name]

    def number(self, name: str) -> int:
        """An integer field of the options."""
        value = self.option(name)
        if not isinstance(value, int):
            raise TypeError(f"{name} of {self.code} is {value!r}")
        return value

    def types(self, *wanted: DType | None) -> bool:
        """Whether the first inputs are of these types; None stands for any."""
        found = [None if one is None else one.dtype for one in map(self.input, range(len(wanted)))]
        return all(want in (None, have) for want, have in zip(wanted, found, strict=True))

    def makes(self, dtype: DType) -> bool:
        """Whether the first output is of this type."""
        made = self.output()
        return made is not None and made.dtype == dtype

    def rank(self, index: int = 0) -> int:
        one = self.input(index)
        return 0 if one is None else len(one.shape)

    def scales(self, index: int) -> Quantization | None:
        one = self.input(index)
        return None if one is None else one.quantization

    def per_channel(self, index: int) -> bool:
        scales = self.scales(index)
        return scales is not None and scales.per_channel

    def hybrid(self, weights: int = 1) -> bool:
        """Float activations with int8 weights."""
        one = self.input(weights)
        return self.types("float32") and one is not None and one.dtype == "int8" and self.makes("float32")

    def constant(self, index: int) -> npt.NDArray[np.generic] | None:
        """The data of a constant input, read."""
        one = self.input(index)
        if one is None or one.data is None:
            return None
        return one.data if isinstance(one.data, np.ndarray) else one.data.numpy()
