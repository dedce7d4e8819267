"""Einsum: diagonals and sums of each operand, then products of matrices, two operands at a time."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import Formula, known, product
from converters.write.tflite.ops.matmul import batch_matmul
from converters.write.tflite.program import Size, Value
from converters.write.tflite.table import lowers


class Term(NamedTuple):
    """A tensor with a letter for each axis."""

    value: Value
    letters: str


@lowers("Einsum", since=12)
def einsum(low: Lowering) -> None:
    """Letters that no later operand and no output has are summed as soon as they can be."""
    terms, goal = _parsed(low)
    if any(term.value.dtype != "float32" for term in terms):
        low.refuse(f"Einsum of {terms[0].value.dtype}")
    made = _reduced(low, terms[0], {*goal, *(letter for term in terms[1:] for letter in term.letters)})
    for number, term in enumerate(terms[1:], 2):
        later = {*goal, *(letter for one in terms[number:] for letter in one.letters)}
        other = _reduced(low, term, {*later, *made.letters})
        made = _product(low, made, other, later)
    if set(made.letters) != set(goal):
        low.refuse("an output with axes that no input has")
    order = tuple(made.letters.index(letter) for letter in goal)
    out = low.output()
    turned = low.transpose(made.value, order) if order != tuple(range(len(order))) else made.value
    Formula(low).same(turned, out)


def _parsed(low: Lowering) -> tuple[list[Term], str]:
    """Operands and output by letters; an ellipsis becomes letters of its own (ONNX operators, Einsum)."""
    equation = low.text("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    names = left.split(",")
    values = [low.input(index) for index in range(len(names))]
    if len(names) != len(low.inputs):
        low.refuse(f"the equation {equation!r} for {len(low.inputs)} inputs")
    free = [chr(code) for code in range(0x3B1, 0x3B1 + 16)]
    pairs = list(zip(values, names, strict=True))
    longest = max((value.rank - len(name) + 3 for value, name in pairs if "..." in name), default=0)
    dots = "".join(free[:longest])
    spelled = []
    for value, name in pairs:
        room = value.rank - len(name) + 3
        spelled.append(name.replace("...", dots[len(dots) - room :] if room else ""))
    if any(len(name) != value.rank for value, name in zip(values, spelled, strict=True)):
        low.refuse(f"the equation {equation!r} for inputs of ranks {[value.rank for value in values]}")
    whole = "".join(spelled)
    alone = "".join(sorted(letter for letter in set(whole) - set(dots) if whole.count(letter) == 1))
    goal = right.replace("...", dots) if arrow else dots + alone
    return [Term(value, name) for value, name in zip(values, spelled, strict=True)], goal


def _reduced(low: Lowering, term: Term, wanted: set[str]) -> Term:
    """Without letters that occur twice, and without those that nobody else has."""
    value, letters = term
    for letter in dict.fromkeys(letters):
        while letters.count(letter) > 1:
            first = letters.index(letter)
            value, letters = _diagonal(low, value, letters, (first, letters.index(letter, first + 1)))
    summed = [axis for axis, letter in enumerate(letters) if letter not in wanted]
    if not summed:
        return Term(value, letters)
    total = Formula(low).reduce("SUM", value, summed)
    kept = [axis for axis in range(value.rank) if axis not in summed]
    flat = low.reshape(total, [value.shape[axis] for axis in kept])
    return Term(flat, "".join(letters[axis] for axis in kept))


def _diagonal(low: Lowering, value: Value, letters: str, axes: tuple[int, int]) -> tuple[Value, str]:
    """The entries where two axes have the same index: masked by an identity, then summed."""
    first, second = axes
    size = value.shape[first]
    if not isinstance(size, int) or value.shape[second] != size:
        low.refuse("a diagonal of axes of different or open sizes")
    shape = [size if axis in axes else 1 for axis in range(value.rank)]
    mask = low.constant(np.eye(size, dtype=np.float32).reshape(shape), what="diagonal")
    total = Formula(low).reduce("SUM", Formula(low).mul(value, mask), [second])
    kept = [one for axis, one in enumerate(value.shape) if axis != second]
    return low.reshape(total, kept), letters[:second] + letters[second + 1 :]


def _product(low: Lowering, one: Term, other: Term, later: set[str]) -> Term:
    """Shared letters that are still wanted are batches, other shared ones are summed over."""
    sizes = _sizes(low, one, other)
    shared = [letter for letter in one.letters if letter in other.letters]
    batch = [letter for letter in shared if letter in later]
    inner = [letter for letter in shared if letter not in later]
    rows = [letter for letter in one.letters if letter not in shared]
    columns = [letter for letter in other.letters if letter not in shared]
    groups = (batch, rows, inner, columns)
    b, m, k, n = (product([sizes[letter] for letter in group], low) for group in groups)
    left = low.reshape(_ordered(low, one, [*batch, *rows, *inner]), (b, m, k))
    right = low.reshape(_ordered(low, other, [*batch, *inner, *columns]), (b, k, n))
    made = low.like(left, (b, m, n))
    batch_matmul(low, left, right, made)
    letters = [*batch, *rows, *columns]
    return Term(low.reshape(made, [sizes[letter] for letter in letters]), "".join(letters))


def _sizes(low: Lowering, *terms: Term) -> Mapping[str, Size]:
    sizes: dict[str, Size] = {}
    for value, letters in terms:
        for letter, size in zip(letters, value.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                low.refuse(f"sizes {sizes[letter]} and {size} for one letter")
    if known(list(sizes.values())) is not None and 0 in sizes.values():
        low.refuse("a product over no entries")
    return sizes


def _ordered(low: Lowering, term: Term, letters: Sequence[str]) -> Value:
    order = tuple(term.letters.index(letter) for letter in letters)
    return term.value if order == tuple(range(len(order))) else low.transpose(term.value, order)
