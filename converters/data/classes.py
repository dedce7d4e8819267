"""From class names, as folders and tables spell them, to class indices."""

from collections.abc import Collection, Sequence

from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import DataError


def class_index(
    names: Collection[str], signature: ModelSignature, class_names: Sequence[str], *, where: str, what: str
) -> dict[str, int]:
    """What each name means: a label, a class index, or, where the names are complete, its place in their order.

    Args:
        names: as they stand in the data, each once.
        signature: of the model; the last axis of its first output are the classes.
        class_names: by class index; () where none are known.
        where: the data, for messages.
        what: what carries the names ("folder", "label").

    Raises:
        DataError: a name is none of `class_names`, or nothing says what the names mean.
    """
    ordered = sorted(names)
    if class_names:
        index = {name: number for number, name in enumerate(class_names)}
        unknown = [name for name in ordered if name not in index and not is_index(name)]
        if unknown:
            raise DataError(f"{where}: {what} {unknown[0]!r} is none of the {len(class_names)} labels")
        return {name: index[name] if name in index else int(name) for name in ordered}
    if all(is_index(name) for name in ordered):
        return {name: int(name) for name in ordered}
    shape = signature.outputs[0].shape if signature.outputs else []
    if shape and len(ordered) == shape[-1]:
        return {name: number for number, name in enumerate(ordered)}
    raise DataError(
        f"{where}: {len(ordered)} {what}s, but the model has {shape[-1] if shape else 'no'} classes, so their order "
        f"says nothing: give class indices as {what}s, or --labels with one name a line"
    )


def is_index(name: str) -> bool:
    """Whether a name is a class index: ASCII digits that fit 31 bits."""
    return name.isascii() and name.isdecimal() and len(name) <= 9
