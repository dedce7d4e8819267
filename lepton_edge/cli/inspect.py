"""`lepton-edge inspect`: what a model or a bundle holds, and what can run it."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from lepton_edge.cli.output import ErrorCommand, Output, printable

if TYPE_CHECKING:
    from converters.inspect import Facts, Inspection, Layer, VariantFacts
    from lepton_edge.bundle.manifest import TensorSpec

_UNITS = ("", "k", "M", "G", "T")


@click.command(cls=ErrorCommand)
@click.argument("model", metavar="FILE|BUNDLE")
@click.option(
    "--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="Sizes for open axes; ? leaves one open."
)
@click.option("--trust", is_flag=True, help="Load a .pt2, .skops or pickle that could run code, too.")
@click.pass_obj
def command(output: Output, model: str, shapes: tuple[str, ...], *, trust: bool) -> None:
    """Show operators, shapes, parameters, MACs and bytes of a model or a bundle, and which devices can run it.

    FILE is what `convert` takes as MODEL.
    """
    from converters.graph.signature import parse_shape
    from converters.inspect import inspect

    found = inspect(model, shapes=dict(parse_shape(text) for text in shapes), trust=trust)
    output.document(found, text=text_of(found))


def text_of(found: "Inspection") -> str:
    """The inspection as aligned columns."""
    lines = [printable(f"{found.where}: {found.name} {found.version}".rstrip())]
    if found.model is not None:
        lines += _model(found.model)
    for one in found.variants:
        lines += ["", *_variant(one)]
    return "\n".join(lines)


def _variant(one: "VariantFacts") -> list[str]:
    variant = one.variant
    facts = [variant.precision, variant.profile, f"rank {variant.rank}"]
    if variant.isa:
        facts.append("needs " + " and ".join("|".join(flags) for flags in variant.isa))
    lines = [printable(f"variant {variant.name}: {', '.join(facts)}")]
    hidden = printable(f"  {variant.format}: cannot be shown as a graph: {one.reason}")
    return [*lines, *(_model(one.facts) if one.facts else [hidden])]


def _model(facts: "Facts") -> list[str]:
    assumed = ", ".join(f"{name} {size}" for name, size in facts.assumed.items())
    parts = f"weights {_count(facts.weight_bytes)}B, tensors {_count(facts.activation_bytes)}B"
    rows = [
        ("format", f"{facts.format}, opset {facts.opset}, IR version {facts.ir_version}"),
        ("file", f"{_count(facts.bytes)}B"),
        ("parameters", _count(facts.parameters)),
        ("MACs", _count(facts.macs) + (f"  (counted with {assumed})" if assumed else "")),
        ("weights", ", ".join(f"{one.dtype} {_count(one.bytes)}B" for one in facts.weights) or "none"),
        ("memory", f"{_count(facts.memory)}B  ({parts})"),
        ("runs on", _runs_on(facts)),
    ]
    rows += [("kept float", ", ".join(facts.kept_float))] if facts.kept_float else []
    lines = _columns([(f"  {name}", text) for name, text in rows])
    lines += _tensors("inputs", facts.inputs) + _tensors("outputs", facts.outputs)
    operators = [
        (
            f"    {one.domain + '.' if one.domain else ''}{one.operator}",
            str(one.count),
            _count(one.macs) if one.macs else "",
        )
        for one in facts.operators
    ]
    lines += _columns([("  operators", "count", "MACs"), *operators])
    lines += _layers("largest by MACs", facts.largest_by_macs) + _layers("largest by bytes", facts.largest_by_bytes)
    return lines + [printable(f"  warning: {text}") for text in facts.warnings]


def _runs_on(facts: "Facts") -> str:
    if facts.format != "tflite":
        return f"ONNX Runtime {facts.min_runtime} and later"
    since = f"  (operators of TensorFlow Lite {facts.min_runtime})" if facts.min_runtime else ""
    return (", ".join(facts.runs_on) or "no runtime that is known here") + since


def _tensors(title: str, specs: "Sequence[TensorSpec]") -> list[str]:
    rows = [(f"    {spec.name}", spec.dtype, "x".join(str(size) for size in spec.shape)) for spec in specs]
    return [f"  {title}", *_columns(rows)]


def _layers(title: str, layers: "Sequence[Layer]") -> list[str]:
    rows = [
        (
            f"    {one.name}",
            one.operator,
            "x".join(str(size) for size in one.output) or "?",
            f"{_count(one.macs)} MACs",
            f"{_count(one.bytes)}B",
        )
        for one in layers
    ]
    return [f"  {title}", *_columns(rows)] if rows else []


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Pad every column but the last to its widest entry."""
    clean = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in clean) for column in range(len(clean[0]))] if clean else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in clean]


def _count(number: float) -> str:
    """Three digits and a decimal unit: 4.65 M."""
    unit = 0
    while number >= 1000 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.3g} {_UNITS[unit]}" if unit else f"{number:.0f} "
