"""Hostile by their form: legal graphs whose shape trips rewriting, though their numbers suit eight bits."""

import numpy as np
from onnx import GraphProto, TensorProto, helper, numpy_helper

from tests.converters.hostile_net import EASY, Arrays, Case, Net, normal_draw
from tests.converters.hostile_ranges import PLANE, SIDE, WIDE, plane_net, vector_net

HIDDEN = 32


def finish(net: Net, x: str, name: str, why: str, *, width: int = WIDE, external: bool = False) -> Case:
    """Mean over the plane, a head, and the case; its numbers are no excuse."""
    net.head(net.pooled(net.relu(x)), width, floor=EASY)
    return net.case(name, why, converts=True, external=external)


def lstm_step() -> Case:
    """One step; the samples' states are those that the float net reaches on sequences."""
    net = Net(
        30,
        {"x": ["batch", 16], "h": ["batch", HIDDEN], "c": ["batch", HIDDEN]},
        lambda rng, count: {
            "x": normal_draw(16)(rng, count)["x"],
            "h": np.tanh(rng.standard_normal((count, HIDDEN))).astype(np.float32),
            "c": (2 * rng.standard_normal((count, HIDDEN))).astype(np.float32),
        },
    )
    front = net.const([0], np.int64)
    parts = [net.add("Unsqueeze", name, front) for name in ("x", "h", "c")]
    weights = (net.normal(1, 4 * HIDDEN, 16, fan=16), net.normal(1, 4 * HIDDEN, HIDDEN, fan=HIDDEN))
    recurrent = [*map(net.const, weights), net.const(net.normal(1, 8 * HIDDEN, gain=0.1))]
    net.several("LSTM", [parts[0], *recurrent, "", *parts[1:]], ["", "hs", "cs"], hidden_size=HIDDEN)
    for name in ("h", "c"):
        net.add("Squeeze", f"{name}s", front, out=f"{name}_next")
    net.head(net.dense(net.relu(net.dense("h_next", HIDDEN, 64)), 64, 64), 64)
    net.outputs |= {"h_next": ["batch", HIDDEN], "c_next": ["batch", HIDDEN]}
    return net.case("lstm-step", "an LSTM step whose state is fed back", converts=True)


def _branch(net: Net, name: str, x: str, wide: int) -> GraphProto:
    weight = numpy_helper.from_array(net.normal(wide, wide, 3, 3, fan=wide * 9), f"{name}_w")
    node = helper.make_node("Conv", [x, f"{name}_w"], [f"{name}_y"], f"{name}_conv", pads=[1, 1, 1, 1])
    value = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["batch", wide, SIDE, SIDE])
    return helper.make_graph([node], name, [], [value], [weight])


def if_around_conv() -> Case:
    net = plane_net(31)
    x = net.relu(net.conv("x", WIDE, WIDE))
    level = net.add("ReduceMean", "x", axes=[0, 1, 2, 3], keepdims=0)
    positive = net.add("Greater", level, net.const(0.0))
    branches = {f"{kind}_branch": _branch(net, kind, x, WIDE) for kind in ("then", "else")}
    return finish(net, net.add("If", positive, **branches), "if-around-conv", "a branch that depends on the data")


def loop() -> Case:
    net = vector_net(32)
    x = net.relu(net.dense("x", 64, 64))
    weight, bias = net.const(net.normal(64, 64, fan=64)), net.const(net.normal(64, gain=0.1))
    vector = helper.make_tensor_value_info("v_in", TensorProto.FLOAT, ["batch", 64])
    after = helper.make_tensor_value_info("v_out", TensorProto.FLOAT, ["batch", 64])
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    going = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go_in", "go_out")]
    body = helper.make_graph(
        [
            helper.make_node("Gemm", ["v_in", weight, bias], ["v_mid"], "loop_gemm"),
            helper.make_node("Relu", ["v_mid"], ["v_out"], "loop_relu"),
            helper.make_node("Identity", ["go_in"], ["go_out"], "loop_go"),
        ],
        "body",
        [count, going[0], vector],
        [going[1], after],
    )
    x = net.add("Loop", net.const(3, np.int64), net.const(True, np.bool_), x, body=body)  # noqa: FBT003 - a tensor
    net.head(net.dense(x, 64, 64), 64, floor=EASY)
    return net.case("loop", "a Loop whose body reads weights from outside", converts=True)


