"""What a runtime would take and compute wrongly, found before the file is written or trusted.

A runtime checks some of this when it plans a model, more of it with some delegates than with others, and much of it
never. So all of it is checked here, from tables: structure (`check_structure`), scales (`check_scales`), shapes
(`check_shapes`), versions.
"""

from collections.abc import Iterator

from converters.tflite.check_scales import scale_problems, tensor_problems
from converters.tflite.check_shapes import shape_problems
from converters.tflite.check_structure import structure_problems
from converters.tflite.model import Subgraph, TfliteModel
from converters.tflite.use import Use
from converters.tflite.versions import MAXIMA
from lepton_edge.errors import ModelError

_SHOWN = 8


def check_model(model: TfliteModel, *, where: str, runtime: str = "litert") -> None:
    """Refuse a model that a runtime would compute wrongly in silence.

    Args:
        model: every index in it must be one of its tensors, as the reader makes sure.
        where: a file's name, for the message.
        runtime: that is to run it, of `versions.MAXIMA`.

    Raises:
        ModelError: names each operator (index and code), its tensors and what is wrong; at most 8 of them.
    """
    found = list(_problems(model, runtime))
    if not found:
        return
    shown = "; ".join(found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise ModelError(
        f"{where}: {runtime} would refuse this model or compute something else: {shown}{more}. Export or convert it "
        f"again, and report it if lepton-edge wrote it"
    )


def _problems(model: TfliteModel, runtime: str) -> Iterator[str]:
    for number, subgraph in enumerate(model.subgraphs):
        place = f"subgraph {number} ({subgraph.name!r}), " if number else ""
        structure = [place + problem for problem in structure_problems(subgraph, model.subgraphs)]
        yield from structure
        if not structure:
            yield from (place + problem for problem in _subgraph_problems(subgraph, runtime))


def _subgraph_problems(subgraph: Subgraph, runtime: str) -> Iterator[str]:
    tensors = [f"tensor {one.name!r} has {problem}" for one in subgraph.tensors for problem in tensor_problems(one)]
    yield from tensors
    if tensors:
        return
    for index, operator in enumerate(subgraph.operators):
        use = Use.of(operator, subgraph.tensors)
        for problem in (*_version_problems(use, runtime), *scale_problems(use), *shape_problems(use)):
            yield f"operator {index} ({operator.code} that makes {_made(use)}): {problem}"


def _version_problems(use: Use, runtime: str) -> Iterator[str]:
    highest = MAXIMA[runtime].get(use.code, 0)
    if use.code != "CUSTOM" and use.operator.version > highest:
        yield f"{runtime} has " + (f"versions up to {highest}, not {use.operator.version}" if highest else "none")


def _made(use: Use) -> str:
    return ", ".join(repr(one.name) for one in use.outputs if one is not None) or "nothing"
