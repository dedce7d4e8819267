"""The runtimes that execute a variant's file, behind one protocol, for host and device alike.

A runtime is one module in this package that defines `RUNTIME`; nothing else needs to know of it. Modules whose names
begin with an underscore are shared by runtimes. A library is imported when it is first asked for, so that a runtime
which is not installed costs nothing.

Source of the idea: docs/decisions/0002.
"""

import importlib
import pkgutil
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

from lepton_edge.bundle.binding import Array, Arrays, check_inputs, from_file, to_file
from lepton_edge.bundle.manifest import ModelSignature, Variant
from lepton_edge.errors import DataError, RuntimeUnavailableError


class Executor(Protocol):
    """A loaded file. Speaks the file's own tensor names, types and axis orders."""

    def execute(self, inputs: Mapping[str, Array]) -> Arrays:
        """Run once; inputs and outputs keyed by the file's tensor names. Raises SelfTestError on failure."""
        ...


class Runtime(Protocol):
    """A library that executes files of one format."""

    name: str
    format: str

    def version(self) -> str | None:
        """The library's version; None where it is not installed, or cannot work with what is."""
        ...

    def providers(self) -> list[str]:
        """The back ends that it offers here: each computes a file in its own way.

        Raises:
            ImportError, OSError: the library is installed and broken.
        """
        ...

    def load(self, file: Path, *, threads: int, provider: str | None = None) -> Executor:
        """Load a file to run on `threads` threads.

        Args:
            file: of the runtime's format.
            threads: 1 or more.
            provider: one of `providers()`; None: the one that devices use.

        Raises:
            RuntimeUnavailableError: there is no such provider.
            SelfTestError: the runtime does not take the file.
        """
        ...


class Session:
    """A variant, loaded: takes and gives arrays of the model signature, and applies the bindings between.

    Threads may share it; they take turns, because not every runtime lets two into one session.
    """

    def __init__(self, executor: Executor, signature: ModelSignature, variant: Variant) -> None:
        self.signature = signature
        self.variant = variant
        self._executor = executor
        self._turn = threading.Lock()
        self._outputs = {spec.name: spec for spec in signature.outputs}

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """One inference.

        Args:
            inputs: by the signature's names; the first axis is the batch where the signature says so.

        Raises:
            DataError: the inputs do not fit the signature.
            SelfTestError: the runtime failed.
        """
        checked = check_inputs(self.signature, inputs)
        fed = {binding.tensor: to_file(binding, checked[binding.name]) for binding in self.variant.inputs}
        with self._turn:
            given = self._executor.execute(fed)
        results = {
            binding.name: from_file(binding, given[binding.tensor], self._outputs[binding.name].dtype)
            for binding in self.variant.outputs
        }
        return {name: results[name] for name in self._outputs}

    def split_samples(self, samples: Mapping[str, Array]) -> list[Arrays]:
        """Part samples (along the first axis) into the inputs of single runs.

        Each run takes one sample, or as many as a signature with a fixed first axis wants.

        Raises:
            DataError: there are none.
        """
        if not self.signature.inputs or not samples or any(np.size(array) == 0 for array in samples.values()):
            raise DataError("no samples to run")
        first = self.signature.inputs[0].shape[:1]
        step = first[0] if first and isinstance(first[0], int) and first[0] > 0 else 1
        rows = {name: np.atleast_1d(array) for name, array in samples.items()}
        count = min(len(array) for array in rows.values())
        return [{name: array[i : i + step] for name, array in rows.items()} for i in range(0, count, step)]

    def run_samples(self, samples: Mapping[str, Array]) -> Arrays:
        """Run samples one after another, as requests do, and join their outputs: how golden.npz is made and checked.

        A batch would not do: dynamic quantisation takes its scale from the whole batch, so that a sample's output
        would depend on its neighbours.

        Args:
            samples: by the signature's names, as `split_samples` takes them.

        Raises:
            DataError: the samples do not fit the signature.
            SelfTestError: the runtime failed.
        """
        runs = [self.run(inputs) for inputs in self.split_samples(samples)]
        return {name: np.concatenate([np.atleast_1d(outputs[name]) for outputs in runs]) for name in self._outputs}


@cache
def runtimes() -> dict[str, Runtime]:
    """All runtimes that lepton-edge knows, by name, installed or not."""
    found: dict[str, Runtime] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        runtime: Runtime = importlib.import_module(f"{__name__}.{module.name}").RUNTIME
        if runtime.name in found:
            raise RuntimeError(f"two runtimes are named {runtime.name}")
        found[runtime.name] = runtime
    return found


def installed() -> dict[str, Runtime]:
    """The runtimes that can be used here."""
    return {name: runtime for name, runtime in runtimes().items() if runtime.version() is not None}


def open_session(file: Path, signature: ModelSignature, variant: Variant, *, threads: int = 1) -> Session:
    """Load a variant's file with its runtime.

    Raises:
        RuntimeUnavailableError: the runtime is unknown or not installed, or lacks the variant's provider.
        SelfTestError: the runtime does not take the file.
    """
    runtime = installed().get(variant.runtime)
    if runtime is None:
        raise RuntimeUnavailableError(f"variant {variant.name} needs the runtime {variant.runtime}, not installed here")
    executor = runtime.load(file, threads=threads, provider=variant.provider or None)
    return Session(executor, signature, variant)
