"""Layers that TensorFlow's Keras 2 made of plain functions (x + 1, tf.reshape, x[:, 0]), by keras.ops.

Imported only once Keras is there, with its backend chosen.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from lepton_edge.errors import UnsupportedOperatorError

Function = Callable[..., Any]


def _reshape(x: Any, shape: Sequence[int]) -> Any:
    return ops.reshape(x, tuple(shape))


def _transpose(x: Any, perm: Sequence[int] | None = None) -> Any:
    return ops.transpose(x, perm)


def _reduction(function: Function) -> Function:
    def reduce(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return function(x, axis=tuple(axis) if isinstance(axis, list) else axis, keepdims=bool(keepdims))

    return reduce


def _clip(x: Any, clip_value_min: float, clip_value_max: float) -> Any:
    return ops.clip(x, clip_value_min, clip_value_max)


def _concat(x: Any, axis: int) -> Any:
    return ops.concatenate(x, axis=axis)


def _matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    left = ops.swapaxes(a, -1, -2) if transpose_a else a
    return ops.matmul(left, ops.swapaxes(b, -1, -2) if transpose_b else b)


def _cast(x: Any, dtype: str) -> Any:
    return ops.cast(x, dtype)


def _pad(x: Any, paddings: Sequence[Sequence[int]], mode: str = "CONSTANT", constant_values: float = 0) -> Any:
    values = constant_values if mode.lower() == "constant" else None
    return ops.pad(x, paddings, mode=mode.lower(), constant_values=values)


def _softmax(logits: Any, axis: int | None = -1) -> Any:
    return ops.softmax(logits, axis=-1 if axis is None else axis)


def _binary(function: Function) -> Function:
    def of_two(x: Any, y: Any) -> Any:
        return function(x, y)

    return of_two


def _getitem(x: Any, slice_spec: Any) -> Any:
    return x[_slices(slice_spec)]


def _slices(spec: Any) -> Any:
    if isinstance(spec, list):
        return tuple(_slices(part) for part in spec)
    if isinstance(spec, Mapping):
        if "value" in spec:
            return ... if spec["value"] == "..." else spec["value"]
        return slice(spec.get("start"), spec.get("stop"), spec.get("step"))
    return spec


FUNCTIONS: Mapping[str, Function] = {
    **dict.fromkeys(("__operators__.add", "math.add"), _binary(ops.add)),
    **dict.fromkeys(("__operators__.sub", "math.subtract"), _binary(ops.subtract)),
    **dict.fromkeys(("__operators__.mul", "math.multiply"), _binary(ops.multiply)),
    **dict.fromkeys(("__operators__.truediv", "math.divide", "math.truediv"), _binary(ops.true_divide)),
    **dict.fromkeys(("__operators__.pow", "math.pow"), _binary(ops.power)),
    **dict.fromkeys(("__operators__.neg", "math.negative"), ops.negative),
    **dict.fromkeys(("math.sigmoid", "nn.sigmoid"), ops.sigmoid),
    **dict.fromkeys(("math.tanh", "nn.tanh"), ops.tanh),
    **dict.fromkeys(("nn.silu", "nn.swish"), ops.silu),
    **dict.fromkeys(("linalg.matmul", "matmul"), _matmul),
    "math.maximum": _binary(ops.maximum),
    "math.minimum": _binary(ops.minimum),
    "math.exp": ops.exp,
    "math.log": ops.log,
    "math.sqrt": ops.sqrt,
    "math.rsqrt": ops.rsqrt,
    "math.square": ops.square,
    "math.abs": ops.absolute,
    "math.reduce_mean": _reduction(ops.mean),
    "math.reduce_sum": _reduction(ops.sum),
    "math.reduce_max": _reduction(ops.max),
    "math.reduce_min": _reduction(ops.min),
    "nn.relu": ops.relu,
    "nn.relu6": ops.relu6,
    "nn.softmax": _softmax,
    "nn.elu": ops.elu,
    "nn.softplus": ops.softplus,
    "clip_by_value": _clip,
    "reshape": _reshape,
    "transpose": _transpose,
    "concat": _concat,
    "expand_dims": ops.expand_dims,
    "compat.v1.squeeze": lambda x, axis=None: ops.squeeze(x, axis),
    "squeeze": lambda x, axis=None: ops.squeeze(x, axis),
    "cast": _cast,
    "compat.v1.pad": _pad,
    "identity": lambda x: x,
    "__operators__.getitem": _getitem,
}
"""By TensorFlow's name of the function."""


class FunctionLayer(keras.layers.Layer):  # type: ignore[misc]
    """One call of a function, with its constants."""

    def __init__(self, function: str, arguments: Mapping[str, Any] | None = None, **settings: Any) -> None:
        """`arguments`: constants by name; {"tensor": i} is the i-th input."""
        super().__init__(**settings)
        if function not in FUNCTIONS:
            raise UnsupportedOperatorError(
                f"layer {self.name!r} calls TensorFlow's {function!r}, which has no Keras 3 form here",
                operator=function,
            )
        self._call = FUNCTIONS[function]
        self._arguments = dict(arguments or {})

    def call(self, inputs: Any) -> Any:
        tensors = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        placed = {key: value["tensor"] for key, value in self._arguments.items() if _is_place(value)}
        constants = {key: value for key, value in self._arguments.items() if not _is_place(value)}
        named = {key: tensors[place] for key, place in placed.items()}
        first = [tensor for place, tensor in enumerate(tensors) if place not in placed.values()]
        return self._call(first[0] if len(first) == 1 else first, **named, **constants)


def _is_place(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"tensor"}


LEGACY_LAYERS: Mapping[str, type] = {"TFOpLambda": FunctionLayer, "SlicingOpLambda": FunctionLayer}
