"""Random nets of what real ones are made of: kernels on images, attention, shuffles, joins, flattened heads."""

import numpy as np
import onnx

from tests.converters.tflite.random_graph import LENGTH, Net, Shape
from tests.converters.tflite.random_more import KINDS

MOST_NODES = 20
OTHER_LENGTH = 9


def random_net(seed: int) -> onnx.ModelProto:
    """One net, of 3 to about 20 operators; the same seed gives the same one.

    Inputs are images (batch, channels, height, width), series (batch, channels, time), sentences (batch, open length,
    width) or rows (batch, width); a third of the nets has two.
    """
    net = Net(seed)
    batch = "batch" if net.chance(0.75) else 1
    for number in range(2 if net.chance(0.3) else 1):
        net.feed(f"x{number}", _start(net), batch=batch)
    tries = 0
    while len(net.nodes) < 3 + seed % (MOST_NODES - 2) and tries < 100:
        tries += 1
        _step(net)
    return net.model()


def _start(net: Net) -> Shape:
    side = net.pick([6, 8, 9])
    return (
        [(1, net.pick([3, 4, 8]), side, net.pick([side, side + 2]))] * 5
        + [(1, net.pick([3, 4]), net.pick([12, 16])), (1, LENGTH, net.pick([4, 6])), (1, net.pick([10, 16]))]
    )[net.pick(range(8))]


def _step(net: Net) -> None:
    source = net.source()
    shape = net.shapes[source]
    fitting = [kind for fits, kind in KINDS if len(shape) > 1 and fits(shape)]
    if fitting:
        fitting[net.rng.integers(len(fitting))](net, source, shape)


def random_inputs(model: onnx.ModelProto, seed: int, *, batch: int = 1, length: int = LENGTH) -> dict[str, np.ndarray]:
    """What it takes; fixed sizes stay what they are."""
    rng = np.random.default_rng(seed)
    sizes = {"batch": batch, "length": length}
    found = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        shape = [sizes[dim.dim_param] if dim.dim_param else dim.dim_value for dim in dims]
        found[value.name] = rng.standard_normal(shape).astype(np.float32)
    return found
