"""Pixels to channels and back."""

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.program import Fixed, Value, nhwc
from converters.write.tflite.table import lowers

_TYPES = {"float32", "uint8", "int8", "int32", "int64"}


@lowers("DepthToSpace", int8=True, moves=True)
def depth_to_space(low: Lowering) -> None:
    """DEPTH_TO_SPACE is DCR; CRD orders the channels otherwise, which the operator before can mostly do at no cost."""
    x, block = low.input(0), low.integer("blocksize", 1)
    channels = x.shape[1]
    if not isinstance(channels, int) or channels % block**2:
        low.refuse(f"{channels} channels in blocks of {block}")
    if low.text("mode", "DCR") == "CRD":
        kept = channels // block**2
        split = low.reshape(x, (x.shape[0], kept, block**2, *x.shape[2:]))
        x = low.reshape(low.transpose(split, (0, 2, 1, 3, 4)), x.shape)
    _emit(low, "DEPTH_TO_SPACE", x, block)


@lowers("SpaceToDepth", int8=True, moves=True)
def space_to_depth(low: Lowering) -> None:
    _emit(low, "SPACE_TO_DEPTH", low.input(0), low.integer("blocksize", 1))


def _emit(low: Lowering, code: str, x: Value, block: int) -> None:
    if x.dtype not in _TYPES:
        low.refuse(f"{code} of {x.dtype}")
    low.emit(code, [x], [low.output()], {"block_size": block}, rule=Fixed({0: nhwc(4)}, {0: nhwc(4)}))
