"""Any opset from 7 on, brought to one: functions written out, old operators raised, new ones lowered.

Older operators are raised one version at a time by the table in `raising`. Newer ones are taken back to the wanted
version where the node uses nothing of what is new, else written out as the function that their schema gives, else
refused by name. Operators of other domains (com.microsoft, ai.onnx.ml) stay as they are.
"""

from collections.abc import Callable, Sequence

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import defs, helper

from converters.graph.operators import node_label
from converters.importers.functions import call_key, check_calls, instantiate, local_functions
from converters.importers.lowering import STANDARD, is_standard, is_withdrawn, lowered, misfit, schema_body, schema_of
from converters.importers.raising import ADAPTERS
from converters.importers.rewriting import Context, context_of, graphs
from lepton_edge.errors import NotYetSupportedError

TARGET = 20
OLDEST = 7
_IR_VERSION = 9
_MAX_ROUNDS = 4
"""A schema's function may hold operators that are functions themselves, once or twice."""

Rewrite = Callable[[onnx.NodeProto], list[onnx.NodeProto]]


def to_opset(model: onnx.ModelProto, target: int = TARGET, *, where: str) -> onnx.ModelProto:
    """Write a model in the operators of one opset, without functions.

    Args:
        model: a checked model whose weights are inside; it is not changed.
        target: the opset, 13 to 20.
        where: how messages name the model.

    Returns:
        A model of IR version 9 at most, of opset `target`; the same object where there was nothing to do.
        Graph inputs that are initialisers too are inputs no more.

    Raises:
        NotYetSupportedError: an opset below 7, or one that the installed onnx does not know.
        UnsupportedOperatorError: an operator that has no form at `target`; the message says what to do.
        ModelError: functions that call themselves or never end.
    """
    given, version = model, _checked_version(model, where)
    check_calls(model, where=where)
    withdrawn = any(is_withdrawn(node, target) for graph in graphs(model.graph) for node in graph.node)
    settled = version == target and not model.functions and not withdrawn
    if settled and model.ir_version in range(4, _IR_VERSION + 1):
        return _without_defaults(model)
    if model.functions:
        model = _inlined(model, version, where)
    if version > target or withdrawn:
        model = _expanded(model, version, target, where)
    if version != target:
        context = context_of(model, where=where, infer=True)
        model = _rewritten(model, lambda node: _moved(node, version, target, context))
    model = _without_defaults(model)
    if model is given:
        model = onnx.ModelProto()
        model.CopyFrom(given)
    _label(model, target)
    return model


def _checked_version(model: onnx.ModelProto, where: str) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD]
    version = max(versions, default=1)
    if version < OLDEST:
        first = model.graph.node[0] if model.graph.node else onnx.NodeProto()
        raise NotYetSupportedError(
            f"not yet: {where}: opset {version}: the oldest that is read is {OLDEST} (its first node is "
            f"{node_label(first)!r}, a {first.op_type}): export the model again, or raise it with "
            "onnx.version_converter"
        )
    if version > defs.onnx_opset_version():
        raise NotYetSupportedError(
            f"not yet: {where}: opset {version}; the installed onnx {onnx.__version__} knows up to "
            f"{defs.onnx_opset_version()}: upgrade onnx, or export the model with opset {TARGET}"
        )
    return version


def _inlined(model: onnx.ModelProto, version: int, where: str) -> onnx.ModelProto:
    """Write out the model's own functions; a body in another opset is brought to the model's."""
    context = context_of(model, where=where, infer=False)
    local = local_functions(model)

    def rewrite(node: onnx.NodeProto) -> list[onnx.NodeProto]:
        function = local.get(call_key(node))
        if function is None:
            return [node]
        own = max((entry.version for entry in function.opset_import if entry.domain in STANDARD), default=version)
        made = []
        for inner in instantiate(node, function, context.names):
            # A call inside of a body keeps its domain: only the standard operators have versions to bring.
            brought = _deep(inner, lambda each: _moved(each, own, version, context)) if own != version else [inner]
            for each in brought:
                made += _deep(each, rewrite)
        return made

    result = _rewritten(model, rewrite)
    for function in model.functions:
        present = {entry.domain for entry in result.opset_import} | STANDARD
        result.opset_import.extend(entry for entry in function.opset_import if entry.domain not in present)
    return result


