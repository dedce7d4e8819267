"""The walk that replaces nodes by what a table writes for them, round after round until nothing is left to do.

A node behind a replaced one has no inferred rank before that is written out, so one walk is not enough.
"""

from collections.abc import Callable

import onnx

from converters.importers.rewriting import Context, changed, context_of, graphs

Writer = Callable[[onnx.NodeProto, Context], list[onnx.NodeProto] | None]
"""The nodes that stand for one; None where it stays."""
Table = Callable[[onnx.NodeProto], Writer | None]
"""A node's row; None where there is none."""


def write_out(model: onnx.ModelProto, table: Table, *, domain: str, rounds: int, where: str) -> None:
    """Replace the main graph's nodes in place; drop the domain where none of its nodes is left.

    Args:
        model: changed.
        table: from a node to what writes it in others.
        domain: that the table is for.
        rounds: at most.
        where: how messages name the model.
    """
    for _ in range(rounds):
        if not _round(model, table, where):
            break
    _drop_domain(model, domain)


def _round(model: onnx.ModelProto, table: Table, where: str) -> bool:
    """Write out what can be with what is known now; whether anything was."""
    context = context_of(model, where=where, infer=True)
    nodes: list[onnx.NodeProto] = []
    found = False
    for node in model.graph.node:
        made = _written(node, table, context)
        found |= made is not None
        nodes += [node] if made is None else made
    if found:
        copies = [changed(node) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copies)
    return found


def _written(node: onnx.NodeProto, table: Table, context: Context) -> list[onnx.NodeProto] | None:
    writer = table(node)
    made = writer(node, context) if writer else None
    for number, inner in enumerate(made or ()):
        if node.name and inner.op_type != "Constant":
            inner.name = context.names.fresh(f"{node.name}/{inner.op_type}_{number}")
    return made


def _drop_domain(model: onnx.ModelProto, domain: str) -> None:
    if any(node.domain == domain for graph in graphs(model.graph) for node in graph.node):
        return
    kept = [entry for entry in model.opset_import if entry.domain != domain]
    del model.opset_import[:]
    model.opset_import.extend(kept)
