"""What a random net shows of the TFLite writer: in float, in the choice of layouts, and in int8."""

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import onnx
import onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from converters.calibrate import calibrate
from converters.data.npz import from_arrays
from converters.graph.canonical import canonicalise
from converters.importers import import_model
from converters.measure.teacher import BUILTIN, XNNPACK, Taught, teacher_force
from converters.ort import session
from converters.quantize.compiler import Compiler, activations
from converters.quantize.constraints import RULES, Constraints
from converters.quantize.cost import Edges, Line, OperatorCost
from converters.quantize.profiles import Profile, load_profile
from converters.tflite.pack import write_file
from converters.write.onnx import write_onnx
from converters.write.tflite import Written, to_tflite
from converters.write.tflite.digits import Symbols
from converters.write.tflite.fuse import drop_dead, fuse_activations, open_borders
from converters.write.tflite.layout import Borders, choose_layouts, layout_problem
from converters.write.tflite.lower import lower
from lepton_edge.bundle.binding import from_file, to_file
from tests.converters.tflite.random_nets import OTHER_LENGTH, random_inputs, random_net

logging.getLogger("onnxruntime").setLevel(logging.ERROR)

Arrays = dict[str, np.ndarray]
FLOAT_LIMIT = 2e-5
"""Largest difference over largest output."""
SHAKEN = 2e-7
"""By how much of themselves tensors are changed to see how steady a net is: two roundings."""
FEASIBLE = 5_000
"""Choices of layouts that are tried one by one."""
SAMPLES = 8
STEPS = 2
"""An int8 operator may differ by so many."""
NEAR = 0.03
"""Of an output's deviation: what steps that flip on the way come to in nets of twenty operators."""
TFLITE = ("litert-xnnpack", "litert-builtin", "tflite-runtime-2.14")
ALL, REWRITTEN = "everything", "everything, rewritten"
"""Profiles in which int8 costs nothing; the second says operators in other words where it can."""


class Differs(NamedTuple):
    """How far apart outputs are.

    Attributes:
        worst: largest difference over largest output.
        noise: how far ONNX Runtime itself goes when all tensors change in their last digits; looked at where needed.
    """

    worst: float
    noise: float

    @property
    def wrong(self) -> bool:
        """A net that makes much of the last digits of its tensors says nothing about who computes it."""
        return not self.worst <= max(FLOAT_LIMIT, 4 * self.noise)


# in float

_RESOLVERS = {XNNPACK: OpResolverType.AUTO, BUILTIN: OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
_WAYS: list[tuple[str, dict[str, int]]] = [
    (XNNPACK, {}),
    (XNNPACK, {"batch": 3}),
    (XNNPACK, {"batch": 2, "length": OTHER_LENGTH}),
    (BUILTIN, {}),
    (BUILTIN, {"batch": 2, "length": OTHER_LENGTH}),
]


def reference(model: onnx.ModelProto | Path, *, optimise: bool = True) -> onnxruntime.InferenceSession:
    return session(model if isinstance(model, Path) else model.SerializeToString(), optimise=optimise)


def fuzz_float(seed: int, folder: Path) -> list[Differs]:
    """A net natively and not, on both kernel sets; alone, in a batch, and with another length.

    Raises:
        UnsupportedOperatorError: the writer refuses it.
    """
    source = random_net(seed)
    imported = import_model(source)
    graph = canonicalise(imported.model, where=f"seed {seed}")
    found = []
    for native in (False, True):
        path = folder / "net.tflite"
        made, written = to_tflite(graph, where=f"seed {seed}", native=native)
        write_file(made, path)
        for kernels, sizes in _WAYS:
            interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=_RESOLVERS[kernels])
            fed = random_inputs(source, seed, **sizes)
            got = run_file(interpreter, written, fed)
            found.append(_differs(source, fed, got, seed))
    return found