def _expanded(model: onnx.ModelProto, version: int, target: int, where: str) -> onnx.ModelProto:
    """Write out operators that have no older form; their bodies need types, so inference runs between rounds."""
    for _ in range(_MAX_ROUNDS):
        context = context_of(model, where=where, infer=True)
        found = False

        def rewrite(node: onnx.NodeProto, context: Context = context) -> list[onnx.NodeProto]:
            nonlocal found
            if not is_standard(node) or misfit(node, version, target, context) is None:
                return [node]
            body = schema_body(node, version, context)
            found |= body is not None
            return [node] if body is None else body

        model = _rewritten(model, rewrite)
        if not found:
            break
    return model


def _moved(node: onnx.NodeProto, version: int, target: int, context: Context) -> list[onnx.NodeProto]:
    """A node of one opset as nodes of another; its nested graphs are the caller's to walk."""
    if not is_standard(node):
        return [node]
    if node.domain:
        node = _standard(node)
    since = schema_of(node, version, context).since_version
    if since > target:
        why = misfit(node, version, target, context)
        if why is not None:
            raise context.refuse(node, f"{why}: export the model with opset {target}")
        return [lowered(node, target)]
    return _raised(node, since, target, context)


def _raised(node: onnx.NodeProto, since: int, target: int, context: Context) -> list[onnx.NodeProto]:
    for version in range(since + 1, target + 1):
        adapter = ADAPTERS.get((node.op_type, version))
        if adapter is not None:
            return [further for made in adapter(node, context) for further in _raised(made, version, target, context)]
    return [node]


def _standard(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.domain = ""
    return copy


def _deep(node: onnx.NodeProto, rewrite: Rewrite) -> list[onnx.NodeProto]:
    """Rewrite a node, its nested graphs first."""
    if any(entry.HasField("g") or entry.graphs for entry in node.attribute):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for entry in copy.attribute:
            for graph in (*([entry.g] if entry.HasField("g") else []), *entry.graphs):
                _replace(graph, _all_rewritten(graph.node, rewrite))
        node = copy
    return rewrite(node)


def _all_rewritten(nodes: Sequence[onnx.NodeProto], rewrite: Rewrite) -> list[onnx.NodeProto]:
    return [made for node in nodes for made in _deep(node, rewrite)]


def _replace(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _rewritten(model: onnx.ModelProto, rewrite: Rewrite) -> onnx.ModelProto:
    """A copy of the model without its functions, each node rewritten."""
    nodes = _all_rewritten(model.graph.node, rewrite)
    copy = onnx.ModelProto()
    _copy_fields(model, copy, without={"graph", "functions"})
    _copy_fields(model.graph, copy.graph, without={"node"})
    copy.graph.node.extend(nodes)
    return copy


def _copy_fields(source: Message, target: Message, *, without: set[str]) -> None:
    """Copy a message field by field: what is left out is never held twice."""
    for descriptor, value in source.ListFields():
        if descriptor.name in without:
            continue
        if isinstance(value, str | bytes | int | float):
            setattr(target, descriptor.name, value)
        elif hasattr(value, "extend"):
            getattr(target, descriptor.name).extend(value)
        else:
            getattr(target, descriptor.name).CopyFrom(value)


def _without_defaults(model: onnx.ModelProto) -> onnx.ModelProto:
    """Initialisers are constants: graph inputs of the same name (all of them before IR version 4) go."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    if len(kept) == len(model.graph.input):
        return model
    copy = onnx.ModelProto()
    _copy_fields(model, copy, without={"graph"})
    _copy_fields(model.graph, copy.graph, without={"input"})
    copy.graph.input.extend(kept)
    return copy


def _label(model: onnx.ModelProto, target: int) -> None:
    """Write the opset and IR version, in place; domains without a node are forgotten."""
    domains = {node.domain for graph in graphs(model.graph) for node in graph.node}
    others = [entry for entry in model.opset_import if entry.domain in domains - STANDARD]
    kept = [(entry.domain, entry.version) for entry in others]
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*entry) for entry in [("", target), *kept])
    model.ir_version = _IR_VERSION
