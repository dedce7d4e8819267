"""PyTorch: modules with example inputs, and .pt2 files, through torch's own exporter."""

# ruff: noqa: PLC0415 - an optional package is imported by the function that needs it

import copy
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from converters.graph.signature import OPEN, Shapes
from converters.importers.exported import import_traceable
from converters.importers.pt2 import check_archive
from converters.importers.quiet import quiet
from converters.importers.torch_export import Traceable
from converters.importers.weights import file_digest
from converters.ort import first_line
from converters.source import Source
from lepton_edge.errors import ModelError, UsageError

if TYPE_CHECKING:
    import torch

WAYS_IN = (
    "write a function that returns (module, example inputs) and convert `package.module:function`, or in Python "
    "load_model(module, inputs=(x,))"
)


def import_torch(module: object, inputs: object, *, shapes: Shapes, where: str = "") -> Source:
    """Export a `torch.nn.Module`.

    The module stays as it is: an evaluation copy that shares its tensors is exported.

    Args:
        module: the module.
        inputs: example inputs: a tuple of tensors or arrays (with constants where forward takes some), one tensor,
            or a mapping by forward's argument names. The first axis of each is the batch.
        shapes: by forward's argument names; "?" leaves an axis beside the batch open, as in {"ids": ["?", "?"]}.
        where: how messages name the module; its class by default.

    Raises:
        UsageError: no example inputs.
        ModelError, UnsupportedOperatorError: it does not run, cannot be exported, or the graph differs from it.
    """
    need_torch(where or type(module).__name__)
    import torch

    where = where or f"the {type(module).__name__}"
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"{where}: a {type(module).__name__} is no torch.nn.Module")
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(f"{where}: a TorchScript module cannot be exported: pass the module that it was made from")
    if inputs is None:
        raise UsageError(f"{where}: a torch module needs example inputs: load_model(module, inputs=(x,))")
    args, kwargs = _examples(inputs, where)
    names = _argument_names(module, args, kwargs)
    given = Traceable(
        _evaluation_copy(module), args, where, "torch", kwargs,
        input_names=names, open_axes=_open_axes(names, shapes) if names else None,
    )  # fmt: skip
    return import_traceable(given, shapes=shapes)


def import_pt2(path: Path, *, shapes: Shapes, trust: bool) -> Source:
    """Load a program that `torch.export.save` wrote.

    Raises:
        ModelError: unreadable, damaged, or (without `trust`) it holds something that could run code when it is loaded.
        UnsupportedOperatorError: an operator without an ONNX form.
    """
    need_torch(str(path))
    import torch

    check_archive(path, trust=trust)
    try:
        with quiet():
            program = torch.export.load(path)
            module = program.module()
    except Exception as cause:  # torch raises whatever the damage leads to
        raise ModelError(
            f"{path}: torch {torch.__version__} cannot load it: {type(cause).__name__}: {first_line(cause)}: "
            "save it again with torch.export.save"
        ) from cause
    if not program.example_inputs:
        raise ModelError(f"{path}: it holds no example inputs: save it again with torch.export.save")
    args, kwargs = program.example_inputs
    given = Traceable(
        module, tuple(args), str(path), "torch", dict(kwargs),
        size_bytes=path.stat().st_size, sha256=file_digest([path]), program=program,
    )  # fmt: skip
    return import_traceable(given, shapes=shapes)


def need_torch(what: str) -> None:
    """Raises ModelError where torch, or what its exporter needs, is not installed."""
    for package, name in (("torch", "PyTorch"), ("onnxscript", "onnxscript")):
        if importlib.util.find_spec(package) is None:
            raise ModelError(f"{what}: this needs {name}, which is not installed: pip install 'lepton-edge[torch]'")


def is_module(source: object) -> bool:
    """Whether an object is a torch module, found without importing torch."""
    return any(base.__module__.startswith("torch.nn.modules.") for base in type(source).__mro__)


def _examples(inputs: object, where: str) -> tuple[tuple[object, ...], dict[str, object]]:
    import torch
    from torch.utils import _pytree as pytree

    def tensor(leaf: object) -> object:
        if not isinstance(leaf, np.ndarray | np.generic):
            return leaf
        return torch.from_numpy(np.require(leaf, requirements=["C", "W"]))

    if isinstance(inputs, torch.Tensor | np.ndarray):
        inputs = (inputs,)
    if isinstance(inputs, list):
        inputs = tuple(inputs)
    if not isinstance(inputs, tuple | Mapping) or not inputs:
        raise UsageError(f"{where}: example inputs are a tuple of tensors, not {type(inputs).__name__}")
    given = pytree.tree_map(tensor, dict(inputs) if isinstance(inputs, Mapping) else inputs)
    if not any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(given)):
        raise UsageError(f"{where}: there is no tensor among the example inputs")
    return ((), cast("dict[str, object]", given)) if isinstance(given, dict) else (tuple(given), {})


def _argument_names(module: "torch.nn.Module", args: tuple[object, ...], kwargs: dict[str, object]) -> list[str] | None:
    """Forward's names of the tensors; None where some are nested or one of *args."""
    import torch
    from torch.utils import _pytree as pytree

    try:
        bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return None
    names = [name for name, value in bound.items() if isinstance(value, torch.Tensor)]
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    alike = len(names) == len(leaves) and all(bound[name] is leaf for name, leaf in zip(names, leaves, strict=True))
    return names if alike else None


def _open_axes(names: Sequence[str], shapes: Shapes) -> list[dict[int, str]]:
    """Axes beside the batch for which the user gave "?"."""
    return [
        {axis: f"{name}_{axis}" for axis, size in enumerate(shapes.get(name, ())) if axis and size == OPEN}
        for name in names
    ]


def _evaluation_copy(module: "torch.nn.Module") -> "torch.nn.Module":
    """A copy in eval mode that shares parameters and buffers: exporting leaves traces in a module's attributes."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    try:
        made = copy.deepcopy(module, dict(shared))
    except Exception as cause:  # __deepcopy__ and pickling of the user's own attributes
        raise ModelError(
            f"the {type(module).__name__} cannot be copied ({type(cause).__name__}: {first_line(cause)}): keep what "
            "cannot be copied (files, locks) out of the module"
        ) from cause
    return made.eval()
