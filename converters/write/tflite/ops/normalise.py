"""Normalisations, written out: means, squares and a reciprocal root."""

from collections.abc import Sequence

import numpy as np

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import Formula, product, real
from converters.write.tflite.program import Fixed, Together, Value
from converters.write.tflite.table import lowers


def standardised(
    low: Lowering, x: Value, axes: Sequence[int], epsilon: float, out: Value | None = None
) -> tuple[Value, Value, Value]:
    """(x - mean) / sqrt(variance + epsilon) over axes, with the mean and the reciprocal root."""
    formula = Formula(low)
    mean = formula.reduce("MEAN", x, axes)
    centred = formula.sub(x, mean)
    variance = formula.reduce("MEAN", formula.mul(centred, centred), axes)
    root = formula.unary("RSQRT", formula.add(variance, epsilon))
    return formula.mul(centred, root, out), mean, root


def _scaled(low: Lowering, x: Value, scale: Value | None, shift: Value | None, out: Value) -> None:
    """X scale + shift."""
    formula = Formula(low)
    if scale is None and shift is None:
        formula.same(x, out)
    elif scale is not None:
        scaled = formula.mul(x, scale, out if shift is None else None)
        if shift is not None:
            formula.add(scaled, shift, out)
    elif shift is not None:
        formula.add(x, shift, out)


def _floats(low: Lowering) -> Value:
    x = low.input(0)
    return x if x.dtype == "float32" else low.refuse(f"a normalisation of {x.dtype}")


@lowers("LayerNormalization", since=17)
def layer_normalization(low: Lowering) -> None:
    """Over the last axes, from `axis` on."""
    x = _floats(low)
    first = low.axis(-1, x.rank)
    normal, mean, root = standardised(low, x, range(first, x.rank), low.number("epsilon", 1e-5))
    _scaled(low, normal, low.input(1), low.optional(2), low.output())
    for index, made in ((1, mean), (2, root)):
        wanted = low.optional_output(index)
        if wanted is not None:
            Formula(low).same(made, wanted)


@lowers("RMSNormalization", since=23)
def rms_normalization(low: Lowering) -> None:
    """X / sqrt(mean(x^2) + epsilon) scale."""
    x, formula = _floats(low), Formula(low)
    axes = range(low.axis(-1, x.rank), x.rank)
    mean = formula.reduce("MEAN", formula.mul(x, x), axes)
    root = formula.unary("RSQRT", formula.add(mean, low.number("epsilon", 1e-5)))
    formula.mul(formula.mul(x, root), low.input(1), low.output())


@lowers("InstanceNormalization", since=6)
def instance_normalization(low: Lowering) -> None:
    x, formula = _floats(low), Formula(low)
    normal, _, _ = standardised(low, x, range(2, x.rank), low.number("epsilon", 1e-5))
    scale, shift = (formula.row(low.input(index), x.rank) for index in (1, 2))
    _scaled(low, normal, scale, shift, low.output())


