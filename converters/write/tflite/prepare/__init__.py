"""What is done to a graph before it is lowered: operators that TFLite has no word for, written in others."""

from collections.abc import Callable

import onnx_ir as ir

from converters.graph.canonical.infer import infer
from converters.graph.canonical.names import name_all
from converters.graph.canonical.table import PASSES, run_passes
from converters.write.tflite.prepare.bodies import has_body, write_out
from converters.write.tflite.prepare.computed import has_computed_scale, spell_out
from converters.write.tflite.prepare.spectra import is_transform, multiply_out
from converters.write.tflite.prepare.trips import is_short, unroll

__all__ = ["prepared"]

_ROUNDS = 8
"""Bodies hold operators with bodies; ONNX's own nest three deep."""
_SETTLING = {
    "drop_dead", "constants_to_initialisers", "fold_sizes", "fold_constants", "inline_ifs", "unroll_loops",
    "remove_identities", "remove_neutral", "share_constants", "merge_equal",
}  # fmt: skip
"""Passes that fold what became constant, and leave the form of everything else to what planned it."""

Step = tuple[Callable[[ir.Node], bool], Callable[[ir.Node], bool]]
_STEPS: tuple[Step, ...] = (
    (has_computed_scale, spell_out),
    (is_short, unroll),
    (is_transform, multiply_out),
    (has_body, write_out),
)


def prepared(model: ir.Model) -> ir.Model:
    """Write what has no row in the table of lowerings, and is made of others, in those.

    That is: QuantizeLinear and DequantizeLinear whose scales are computed; Scan of few trips; DFT and
    STFT of known sizes; operators that ONNX defines by a function.

    Args:
        model: canonical, float or QDQ; it is not changed.

    Returns:
        A copy with the same inputs and outputs, or the model itself where there is nothing to do.
    """
    if not any(applies(node) for node in model.graph for applies, _ in _STEPS):
        return model
    made = model.clone()
    settling = [one for one in PASSES if one.name in _SETTLING]
    for _ in range(_ROUNDS):
        if not _round(made):
            break
        infer(made, everything=True)
        run_passes(made, settling)
    name_all(made)
    return made


def _round(model: ir.Model) -> bool:
    changed = False
    for node in list(model.graph):
        for applies, apply in _STEPS:
            if node.graph is not None and applies(node):
                changed |= apply(node)
    return changed