def shared_weight() -> Case:
    net = plane_net(33)
    weight, bias = net.const(net.normal(WIDE, WIDE, 3, 3, fan=WIDE * 9)), net.const(net.normal(WIDE))
    one = net.add("Conv", "x", weight, bias, pads=[1, 1, 1, 1])
    two = net.add("Conv", net.add("Mul", net.relu(one), net.const(0.1)), weight, bias, pads=[1, 1, 1, 1])
    turned = net.add("Add", two, net.add("Transpose", one, perm=[0, 1, 3, 2]))
    return finish(net, turned, "shared-weight", "one weight and one bias read by two convolutions of unequal inputs")


def shared_scalar() -> Case:
    net = plane_net(34)
    two = net.const(2.0)
    x = net.add("Mul", net.conv("x", WIDE, WIDE), two)
    x = net.add("Clip", net.add("Add", x, two), net.add("Neg", two), two)
    x = net.add("Pow", net.conv(x, WIDE, WIDE), two)
    return finish(net, net.add("Div", x, two), "shared-scalar", "one scalar read by Mul, Add, Clip, Pow and Div")


def shared_bias() -> Case:
    net = plane_net(35)
    bias = net.const(net.normal(WIDE))
    weight = net.const(net.normal(WIDE, WIDE, 3, 3, fan=WIDE * 9))
    x = net.relu(net.add("Conv", "x", weight, bias, pads=[1, 1, 1, 1]))
    shift = net.add("Reshape", bias, net.const([1, WIDE, 1, 1], np.int64))
    x = net.add("Add", net.conv(x, WIDE, WIDE), shift)
    return finish(net, x, "shared-bias", "a bias that is an addend elsewhere")


def opset_7() -> Case:
    net = Net(36, {"x": PLANE}, normal_draw(WIDE, SIDE, SIDE), opset=7, ir_version=3)
    statistics = [np.ones(WIDE), net.normal(WIDE), net.normal(WIDE), net.rng.uniform(0.5, 2, WIDE)]
    x = net.add("BatchNormalization", net.conv("x", WIDE, WIDE), *map(net.const, statistics))
    x = net.add("Clip", x, min=0.0, max=6.0)
    x = net.add("Upsample", x, scales=[1.0, 1.0, 2.0, 2.0], mode="nearest")
    x = net.conv(x, WIDE, WIDE)
    return finish(net, x, "opset-7", "opset 7 and IR 3: limits and scales as attributes, weights as inputs")


def opset_9() -> Case:
    net = Net(37, {"x": PLANE}, normal_draw(WIDE, SIDE, SIDE), opset=9, ir_version=4)
    x = net.add("Pad", net.conv("x", WIDE, WIDE), pads=[0, 0, 1, 1, 0, 0, 1, 1])
    x = net.add("Upsample", x, net.const([1.0, 1.0, 2.0, 2.0]), mode="linear")
    x = net.add("Slice", x, axes=[2, 3], starts=[1, 1], ends=[-1, -1])
    return finish(net, net.conv(net.relu(x), WIDE, WIDE), "opset-9", "opset 9: Pad and Slice with attributes, Upsample")


def opset_11() -> Case:
    net = Net(38, {"x": PLANE}, normal_draw(WIDE, SIDE, SIDE), opset=11, ir_version=6)
    x = net.add("Clip", net.conv("x", WIDE, WIDE), net.const(0.0), net.const(6.0))
    gate = net.add("Softmax", net.add("GlobalAveragePool", x), axis=1)
    x = net.add("Mul", x, net.add("Mul", gate, net.const(float(WIDE))))
    x = net.add("Squeeze", net.add("Unsqueeze", net.conv(x, WIDE, WIDE), axes=[4]), axes=[4])
    return finish(net, x, "opset-11", "opset 11: Softmax that flattens, axes as attributes")