@lowers("GroupNormalization", since=18)
def group_normalization(low: Lowering) -> None:
    """Scale and shift by group (opset 18) or by channel (21)."""
    x, formula, groups = _floats(low), Formula(low), low.integer("num_groups", 1)
    channels = x.shape[1]
    if not isinstance(channels, int) or channels % groups:
        low.refuse(f"{channels} channels in {groups} groups")
    shape = (x.shape[0], groups, channels // groups, product(x.shape[2:], low))
    normal, _, _ = standardised(low, low.reshape(x, shape), (2, 3), low.number("epsilon", 1e-5))
    scale, shift = low.input(1), low.input(2)
    if scale.shape == (groups,) and groups != channels:
        made = low.like(normal)
        _scaled(low, normal, formula.row(scale, 4), formula.row(shift, 4), made)
        low.reshape(made, x.shape, low.output())
        return
    flat = low.reshape(normal, x.shape)
    _scaled(low, flat, formula.row(scale, x.rank), formula.row(shift, x.rank), low.output())


@lowers("BatchNormalization", since=9)
def batch_normalization(low: Lowering) -> None:
    """One factor and one addend a channel."""
    x, formula, epsilon = _floats(low), Formula(low), low.number("epsilon", 1e-5)
    if low.integer("training_mode", 0) or any(low.optional_output(index) for index in range(1, 5)):
        low.refuse("training")
    if all(low.input(index).constant for index in range(1, 5)):
        scale, shift, mean, variance = (real(low, index) for index in range(1, 5))
        factor = scale / np.sqrt(variance + epsilon)
        factors = low.constant(factor.astype(np.float32), what="factor")
        addends = low.constant((shift - mean * factor).astype(np.float32), what="addend")
    else:
        root = formula.unary("RSQRT", formula.add(low.input(4), epsilon))
        factors = formula.mul(low.input(1), root)
        addends = formula.sub(low.input(2), formula.mul(low.input(3), factors))
    rank, axis = x.rank, min(1, x.rank - 1)
    _scaled(low, x, formula.row(factors, rank, axis), formula.row(addends, rank, axis), low.output())


@lowers("MeanVarianceNormalization", since=9)
def mean_variance_normalization(low: Lowering) -> None:
    """(x - mean) / sqrt(mean(x^2) - mean^2), with 1e-9 beside the root (ONNX operators, function body)."""
    x, formula = _floats(low), Formula(low)
    axes = [axis % x.rank for axis in low.integers("axes", (0, 2, 3))]
    mean = formula.reduce("MEAN", x, axes)
    centred = formula.sub(x, mean)
    deviation = formula.unary("SQRT", formula.reduce("MEAN", formula.mul(centred, centred), axes))
    formula.div(centred, formula.add(deviation, 1e-9), low.output())


@lowers("LpNormalization")
def lp_normalization(low: Lowering) -> None:
    """X / norm; 0 where the norm is 0, as x is then (ONNX operators, LpNormalization, opset 22)."""
    x, formula, order = _floats(low), Formula(low), low.integer("p", 2)
    axis = low.axis(-1, x.rank)
    powers = formula.mul(x, x) if order == 2 else formula.unary("ABS", x)
    norm = formula.power(formula.reduce("SUM", powers, [axis]), 1 / order)
    formula.div(x, formula.maximum(norm, float(np.finfo(np.float32).tiny)), low.output())


@lowers("LRN")
def lrn(low: Lowering) -> None:
    """LOCAL_RESPONSE_NORMALIZATION, or by a matrix of ones where the window is even or the rank is not 4."""
    x, size = _floats(low), low.integer("size", 1)
    alpha, beta, bias = low.number("alpha", 1e-4), low.number("beta", 0.75), low.number("bias", 1.0)
    if x.rank == 4 and size % 2:
        options = {"radius": size // 2, "bias": bias, "alpha": alpha / size, "beta": beta}
        low.emit("LOCAL_RESPONSE_NORMALIZATION", [x], [low.output()], options, rule=Together(last=1))
        return
    channels = x.shape[1]
    if not isinstance(channels, int) or channels > _MOST_CHANNELS:
        low.refuse(f"a window of {size} over {channels} channels")
    formula = Formula(low)
    squares = low.reshape(formula.mul(x, x), (x.shape[0], channels, product(x.shape[2:], low)))
    offset = np.arange(channels)[:, None] - np.arange(channels)[None, :]
    inside = (-offset <= size - 1 - (size - 1) // 2) & (offset <= (size - 1) // 2)
    window = low.constant((inside * (alpha / size)).astype(np.float32), what="window")
    sums = low.like(squares)
    low.emit("FULLY_CONNECTED", [squares, window, None], [sums], {"keep_num_dims": True}, rule=_CHANNELS_LAST)
    wide = low.reshape(sums, x.shape)
    formula.div(x, formula.binary("POW", formula.add(wide, bias), beta), low.output())


_MOST_CHANNELS = 4096
_CHANNELS_LAST = Fixed({0: (0, 2, 1)}, {0: (0, 2, 1)})
