"""Recurrent models whose state is fed back: data with a time axis, and how a model steps along it.

`--state OUT=IN` says that output OUT of one step is input IN of the next. Data for such a model give every other
input with one more axis after the samples' (the time); the state starts at zero with each sample.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from converters.data.dataset import Dataset
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.manifest import Binding, ModelSignature, TensorSpec
from lepton_edge.errors import DataError, ModelError, UsageError
from lepton_edge.runtimes import Session

TIME = "time"
Run = Callable[[Arrays], Arrays]
"""One step: inputs by name, state among them, to outputs by name."""


def parse_state(texts: Sequence[str]) -> dict[str, str]:
    """Read `OUT=IN`, several times, into inputs by output.

    Raises:
        UsageError: another form, or a name that is given twice.
    """
    state: dict[str, str] = {}
    for text in texts:
        out, equals, into = text.partition("=")
        if not equals or not out or not into or "=" in into:
            raise UsageError(f"--state {text!r}: expected OUTPUT=INPUT, as in --state h_out=h_in")
        if out in state or into in state.values():
            raise UsageError(f"--state {text!r}: {out!r} or {into!r} is in another --state already")
        state[out] = into
    return state


@dataclass(frozen=True)
class Recurrence:
    """How the steps of a model hang together; make one with `recurrence`.

    Attributes:
        signature: of one step, state among its inputs and outputs.
        state: input by the output that becomes it.
    """

    signature: ModelSignature
    state: Mapping[str, str]

    def sequence_signature(self) -> ModelSignature:
        """What data have to fit, and what a sequence gives: no state inputs, a time axis after the first one."""
        fed = set(self.state.values())
        return ModelSignature(
            inputs=[_timed(spec) for spec in self.signature.inputs if spec.name not in fed],
            outputs=list(self.signature.outputs),
        )

    def zeros(self) -> Arrays:
        """The state before the first step; an axis without a size counts 1."""
        specs = {spec.name: spec for spec in self.signature.inputs}
        return {into: _zeros(specs[into]) for into in self.state.values()}

    def steps(self, sample: Mapping[str, Array]) -> Iterator[Arrays]:
        """The inputs of each step, without the state.

        Args:
            sample: arrays of shape (1, time, ...), as `sequence_signature` describes them.

        Raises:
            DataError: no steps, or not equally many in each array.
        """
        lengths = {array.shape[1] for array in sample.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise DataError(f"a sequence's inputs have {sorted(lengths)} steps: give each equally many, at least 1")
        for at in range(lengths.pop()):
            yield {name: array[:, at] for name, array in sample.items()}

    def walk(self, run: Run, sample: Mapping[str, Array]) -> Iterator[tuple[Arrays, Arrays]]:
        """Run a sequence; the inputs of each step, state among them, and its outputs.

        Raises:
            DataError: as `steps`.
            ModelError: a state comes out in another shape than it goes in.
        """
        state = start = self.zeros()
        for step in self.steps(sample):
            given = {**step, **state}
            inputs = {spec.name: given[spec.name] for spec in self.signature.inputs}
            outputs = run(inputs)
            yield inputs, outputs
            state = {into: outputs[out] for out, into in self.state.items()}
            del outputs  # before the next step gives as much again
            for out, into in self.state.items():
                if state[into].shape != start[into].shape:
                    raise ModelError(
                        f"--state {out}={into}: {out!r} came out with shape {list(state[into].shape)}, {into!r} went "
                        f"in with {list(start[into].shape)}: give the sizes with --shape, or other names"
                    )


def recurrence(signature: ModelSignature, state: Mapping[str, str], *, where: str) -> Recurrence:
    """Check that the state fits the model.

    Args:
        signature: of one step.
        state: input by output, not empty.
        where: how messages name the model.

    Raises:
        UsageError: a name that the model lacks, a pair of different types or shapes, or no input left for data.
    """
    outputs = {spec.name: spec for spec in signature.outputs}
    inputs = {spec.name: spec for spec in signature.inputs}
    for out, into in state.items():
        if out not in outputs:
            raise UsageError(f"--state {out}={into}: {where} has no output {out!r}; it has {list(outputs)}")
        if into not in inputs:
            raise UsageError(f"--state {out}={into}: {where} has no input {into!r}; it has {list(inputs)}")
        if outputs[out].dtype != inputs[into].dtype or not _fits(outputs[out].shape, inputs[into].shape):
            raise UsageError(
                f"--state {out}={into}: {out!r} is {outputs[out].dtype} of shape {outputs[out].shape}, "
                f"{into!r} takes {inputs[into].dtype} of shape {inputs[into].shape}"
            )
    if len(set(state.values())) != len(state):
        raise UsageError(f"--state: {sorted(state.values())} names an input twice")
    if not set(inputs) - set(state.values()):
        raise UsageError(f"--state: every input of {where} is state, so no data could drive it: leave one out")
    return Recurrence(signature, dict(state))


def run_sequence(run: Run, sample: Mapping[str, Array], how: Recurrence) -> Arrays:
    """The outputs of a sequence's last step. Raises as `Recurrence.walk`."""
    outputs: Arrays = {}
    for _, outputs in how.walk(run, sample):  # noqa: B007 - the last one counts
        pass
    return outputs


