"""torch's own exporter, with what goes around it: open axes, names, errors that say what to do, a tidy result.

torch is imported inside of functions: the extra `torch` is optional.
"""

# ruff: noqa: PLC0415 - an optional package is imported by the function that needs it

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx

from converters.graph.signature import BATCH
from converters.importers.opset import TARGET
from converters.importers.quiet import quiet
from converters.importers.tidy import tidy
from converters.ort import first_line
from lepton_edge.errors import ModelError, UnsupportedOperatorError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Traceable:
    """A module in eval mode with what is needed to export and to run it.

    Attributes:
        module: the module; it is not changed.
        args: example inputs, tensors or constants, perhaps nested.
        kwargs: likewise, by name.
        where: how messages name it.
        kind: the source's format.
        input_names, output_names: of the graph; None where the exporter shall name the inputs.
        size_bytes, sha256: of the source file; None for a model in memory.
        open_axes: per input, axes beside the batch that stay open, with their names.
        input_layouts: per input, "NHWC" and the like where it is known.
        program: what torch.export made of the module already; its own open axes hold.
    """

    module: "torch.nn.Module"
    args: tuple[object, ...]
    where: str
    kind: str
    kwargs: dict[str, object]
    input_names: Sequence[str] | None = None
    output_names: Sequence[str] | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    open_axes: Sequence[Mapping[int, str]] | None = None
    input_layouts: Sequence[str] | None = None
    program: "torch.export.ExportedProgram | None" = None

    def tensors(self) -> "list[torch.Tensor]":
        """The example inputs that the graph will take, in order."""
        import torch
        from torch.utils import _pytree as pytree

        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def fed(self, change: "Callable[[torch.Tensor], object]") -> "Traceable":
        """With each tensor of the examples replaced."""
        import torch
        from torch.utils import _pytree as pytree

        def each(leaf: object) -> object:
            return change(leaf) if isinstance(leaf, torch.Tensor) else leaf

        args, kwargs = pytree.tree_map(each, (self.args, self.kwargs))
        return replace(self, args=args, kwargs=kwargs)

    def run(self) -> "list[torch.Tensor]":
        """The module's outputs on the examples, in the order in which a graph gives them."""
        import torch
        from torch.utils import _pytree as pytree

        with quiet(), torch.no_grad(), plain_attention():
            leaves = pytree.tree_leaves(self.module(*self.args, **self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


@contextmanager
def plain_attention() -> Iterator[None]:
    """Within it, transformer layers compute what they compute in training, dropout apart.

    In eval mode torch has a shortcut that gives zeros for what a padding mask hides, which no exporter writes down. And
    nn.Transformer looks into its mask for whether it is causal, a hint alone, which stops the exporter.
    """
    import torch

    layers, name = torch.nn.modules.transformer, "_detect_is_causal_mask"
    before, looks = torch.backends.mha.get_fastpath_enabled(), getattr(layers, name, None)
    torch.backends.mha.set_fastpath_enabled(False)
    if looks is not None:
        setattr(layers, name, lambda _mask, is_causal=None, _size=None: bool(is_causal))
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        if looks is not None:
            setattr(layers, name, looks)


def to_onnx(example: Traceable, *, open_batch: bool) -> onnx.ModelProto:
    """Have torch's exporter trace the module on its examples, or translate the program that it is already.

    Raises:
        UnsupportedOperatorError: an operator without an ONNX form.
        ModelError: whatever else the exporter stumbled over.
    """
    import torch

    # A program brings its inputs and open axes; a module is traced on the examples.
    traced = example.program is None
    try:
        outputs = list(example.output_names or _output_names(example))
        with quiet(), torch.no_grad(), plain_attention():
            made = torch.onnx.export(
                example.program if example.program is not None else example.module,
                example.args if traced else (),
                kwargs=example.kwargs if traced else None,
                dynamo=True,
                dynamic_shapes=_dynamic_shapes(example) if open_batch and traced else None,
                opset_version=TARGET,
                verbose=False,
            )
    except Exception as cause:  # the exporter runs the user's code, and has errors of many kinds itself
        raise _export_error(example.where, cause) from cause
    if made is None:
        raise ModelError(f"{example.where}: torch's exporter gave nothing")
    model = made.model_proto
    tidy(model, example.input_names, outputs)
    return model


def _dynamic_shapes(example: Traceable) -> dict[str, object]:
    """Which axes are open, by the arguments of the module's forward."""
    import torch
    from torch.utils import _pytree as pytree

    names = [{0: BATCH, **axes} for axes in example.open_axes or [{}] * len(example.tensors())]
    dims = {name: torch.export.Dim(_identifier(name)) for axes in names for name in axes.values()}
    waiting = iter(names)

    def axes(leaf: object) -> object:
        if not isinstance(leaf, torch.Tensor):
            return None
        return {axis: dims[name] for axis, name in next(waiting).items()}

    args, kwargs = pytree.tree_map(axes, (example.args, example.kwargs))
    bound = inspect.signature(example.module.forward).bind(*args, **kwargs)
    return dict(bound.arguments)


def _identifier(name: str) -> str:
    """A name that torch takes for an axis: one of Python's."""
    safe = "".join(char if char.isalnum() else "_" for char in name)
    return safe if safe.isidentifier() else f"axis_{safe}"


def _output_names(example: Traceable) -> list[str]:
    """A mapping's keys, else output, else output_0 and so on."""
    import torch
    from torch.utils import _pytree as pytree

    with quiet(), torch.no_grad():
        leaves, _ = pytree.tree_flatten_with_path(example.module(*example.args, **example.kwargs))
    paths = [path for path, leaf in leaves if isinstance(leaf, torch.Tensor)]
    names = [_path_name(path) for path in paths]
    if len(paths) == 1:
        return names if names[0] and not names[0].isdigit() else ["output"]
    return [name if name and not name.isdigit() else f"output_{index}" for index, name in enumerate(names)]


def _path_name(path: Sequence[object]) -> str:
    parts = (str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path)
    return "_".join(parts)


def _export_error(where: str, cause: BaseException) -> ModelError:
    """The exporter wraps what went wrong several times, with pages of advice on itself."""
    causes = [cause]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    for reason in causes:
        operator = _unmapped(str(reason))
        if operator:
            return UnsupportedOperatorError(
                f"{where}: operator {operator!r}: torch's exporter has no ONNX form for it: "
                "write that part with other operators, or export the model to ONNX yourself",
                operator=operator,
            )
    root = causes[-1]
    while root.__context__ is not None and (not str(root).strip() or "The error above occurred" in str(root)):
        root = root.__context__
    kind = type(root).__name__
    advice = "use torch.where or torch.cond for branches on values" if "DataDependent" in kind else "change that part"
    return ModelError(
        f"{where}: torch cannot export it: {kind}: {first_line(root)}: {advice}, or export the model to ONNX yourself "
        "and convert that"
    )


def _unmapped(message: str) -> str:
    """The operator in the exporter's message that it found no function for; "" where the message is another."""
    mark = "No ONNX function found for <OpOverload(op='"
    _, found, rest = message.partition(mark)
    return rest.partition("'")[0] if found else ""
