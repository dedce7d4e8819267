"""The passes in their order, and the loop that runs them until none finds anything to do."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import onnx_ir as ir

from converters.graph.canonical.activations import gelu, hard_sigmoid, hard_swish
from converters.graph.canonical.affine import batch_norm_to_affine, fold_affine
from converters.graph.canonical.chains import merge_affine
from converters.graph.canonical.clips import leaky_relu, plain_clips
from converters.graph.canonical.constants import constants_to_initialisers, fold_constants, share_constants
from converters.graph.canonical.control import inline_ifs, unroll_loops
from converters.graph.canonical.convs import explicit_windows, merge_pads, one_to_two_d
from converters.graph.canonical.dead import constants_right, drop_dead, merge_equal, remove_identities, remove_neutral
from converters.graph.canonical.infer import infer
from converters.graph.canonical.layernorm import fold_layer_norm_affine, layer_norm
from converters.graph.canonical.linear import flat_matmul_bias, matmul_to_gemm, plain_gemm, unfold_gemm
from converters.graph.canonical.pieces import take_pieces_first
from converters.graph.canonical.products import absorb_flattened_transpose, einsum_to_matmul
from converters.graph.canonical.recurrent import drop_zero_states
from converters.graph.canonical.reshapes import merge_views, remove_no_ops, transpose_to_reshape
from converters.graph.canonical.sequences import unpack_sequences
from converters.graph.canonical.shuffles import pixel_shuffle, spatial_mean
from converters.graph.canonical.sizes import fold_sizes
from converters.graph.canonical.spreads import drop_spreads, pad_for_constants
from converters.graph.canonical.squeezes import sink_squeezes
from converters.graph.canonical.transposes import hoist_over_pad, place_transposes
from converters.graph.canonical.turns import one_transpose

MAX_ROUNDS = 24
"""A cap, not a plan: real nets settle in three to six rounds, and a graph that has not settled is still right."""


class Pass(NamedTuple):
    """One rewriting that keeps the outputs.

    Attributes:
        name: how tests and messages call it.
        run: changes the model in place and returns whether it did; its docstring says what it requires and ensures.
    """

    name: str
    run: Callable[[ir.Model], bool]


def _named(*functions: Callable[[ir.Model], bool]) -> tuple[Pass, ...]:
    return tuple(Pass(function.__name__, function) for function in functions)


PASSES = _named(
    drop_dead,
    constants_to_initialisers,
    fold_sizes,
    fold_constants,
    inline_ifs,
    unroll_loops,
    unpack_sequences,
    remove_identities,
    constants_right,
    remove_neutral,
    share_constants,
    merge_equal,
    drop_spreads,
    pad_for_constants,
    drop_zero_states,
    batch_norm_to_affine,
    explicit_windows,
    merge_pads,
    one_to_two_d,
    fold_affine,
    plain_gemm,
    matmul_to_gemm,
    flat_matmul_bias,
    unfold_gemm,
    absorb_flattened_transpose,
    einsum_to_matmul,
    plain_clips,
    leaky_relu,
    gelu,
    hard_swish,
    hard_sigmoid,
    layer_norm,
    fold_layer_norm_affine,
    merge_affine,
    merge_views,
    remove_no_ops,
    transpose_to_reshape,
    take_pieces_first,
    one_transpose,
    sink_squeezes,
    place_transposes,
    hoist_over_pad,
    spatial_mean,
    pixel_shuffle,
)


def run_passes(model: ir.Model, passes: Sequence[Pass] = PASSES, *, rounds: int = MAX_ROUNDS) -> int:
    """Run every pass in turn, again and again until none changes anything or `rounds` is reached.

    Types and shapes are filled in after each pass that changed something. Returns the number of rounds.
    """
    for done in range(rounds):
        changed = False
        for item in passes:
            if item.run(model):
                infer(model, everything=False)
                changed = True
        if not changed:
            return done + 1
        infer(model, everything=True)
    return rounds