def external_data() -> Case:
    net = plane_net(39)
    x = net.conv(net.relu(net.conv("x", WIDE, WIDE)), WIDE, WIDE)
    return finish(net, x, "external-data", "weights in a file of their own", external=True)


def dynamic_plane() -> Case:
    net = Net(40, {"x": ["batch", WIDE, "height", "width"]}, normal_draw(WIDE, SIDE, SIDE))
    x = net.relu(net.conv(net.relu(net.conv("x", WIDE, WIDE)), WIDE, WIDE, strides=[2, 2]))
    ends = [net.const([index], np.int64) for index in (0, 2, 4)]
    half, full = net.add("Shape", x), net.add("Shape", "x")
    parts = net.add("Slice", half, ends[0], ends[1]), net.add("Slice", full, ends[1], ends[2])
    x = net.add(
        "Resize",
        x,
        "",
        "",
        net.add("Concat", *parts, axis=0),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    return finish(net, net.conv(x, WIDE, WIDE), "dynamic-plane", "height and width are free, and read back at run time")


def pixel_shuffle() -> Case:
    net = plane_net(41)
    x = net.add("DepthToSpace", net.conv("x", WIDE, 64), blocksize=2, mode="CRD")
    apart = net.add("Reshape", net.conv(x, 16, WIDE), net.const([-1, 2, 2, 8, 2 * SIDE, 2 * SIDE], np.int64))
    mixed = net.add("Transpose", apart, perm=[0, 3, 4, 1, 5, 2])
    x = net.add("Reshape", mixed, net.const([-1, 8, 4 * SIDE, 4 * SIDE], np.int64))
    return finish(net, net.conv(x, 8, WIDE), "pixel-shuffle", "depth to space, once as a node and once written out")


def conv_1d() -> Case:
    net = Net(42, {"x": ["batch", WIDE, 64]}, normal_draw(WIDE, 64))
    x = "x"
    for stride in (1, 2):
        weight = net.const(net.normal(WIDE, WIDE, 5, fan=WIDE * 5))
        x = net.relu(net.add("Conv", x, weight, net.const(net.normal(WIDE)), pads=[2, 2], strides=[stride]))
    x = net.add("MaxPool", x, kernel_shape=[2], strides=[2])
    net.head(net.add("ReduceMean", x, axes=[2], keepdims=0), WIDE, floor=EASY)
    return net.case("conv-1d", "convolution and pooling over one axis", converts=True)


def grouped() -> Case:
    net = plane_net(43)
    x = net.relu(net.conv("x", WIDE, 64, group=4))
    x = net.add("Reshape", x, net.const([0, 4, 16, SIDE, SIDE], np.int64))
    x = net.add("Reshape", net.add("Transpose", x, perm=[0, 2, 1, 3, 4]), net.const([0, 64, SIDE, SIDE], np.int64))
    return finish(net, net.conv(x, 64, WIDE, group=8), "grouped", "grouped convolutions with a channel shuffle between")


def conv_transpose() -> Case:
    net = plane_net(44)
    weight = net.normal(WIDE, 16, 3, 3, fan=WIDE // 2 * 4)
    up = {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1], "group": 2}
    x = net.add("ConvTranspose", "x", net.const(weight), net.const(net.normal(WIDE)), **up)
    x = net.conv(net.relu(x), WIDE, WIDE, strides=[2, 2])
    return finish(net, x, "conv-transpose", "a grouped transposed convolution with output padding")


def pools() -> Case:
    net = plane_net(45)
    x = net.conv("x", WIDE, WIDE)
    edges = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    mean = net.add("AveragePool", x, count_include_pad=1, ceil_mode=1, **edges)
    bare = net.add("AveragePool", x, count_include_pad=0, ceil_mode=1, **edges)
    x = net.add("Concat", mean, bare, net.add("MaxPool", x, ceil_mode=1, **edges), axis=1)
    return finish(
        net, net.conv(x, 3 * WIDE, WIDE), "pools", "pools with ceil_mode, and padding that counts or does not"
    )


def auto_pad() -> Case:
    net = plane_net(46)
    x = "x"
    for kind, kernel, stride, dilation in (("SAME_UPPER", 3, 2, 1), ("SAME_LOWER", 2, 1, 1), ("VALID", 3, 1, 2)):
        weight = net.const(net.normal(WIDE, WIDE, kernel, kernel, fan=WIDE * kernel**2))
        steps = {"strides": [stride] * 2, "dilations": [dilation] * 2}
        x = net.relu(net.add("Conv", x, weight, auto_pad=kind, **steps))
    return finish(net, x, "auto-pad", "auto_pad of each kind, a kernel of even size, dilation, no bias")


def unused_outputs() -> Case:
    net = plane_net(47)
    x = net.conv("x", WIDE, WIDE)
    net.several("Split", [x], ["used", "unused"], axis=1)
    net.several("MaxPool", ["used"], ["pooled", "places"], kernel_shape=[2, 2], strides=[2, 2])
    net.several("Dropout", ["pooled"], ["kept", "mask"])
    net.conv("unused", 16, WIDE)
    return finish(
        net, net.conv("kept", 16, WIDE), "unused-outputs", "outputs that nothing reads, and a dead convolution"
    )


def intermediate_output() -> Case:
    net = plane_net(48)
    inner = net.add("Relu", net.conv("x", WIDE, WIDE), out="inner")
    case_input = net.relu(net.conv(inner, WIDE, WIDE))
    net.head(net.pooled(case_input), WIDE, floor=EASY)
    net.outputs["inner"] = PLANE
    return net.case("intermediate-output", "an output that the next layer reads too", converts=True)


def two_outputs() -> Case:
    net = plane_net(49)
    x = net.pooled(net.relu(net.conv("x", WIDE, WIDE)))
    net.head(x, WIDE, floor=EASY)
    net.head(x, WIDE, classes=3, out="other", floor=EASY)
    net.add("Identity", "x", out="echo")
    net.outputs["echo"] = PLANE
    return net.case("two-outputs", "two heads, and an output that is the input itself", converts=True)


def weights_by_nodes() -> Case:
    net = plane_net(50)
    half = net.const(net.normal(WIDE, WIDE, 3, 3, fan=WIDE * 9), np.float16)
    x = net.relu(net.add("Conv", "x", net.add("Cast", half, to=TensorProto.FLOAT), pads=[1, 1, 1, 1]))
    turned = net.add("Transpose", net.const(net.normal(3, 3, WIDE, WIDE, fan=WIDE * 9)), perm=[3, 2, 0, 1])
    scale = net.add("Exp", net.const(net.normal(WIDE, 1, 1, 1, gain=0.3)))
    x = net.add("Conv", x, net.add("Mul", turned, scale), pads=[1, 1, 1, 1])
    return finish(net, x, "weights-by-nodes", "weights that constant nodes compute: Cast, Transpose, Mul")


def odd_names() -> Case:
    net = plane_net(51)
    made = []
    for index, out in enumerate(("a b", "a b_quantized", "x_scale")):
        weight = net.const(net.normal(WIDE, WIDE, 3, 3, fan=WIDE * 9), name=f"/w.{index}:0;é_zero_point")
        made.append(net.add("Conv", made[-1] if made else "x", weight, out=out, pads=[1, 1, 1, 1]))
        made.append(net.add("Relu", out, out=f"{out}_QuantizeLinear_Output"))
    x = net.add("Add", made[1], made[5], out="x_DequantizeLinear_Output")
    for node in net.nodes:
        node.name = ""
    return finish(net, x, "odd-names", "nodes without names, tensors named as quantisers name theirs")


def norm_alone() -> Case:
    net = plane_net(52)
    statistics = [net.rng.uniform(0.5, 2, WIDE), net.normal(WIDE), net.normal(WIDE), net.rng.uniform(0.5, 2, WIDE)]
    before = net.add("BatchNormalization", "x", *map(net.const, statistics))
    x = net.conv(net.relu(before), WIDE, WIDE)
    after = net.relu(net.add("BatchNormalization", x, *map(net.const, statistics)))
    x = net.add("Add", after, net.conv(x, WIDE, WIDE))
    return finish(net, x, "norm-alone", "batch norm with no layer to fold into, or whose layer has another reader")


def activations() -> Case:
    net = plane_net(53)
    kinds = [("LeakyRelu", {"alpha": 0.1}), ("Elu", {}), ("HardSigmoid", {}), ("HardSwish", {}), ("Softplus", {})]
    parts = [net.add(kind, net.conv("x", WIDE, 8, 1), **more) for kind, more in kinds]
    parts.append(net.add("PRelu", net.conv("x", WIDE, 8, 1), net.const(net.normal(8, 1, 1, gain=0.3))))
    silu = net.conv("x", WIDE, 8, 1)
    parts.append(net.add("Mul", silu, net.add("Sigmoid", silu)))
    x = net.conv(net.add("Concat", *parts, axis=1), 8 * len(parts), WIDE)
    return finish(net, x, "activations", "seven activations side by side into one Concat")


def local_function() -> Case:
    net = plane_net(54)
    body = [
        helper.make_node("Conv", ["fx", "fw"], ["fc"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["fc"], ["fy"]),
    ]
    opsets = [helper.make_opsetid("", net.opset)]
    net.functions.append(helper.make_function("local", "Layer", ["fx", "fw"], ["fy"], body, opsets))
    x = "x"
    for _ in range(2):
        x = net.add("Layer", x, net.const(net.normal(WIDE, WIDE, 3, 3, fan=WIDE * 9)), domain="local")
    return finish(net, x, "local-function", "layers as calls of a function in the file")


def fixed_batch() -> Case:
    net = Net(55, {"x": [1, WIDE, SIDE, SIDE]}, normal_draw(WIDE, SIDE, SIDE))
    x = net.relu(net.conv(net.relu(net.conv("x", WIDE, WIDE)), WIDE, 8))
    net.head(net.add("Reshape", x, net.const([1, 8 * SIDE * SIDE], np.int64)), 8 * SIDE * SIDE, floor=EASY)
    return net.case("fixed-batch", "a batch of one, written into a Reshape", converts=True)


def dynamic_tokens() -> Case:
    def draw(rng: np.random.Generator, count: int) -> Arrays:
        return {"ids": rng.integers(0, 200, (count, 20))}

    net = Net(56, {"ids": ["batch", "length"]}, draw, types={"ids": TensorProto.INT64})
    x = net.add("Gather", net.const(net.normal(200, 64)), "ids")
    x = net.add("Einsum", net.relu(net.dense(x, 64, 64)), net.const(net.normal(64, 64, fan=64)), equation="bld,de->ble")
    net.head(net.dense(net.add("ReduceMean", x, axes=[1], keepdims=0), 64, 64), 64, floor=EASY)
    return net.case("dynamic-tokens", "tokens of free length, an Einsum with a constant", converts=True)


FORMS = (
    lstm_step,
    if_around_conv,
    loop,
    shared_weight,
    shared_scalar,
    shared_bias,
    opset_7,
    opset_9,
    opset_11,
    external_data,
    dynamic_plane,
    pixel_shuffle,
    conv_1d,
    grouped,
    conv_transpose,
    pools,
    auto_pad,
    unused_outputs,
    intermediate_output,
    two_outputs,
    weights_by_nodes,
    odd_names,
    norm_alone,
    activations,
    local_function,
    fixed_batch,
    dynamic_tokens,
)
