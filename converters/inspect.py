"""What a model is: operators, shapes, work, bytes, and which devices can run it. Nothing is run."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from converters import tflite_files
from converters.graph.lives import bodies, peak_bytes, size_of
from converters.graph.operators import opset
from converters.graph.shapes import batch_symbols, factors
from converters.graph.signature import BATCH, Shapes
from converters.graph.work import node_macs
from converters.importers import import_model
from converters.source import Source
from converters.subject import is_bundle
from converters.workspace import Workspace, disk_full_named
from converters.write.runtimes import min_runtime
from lepton_edge.bundle import Bundle
from lepton_edge.bundle.manifest import TensorSpec, Variant
from lepton_edge.errors import NotYetSupportedError, RuntimeUnavailableError, UnsupportedOperatorError
from lepton_edge.typed import Record

_LARGEST = 5
"""How many layers are listed as the largest."""
_BODIES = {"If", "Loop", "Scan"}
_NAMES = {ir.DataType.FLOAT: "float32", ir.DataType.DOUBLE: "float64"}
_INDICES = {"int64", "int32", "bool", "string"}
"""Types of constants that are shapes and indices rather than parameters."""
_MANY_INT64 = 0.5
"""A share of int64 among the bytes passed between layers that is worth a warning."""


class OperatorCount(Record, frozen=True, kw_only=True):
    """How often an operator stands in the graph, bodies included. domain: "" for the standard ones."""

    operator: str
    domain: str
    count: int
    macs: int


class WeightType(Record, frozen=True, kw_only=True):
    """The constants of one type."""

    dtype: str
    elements: int
    bytes: int


class Layer(Record, frozen=True, kw_only=True):
    """One node. bytes: of the constants that it reads."""

    name: str
    operator: str
    output: list[int | str]
    macs: int
    bytes: int


class Facts(Record, frozen=True, kw_only=True):
    """One model's file.

    format: what it was imported from. opset, ir_version: of its ONNX graph.
    bytes: of the file with its external data.
    parameters: elements of all constants but shapes and indices. macs: multiply-accumulates of one inference.
    assumed: axes without a size, and what they were counted as ("batch": 1).
    weight_bytes, activation_bytes: of constants, and the most that tensors alive at once take, run in the file's order.
    memory: their sum: what a runtime needs at least, without its own code and scratch space.
    min_runtime: the oldest ONNX Runtime release that runs it; of a .tflite the oldest TensorFlow Lite.
    runs_on: names of the runtimes that take the file.
    kept_float: operators that an int8 form would leave float, where a profile is given.
    """

    format: str
    opset: int
    ir_version: int
    bytes: int
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    parameters: int
    macs: int
    assumed: dict[str, int]
    weights: list[WeightType]
    weight_bytes: int
    activation_bytes: int
    memory: int
    min_runtime: str
    runs_on: list[str]
    operators: list[OperatorCount]
    largest_by_macs: list[Layer]
    largest_by_bytes: list[Layer]
    kept_float: list[str]
    warnings: list[str]


class VariantFacts(Record, frozen=True, kw_only=True):
    """A variant as the manifest describes it, and its file.

    facts: None for one that cannot be read as a graph here. reason: why not.
    """

    variant: Variant
    facts: Facts | None
    reason: str = ""


class Inspection(Record, frozen=True, kw_only=True):
    """What `lepton-edge inspect` prints. model: of a model's file; variants: of a bundle's, the best first."""

    where: str
    name: str
    version: str
    model: Facts | None
    variants: list[VariantFacts]


def inspect(model: str | Path, *, shapes: Shapes | None = None, trust: bool = False) -> Inspection:
    """Describe a model's file, what a function returns, or a bundle.

    Args:
        model: a path that `import_model` takes, the text `package.module:function`, or a .lep.
        shapes: sizes for inputs that have none.
        trust: allow formats that can run code.

    Raises:
        ModelError, BundleError, UsageError: as the importers and `Bundle.open`.
    """
    path = Path(model)
    if is_bundle(path):
        return _inspect_bundle(Bundle.open(path), path)
    facts = describe(import_model(model, shapes=shapes, trust=trust))
    return Inspection(where=str(model), name=path.stem, version="", model=facts, variants=[])


def _inspect_bundle(bundle: Bundle, path: Path) -> Inspection:
    manifest = bundle.manifest
    found = []
    with Workspace() as workspace, disk_full_named(workspace.path):
        for variant in sorted(manifest.variants, key=lambda one: one.rank):
            file = bundle.extract(variant.file, workspace.path / variant.file)
            found.append(_variant_facts(variant, file))
    return Inspection(where=str(path), name=manifest.name, version=manifest.version, model=None, variants=found)


def _variant_facts(variant: Variant, file: Path) -> VariantFacts:
    try:
        return VariantFacts(variant=variant, facts=describe(import_model(file)))
    except (NotYetSupportedError, UnsupportedOperatorError, RuntimeUnavailableError) as error:
        return VariantFacts(variant=variant, facts=None, reason=str(error).replace(str(file), variant.file))


def describe(source: Source, *, kept_float: Sequence[str] = ()) -> Facts:
    """Count what an imported model holds.

    Args:
        source: the model.
        kept_float: operators that the profile of interest leaves float, to be carried into the facts.
    """
    model = ir.serde.deserialize_model(source.model)
    assumed = _fix_axes(model.graph)
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    nodes = list(all_nodes(model.graph))
    layers = [_layer(node) for node in nodes]
    weights = _weights(model.graph)
    held, alive = sum(one.bytes for one in weights), peak_bytes(model.graph)
    version = opset(source.model)
    oldest, able = _runs_on(source, version, nodes)
    return Facts(
        format=source.format,
        opset=version,
        ir_version=source.model.ir_version,
        bytes=source.size_bytes,
        inputs=source.signature.inputs,
        outputs=source.signature.outputs,
        parameters=sum(one.elements for one in weights if one.dtype not in _INDICES),
        macs=sum(layer.macs for layer in layers),
        assumed=assumed,
        weights=weights,
        weight_bytes=held,
        activation_bytes=alive,
        memory=held + alive,
        min_runtime=oldest,
        runs_on=able,
        operators=_operators(nodes, layers),
        largest_by_macs=_largest(layers, lambda layer: layer.macs),
        largest_by_bytes=_largest(layers, lambda layer: layer.bytes),
        kept_float=sorted({node.op_type for node in nodes} & set(kept_float)),
        warnings=[*source.notes, *_warnings(source, model.graph, assumed, nodes)],
    )


def _runs_on(source: Source, version: int, nodes: Sequence[ir.Node]) -> tuple[str, list[str]]:
    """The oldest release that takes the file, and the runtimes that do."""
    if source.original is not None:
        return tflite_files.runs_on(source.original)
    operators = {(node.domain, node.op_type) for node in nodes}
    return min_runtime(opset=version, ir_version=source.model.ir_version, operators=operators), ["onnxruntime"]


def all_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Every node, those of bodies too."""
    yield from ir.traversal.RecursiveGraphIterator(graph)