def _differs(source: onnx.ModelProto, fed: Arrays, got: Sequence[np.ndarray], seed: int) -> Differs:
    wanted = reference(source).run(None, fed)
    worst = max(_apart(want, one) for want, one in zip(wanted, got, strict=True))
    if worst <= FLOAT_LIMIT:
        return Differs(worst, 0.0)
    others = [reference(shaken(source, seed + at)).run(None, fed) for at in range(4)]
    return Differs(worst, max(_apart(want, one) for other in others for want, one in zip(wanted, other, strict=True)))


def shaken(source: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The same net, but every float tensor that it computes is a rounding or two larger or smaller."""
    rng = np.random.default_rng(seed)
    made = onnx.ModelProto()
    made.CopyFrom(source)
    graph = made.graph
    kinds = {one.name: one.type.tensor_type.elem_type for one in (*graph.value_info, *graph.output)}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.append(node)
        for at, name in enumerate(node.output):
            if kinds.get(name) == onnx.TensorProto.FLOAT:
                graph.node[-1].output[at] = f"{name}_exact"
        for name in [one for one in node.output if kinds.get(one) == onnx.TensorProto.FLOAT]:
            factor = np.array(1 + SHAKEN * rng.choice([-1, 1]), np.float32)
            graph.initializer.append(onnx.numpy_helper.from_array(factor, f"{name}_factor"))
            graph.node.append(onnx.helper.make_node("Mul", [f"{name}_exact", f"{name}_factor"], [name]))
    return made


def _apart(want: np.ndarray, got: np.ndarray) -> float:
    if want.shape != got.shape:
        return float("inf")
    if not want.size:
        return 0.0
    want, got = want.astype(np.float32), got.astype(np.float32)
    return float(np.max(np.abs(want - got)) / max(float(np.max(np.abs(want))), 1e-9))


def run_file(interpreter: Interpreter, written: Written, fed: Arrays) -> list[np.ndarray]:
    """Outputs in the graph's order, as the graph has them."""
    details = {one["name"]: one for one in interpreter.get_input_details()}
    arrays = {one.tensor: to_file(one, fed[one.name]) for one in written.inputs if one.name in fed}
    for name, array in arrays.items():
        if tuple(details[name]["shape"]) != array.shape:
            interpreter.resize_tensor_input(details[name]["index"], array.shape)
    interpreter.allocate_tensors()
    for name, array in arrays.items():
        interpreter.set_tensor(details[name]["index"], np.ascontiguousarray(array))
    interpreter.invoke()
    ends = {one["name"]: interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()}
    return [from_file(one, ends[one.tensor], "float32") for one in written.outputs]


# the choice of layouts


class LayoutCost(NamedTuple):
    """chosen: what the layouts cost; least: what the best of all choices costs, None where those are too many."""

    chosen: int
    least: int | None


def fuzz_layout(seed: int, *, native: bool) -> LayoutCost:
    """Raises UnsupportedOperatorError as the writer does."""
    graph = canonicalise(import_model(random_net(seed)).model, where=f"seed {seed}")
    program = lower(graph, where=f"seed {seed}")
    fuse_activations(program)
    drop_dead(program)
    if native:
        open_borders(program)
    borders = Borders(native=native)
    chosen = choose_layouts(program, Symbols(), borders).cost
    ways, cost = layout_problem(program, Symbols(), borders)
    sizes = [len(one) for one in ways]
    if np.prod([float(size) for size in sizes]) > FEASIBLE:
        return LayoutCost(chosen, None)
    return LayoutCost(chosen, min(cost(choice) for choice in product(*(range(size) for size in sizes))))


# in int8


@cache
def profile(name: str) -> Profile:
    """One that is shipped, or one that takes in int8 all that the rules allow."""
    if name in TFLITE:
        return load_profile(name)
    like = load_profile(TFLITE[name == ALL])
    free = OperatorCost(in_float=Line(fixed=1000.0), in_int8=Line())
    kinds = [*RULES, *like.operators, "MatMul.dynamic"]
    rewritings = {} if name == ALL else like.rewritings
    changes = {"operators": dict.fromkeys(kinds, free), "edges": Edges(), "rewritings": rewritings}
    return msgspec.structs.replace(like, name=name, **changes)


class Quantised(NamedTuple):
    """One net in int8.

    Attributes:
        operators: of the units that are int8.
        taught: every operator alone, by kernel set.
        error: of int8 itself: the quantised graph in ONNX Runtime against float, over the output's deviation.
        apart: LiteRT against the quantised graph in ONNX Runtime likewise, by kernel set.
    """

    operators: Sequence[str]
    taught: Mapping[str, Sequence[Taught]]
    error: float
    apart: Mapping[str, float]

    @property
    def far(self) -> list[str]:
        """Operators that alone differ by more steps than they may."""
        every = [(kernels, one) for kernels, part in self.taught.items() for one in part]
        return [f"{kernels}: {one}" for kernels, one in every if one.steps > STEPS]

    @property
    def strays(self) -> bool:
        """Whether a whole file is further from the quantised graph than roundings on the way explain: half a step is
        what rounding itself costs, and a whole one what it costs to round the other way (a mean of two is often a tie).
        """
        return max(self.apart.values()) > max(NEAR, 2 * self.error)


class Calibrated:
    """A net and the ranges of its tensors, for one plan after another."""

    def __init__(self, seed: int) -> None:
        self.where = f"seed {seed}"
        source = random_net(seed)
        imported = import_model(source)
        drawn = [random_inputs(source, 100 + seed + at) for at in range(SAMPLES)]
        self.samples = drawn[:2]
        data = {name: np.concatenate([one[name] for one in drawn]) for name in drawn[0]}
        self.graph = canonicalise(imported.model, where=self.where)
        dataset = from_arrays(data, imported.signature, where=self.where)
        self.statistics = calibrate(self.graph, dataset, tensors=activations(self.graph.graph))
        self.float = reference(source)

    def quantised(self, name: str, folder: Path, *, native: bool) -> Quantised | None:
        """In the form that a profile wants; None where nothing of it is int8."""
        chosen = profile(name)
        compiler = Compiler(self.graph, self.statistics, [chosen])
        plan = compiler.plan(chosen, Constraints("minmax"))
        if not plan.int8:
            return None
        graph = compiler.quantised(plan)
        write_onnx(graph, folder / "net.onnx")
        made, written = to_tflite(graph, where=self.where, native=native, runtime=chosen.runtime)
        write_file(made, folder / "net.tflite")
        fed = [{one.tensor: to_file(one, arrays[one.name]) for one in written.inputs} for arrays in self.samples]
        taught = {kernels: teacher_force(made, fed, kernels=kernels) for kernels in (XNNPACK, BUILTIN)}
        operators = [plan.units[index].operator for index in sorted(plan.int8)]
        return Quantised(operators, taught, *self._whole(folder, written))

    def _whole(self, folder: Path, written: Written) -> tuple[float, dict[str, float]]:
        session = reference(folder / "net.onnx", optimise=False)
        plain = [self.float.run(None, one) for one in self.samples]
        steps = [session.run(None, one) for one in self.samples]
        found = {}
        for kernels, resolver in _RESOLVERS.items():
            path = str(folder / "net.tflite")
            interpreter = Interpreter(path, num_threads=1, experimental_op_resolver_type=resolver)
            got = [run_file(interpreter, written, one) for one in self.samples]
            found[kernels] = deviation(got, steps, plain)
        return deviation(steps, plain, plain), found


def deviation(
    got: Sequence[Sequence[np.ndarray]], wanted: Sequence[Sequence[np.ndarray]], like: Sequence[Sequence[np.ndarray]]
) -> float:
    """Of the worst output: root mean square of the difference over the standard deviation of `like`; what is true or
    false has no scale to differ on.
    """
    worst = 0.0
    for one, two, scale in zip(zip(*got, strict=True), zip(*wanted, strict=True), zip(*like, strict=True), strict=True):
        if scale[0].dtype == bool:
            continue
        apart = np.concatenate([(a - b).reshape(-1) for a, b in zip(one, two, strict=True)])
        spread = float(np.std(np.concatenate([part.reshape(-1) for part in scale])))
        worst = max(worst, float(np.sqrt(np.mean(apart**2))) / max(spread, 1e-6))
    return worst
