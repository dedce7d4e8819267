"""`lepton-edge run`: one inference on a file."""

from typing import TYPE_CHECKING

import click

from lepton_edge.cli.output import ErrorCommand, Output, printable

if TYPE_CHECKING:
    from device_agent.once import Output as Answer
    from device_agent.once import Result

_SHOWN = 10
"""Numbers of an output that are shown as text; --json has all."""


@click.command(cls=ErrorCommand)
@click.argument("bundle", metavar="BUNDLE")
@click.argument("source", metavar="INPUT")
@click.option("--variant", default="", help="Run this one. [default: the best-ranked that this machine can run]")
@click.option(
    "--runtime", "runtimes", multiple=True, metavar="NAME", help="Use this one alone of the runtimes; may be repeated."
)
@click.pass_obj
def command(output: Output, bundle: str, source: str, variant: str, runtimes: tuple[str, ...]) -> None:
    """Run the model of BUNDLE once on INPUT, and print what it answers.

    INPUT is an image, .wav or .txt that goes through the bundle's preprocessing (for a text model also the text
    itself), or an .npy or .npz that holds the model's inputs as they are.
    """
    from device_agent.once import run_once
    from lepton_edge.bundle import Bundle

    result = run_once(Bundle.open(bundle), source, variant=variant, runtimes=runtimes)
    for name, why in result.skipped.items():
        output.note(printable(f"{name} does not run here: {why}"))
    output.document(result, text=_text(result))


def _text(result: "Result") -> str:
    lines = [f"{result.bundle}: {result.variant} on {result.runtime}"]
    return "\n".join(printable(line) for line in [*lines, *(line for one in result.outputs for line in _lines(one))])


def _lines(one: "Answer") -> list[str]:
    if one.texts is not None:
        return [f"  {one.name}: {text}" for text in one.texts]
    samples = one.values if isinstance(one.values, list) else [one.values]
    lines = []
    for number, sample in enumerate(samples):
        name = f"{one.name}[{number}]" if len(samples) > 1 else one.name
        values, indices, names = _flat(sample), _flat(_part(one.indices, number)), _flat(_part(one.names, number))
        if indices:
            marks = names or [f"class {index}" for index in indices]
            lines += [f"  {name}: {mark}  {value:.6g}" for mark, value in zip(marks, values, strict=True)]
        else:
            lines.append(f"  {name}: {_listed(values)}")
    return lines


def _listed(values: list[object]) -> str:
    more = f" ... ({len(values)} values, --json prints all)" if len(values) > _SHOWN else ""
    return " ".join(f"{value:.6g}" for value in values[:_SHOWN]) + more


def _part(nested: object, number: int) -> object:
    return nested[number] if isinstance(nested, list) else nested


def _flat(nested: object) -> list[object]:
    if nested is None:
        return []
    return [one for part in nested for one in _flat(part)] if isinstance(nested, list) else [nested]