def _fix_axes(graph: ir.Graph) -> dict[str, int]:
    """Count open axes of the inputs as 1, in place, and forget sizes inside that spoke of them; returns their names."""
    batch = batch_symbols(graph)
    assumed: dict[str, int] = {}
    for value in graph.inputs:
        sizes: list[int] = []
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int):
                name = size.value or f"{value.name}_{axis}"
                assumed[BATCH if axis == 0 or factors(size)[1] in batch else name] = 1
            sizes.append(factors(size)[0])
        value.shape = None if value.shape is None else ir.Shape(sizes)
    for node in all_nodes(graph):
        for value in node.outputs:
            if value.shape is not None and not all(isinstance(size, int) for size in value.shape):
                value.shape = None if not value.is_graph_output() else ir.Shape([None] * len(value.shape))
    return assumed


def _constants(graph: ir.Graph) -> Iterator[ir.TensorProtocol]:
    graphs = [graph, *(body for node in all_nodes(graph) for body in bodies(node))]
    for one in graphs:
        yield from (value.const_value for value in one.initializers.values() if value.const_value is not None)
    for node in all_nodes(graph):
        if node.op_type == "Constant" and "value" in node.attributes:
            yield node.attributes["value"].as_tensor()


def _weights(graph: ir.Graph) -> list[WeightType]:
    elements: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for tensor in _constants(graph):
        name = _NAMES.get(tensor.dtype, tensor.dtype.name.lower())
        elements[name] += tensor.size
        sizes[name] += tensor.nbytes
    ordered = sorted(sizes, key=lambda name: (-sizes[name], name))
    return [WeightType(dtype=name, elements=elements[name], bytes=sizes[name]) for name in ordered]


