"""`lepton-edge convert`: a model and samples in, a bundle out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lepton_edge.cli.output import ErrorCommand, Output, stopping_politely
from lepton_edge.figures import drop_text, metric_text

if TYPE_CHECKING:
    from converters.outcome import Outcome, VariantOutcome


@click.command(cls=ErrorCommand)
@click.argument("model")
@click.option(
    "--data",
    help="Samples: an .npz (x, y), a folder of images, .wav or .txt, a .csv or .jsonl of text,label, or "
    "module:function; they calibrate and evaluate.",
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The .lep to write.")
@click.option(
    "--preprocess", type=click.Path(path_type=Path), help="preprocess.toml: from a file to the model's input."
)
@click.option("--labels", type=click.Path(path_type=Path), help="Class names, one a line.")
@click.option(
    "--metric",
    help="top1, top5, f1, auc, map, mse, mae, cer, cosine, agreement or module:function. [default: top1 with class "
    "labels, cer with texts, without labels agreement, or cosine where outputs are no class scores]",
)
@click.option(
    "--budget",
    type=float,
    default=1.0,
    show_default=True,
    help="What may be lost: points, or the unit of mse, mae or a function.",
)
@click.option("--precision", default="8", show_default=True, help="8, or 16 for float16 (4 and auto come later).")
@click.option("--formats", default="onnx,tflite", show_default=True, help="onnx, tflite or both.")
@click.option(
    "--calibration", type=int, help="Samples of DATA that calibrate. [default: 100, or half of fewer than 200]"
)
@click.option("--calibration-data", help="DATA of its own for calibration; then all of --data evaluates.")
@click.option(
    "--calibrate-method",
    "method",
    default="auto",
    show_default=True,
    help="How ranges are chosen: minmax, percentile, entropy, mse, or auto, which compares the outputs.",
)
@click.option(
    "--state", "states", multiple=True, metavar="OUT=IN", help="Output OUT of one step is input IN of the next."
)
@click.option(
    "--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="Sizes for open axes; ? leaves one open."
)
@click.option("--name", default="", help="The bundle's name. [default: the model's file name]")
@click.option("--version", default="1", show_default=True, help="The bundle's version.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the samples of each side.")
@click.option("--keep-all", is_flag=True, help="Keep variants that are not faster than float, too.")
@click.option("--no-evaluate", is_flag=True, help="Measure no accuracy: no promise is made.")
@click.option("--no-benchmark", is_flag=True, help="Measure no latency.")
@click.option("--trust", is_flag=True, help="Load a .pt2, .skops or pickle that could run code, too.")
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Make a bundle of MODEL: int8 where it keeps the accuracy and is faster, float beside it, as ONNX and as TFLite.

    MODEL is a file (.onnx, .tflite, .pt2, .keras, .h5, .skops), or package.module:function, which returns a model or a
    torch module with its inputs. Without --data the weights alone become int8, and nothing is promised. Where TFLite
    has no form of an operator, the ONNX files are made all the same.

    Exit status 3: the budget cannot be met; then only OUT.report.html is written.
    """
    from converters.bar import shown_progress
    from converters.convert import convert as run
    from converters.data.sequence import parse_state
    from converters.graph.signature import parse_shape
    from converters.request import Request

    output: Output = ctx.obj
    evaluate, benchmark = not given.pop("no_evaluate"), not given.pop("no_benchmark")
    formats = tuple(part.strip() for part in given.pop("formats").split(","))
    shapes = dict(parse_shape(text) for text in given.pop("shapes"))
    state = parse_state(given.pop("states"))
    request = Request(**given, formats=formats, shapes=shapes, state=state, evaluate=evaluate, benchmark=benchmark)
    with stopping_politely(), shown_progress(wanted=not output.as_json) as progress:
        outcome = run(request, note=output.note, progress=progress)
    output.document(outcome, text=_text(outcome))
    for warning in outcome.warnings:
        output.note(f"warning: {warning}")
    if outcome.reason:
        output.note(outcome.reason)
    ctx.exit(outcome.exit_status)


convert = command


def _text(outcome: "Outcome") -> str:
    lines = [f"{outcome.name} {outcome.version}"]
    lines += [_line(one, outcome.source.bytes) for one in outcome.variants]
    lines += [f"wrote {outcome.bundle}"] if outcome.kept else []
    return "\n".join([*lines, f"report {outcome.report}"])


def _line(one: "VariantOutcome", source_bytes: int) -> str:
    parts = [f"  {one.name:<20}", f"{one.bytes:>10} bytes ({one.bytes / source_bytes:.2f}x)"]
    if one.metric:
        parts.append(f"{one.metric.name} {metric_text(one.metric).value}")
    if one.metric and one.drop is not None and one.precision != "float32":
        parts.append(f"drop {drop_text(one.drop, one.drop_low, one.drop_high, unit=one.metric.unit)}")
    if one.latency:
        parts.append(f"p50 {one.latency[0].p50_ms:.3f} ms")
    parts.append("kept" if one.kept else f"refused: {one.reason}")
    return "  ".join(parts)