def step_samples(data: Dataset, how: Recurrence, run: Run, count: int) -> Arrays:
    """Inputs of single steps as they occur in sequences, real state among them, for the golden test.

    Args:
        data: sequences.
        how: how the model steps.
        run: one step of the float model.
        count: how many; the i-th is from the i-th sequence in turn, and ever further along it.

    Returns:
        Arrays by input name, the first axis the `count` steps.
    """
    chosen = []
    for number in range(count):
        sample = data.inputs(number % len(data))
        length = next(iter(sample.values())).shape[1]
        # The last step for the last number: the state needs time to leave zero.
        wanted = (number + 1) * length // count - 1 if count > 1 else length - 1
        chosen.append(_inputs_at(how, run, sample, max(0, wanted)))
    return {name: np.concatenate([inputs[name] for inputs in chosen]) for name in chosen[0]}


def _inputs_at(how: Recurrence, run: Run, sample: Arrays, wanted: int) -> Arrays:
    for at, (inputs, _) in enumerate(how.walk(run, sample)):
        if at == wanted:
            return inputs
    raise DataError(f"a sequence ended before its step {wanted}")


class _Unrolled:
    """Runs whole sequences through a session of single steps."""

    def __init__(self, session: Session, how: Recurrence) -> None:
        self._session = session
        self._how = how

    def execute(self, inputs: Mapping[str, Array]) -> Arrays:
        return run_sequence(self._session.run, inputs, self._how)


def stateful_session(session: Session, how: Recurrence) -> Session:
    """A session whose inputs are sequences and whose outputs are those of the last step.

    Its variant is the step's, with bindings that leave arrays as they are: the step's own session applies the real
    ones at each step.
    """
    signature = how.sequence_signature()
    plain = msgspec.structs.replace(
        session.variant, inputs=_identity(signature.inputs), outputs=_identity(signature.outputs)
    )
    return Session(_Unrolled(session, how), signature, plain)


def _identity(specs: Sequence[TensorSpec]) -> list[Binding]:
    return [Binding(name=spec.name, tensor=spec.name, dtype=spec.dtype) for spec in specs]


def _timed(spec: TensorSpec) -> TensorSpec:
    return TensorSpec(name=spec.name, dtype=spec.dtype, shape=[*spec.shape[:1], TIME, *spec.shape[1:]])


def _zeros(spec: TensorSpec) -> Array:
    return np.zeros([size if isinstance(size, int) else 1 for size in spec.shape], spec.dtype)


def _fits(out: Sequence[int | str], into: Sequence[int | str]) -> bool:
    """Whether shapes can be one; a name stands for any size."""
    return len(out) == len(into) and all(
        a == b or isinstance(a, str) or isinstance(b, str) for a, b in zip(out, into, strict=True)
    )