def _layer(node: ir.Node) -> Layer:
    held = {value for value in node.inputs if value is not None and value.const_value is not None}
    shape = node.outputs[0].shape if node.outputs else None
    return Layer(
        name=node.name or (node.outputs[0].name if node.outputs else None) or node.op_type,
        operator=node.op_type,
        output=[size if isinstance(size, int) else str(size) for size in shape or ()],
        macs=node_macs(node),
        bytes=sum(value.const_value.nbytes for value in held if value.const_value is not None),
    )


def _operators(nodes: Sequence[ir.Node], layers: Sequence[Layer]) -> list[OperatorCount]:
    counts: Counter[tuple[str, str]] = Counter()
    macs: Counter[tuple[str, str]] = Counter()
    for node, layer in zip(nodes, layers, strict=True):
        counts[node.op_type, node.domain] += 1
        macs[node.op_type, node.domain] += layer.macs
    ordered = sorted(counts, key=lambda key: (-macs[key], -counts[key], key))
    return [OperatorCount(operator=key[0], domain=key[1], count=counts[key], macs=macs[key]) for key in ordered]


def _largest(layers: Sequence[Layer], size: Callable[[Layer], int]) -> list[Layer]:
    return sorted((layer for layer in layers if size(layer)), key=size, reverse=True)[:_LARGEST]


def _warnings(source: Source, graph: ir.Graph, assumed: Mapping[str, int], nodes: Sequence[ir.Node]) -> list[str]:
    found = []
    values = [value for node in nodes for value in node.outputs]
    doubles = sum(value.dtype == ir.DataType.DOUBLE for value in (*values, *graph.initializers.values()))
    if doubles:
        found.append(f"float64 tensors: {doubles}; slow on every device, and no int8 form takes them")
    total = sum(size_of(value) for value in values)
    if total and sum(size_of(value) for value in values if value.dtype == ir.DataType.INT64) > _MANY_INT64 * total:
        found.append("most of what passes between layers is int64, which stays as it is")
    control = Counter(node.op_type for node in nodes if node.op_type in _BODIES)
    if control:
        names = ", ".join(f"{count} {name}" for name, count in sorted(control.items()))
        found.append(f"control flow ({names}): MACs count each body once, and bodies stay float")
    open_axes = sorted(set(assumed) - {BATCH})
    if open_axes:
        found.append(f"open axes {', '.join(open_axes)} are counted as 1: give sizes with {_example(source)}")
    unknown = sum(value.shape is None or not all(isinstance(size, int) for size in value.shape) for value in values)
    if unknown:
        found.append(f"the sizes of {unknown} tensors are known only when it runs: MACs and memory are lower bounds")
    foreign = sorted({node.domain for node in nodes} - {"", "ai.onnx", "ai.onnx.ml"})
    if foreign:
        found.append(f"operators of {', '.join(foreign)} run on ONNX Runtime alone")
    return found


def _example(source: Source) -> str:
    spec = next(one for one in source.signature.inputs if any(isinstance(size, str) for size in one.shape[1:]))
    sizes = [1 if axis == 0 and isinstance(size, str) else size for axis, size in enumerate(spec.shape)]
    return f"--shape {spec.name}={'x'.join(str(size) for size in sizes)}"
