"""Inference in the caller's own process: `le.Agent(path).predict(x)`.

The path is a bundle (.lep or folder), of which the best variant is chosen as on any device, or the state folder of
an agent, of which every committed model answers. Such a folder is only read; an agent may be running on it. Models
are loaded once: what is deployed later is seen by the next `Agent`.
"""

import logging
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from device_agent.core.batch import first_batch, next_candidate
from device_agent.core.choice import candidates, obstacles
from device_agent.core.reason import with_reason
from device_agent.info import device_of, probe
from device_agent.serve.engine import ServedModel
from device_agent.serve.errors import UnknownModelError
from device_agent.store.journal import JournalFile
from device_agent.store.layout import Layout
from device_agent.store.slots import Slots
from device_agent.trial import Trial, self_test
from lepton_edge import durable
from lepton_edge.bundle import MANIFEST, Bundle
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.golden import Golden
from lepton_edge.bundle.manifest import Manifest, Variant
from lepton_edge.errors import LeptonError, RuntimeUnavailableError, SelfTestError, StorageError, UsageError
from lepton_edge.runtimes import open_session
from lepton_edge.wire.goal import Limits

_log = logging.getLogger(__name__)

Inputs = Array | Mapping[str, Array]


class Agent:
    """The models of a bundle or of a device, answering in this process. May be used from several threads."""

    def __init__(self, path: str | Path, *, limits: Limits | None = None, runtimes: Collection[str] = ()) -> None:
        """Load the models at `path`.

        Args:
            path: a .lep file, an unpacked bundle, or the state folder of an agent.
            limits: of a bundle: how many variants to measure, on how many threads, with how much memory.
            runtimes: of a bundle: those that may be used, by name; none: all that are installed.

        Raises:
            BundleError: no valid bundle.
            RuntimeUnavailableError: no variant of the bundle can run here.
            SelfTestError: none computes what it should.
            UsageError: neither a bundle nor a state folder, or no runtime has such a name.
        """
        path = Path(path)
        if path.is_dir() and not (path / MANIFEST).exists():
            models = _committed_models(path)
        else:
            models = [choose(Bundle.open(path), limits=limits or Limits(), runtimes=runtimes)]
        self._models = {model.manifest.name: model for model in models}

    @property
    def models(self) -> dict[str, ServedModel]:
        """What answers, by name."""
        return dict(self._models)

    def predict(self, *arguments: str | Inputs) -> Array | Arrays:
        """Run one inference: `predict(inputs)`, or `predict(model, inputs)` where there are several models.

        Args:
            arguments: the model's name where needed, then its inputs: an array where it takes one, else a dictionary
                by input name. Shapes are the model's own, with the batch where it has one.

        Returns:
            An array where the model gives one, else a dictionary by output name.

        Raises:
            UsageError: the call does not say which model, or one array is given for several inputs.
            UnknownModelError: there is no such model.
            DataError: the inputs do not fit.
            SelfTestError: the runtime failed.
        """
        model, inputs = self._parse(arguments)
        outputs = model.session.run(inputs)
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def _parse(self, arguments: tuple[str | Inputs, ...]) -> tuple[ServedModel, Mapping[str, Array]]:
        match arguments:
            case [str() as name, inputs] if not isinstance(inputs, str):
                model = self._named(name)
            case [inputs] if not isinstance(inputs, str) and len(self._models) == 1:
                model = next(iter(self._models.values()))
            case _:
                raise UsageError(f"say predict(model, inputs), where model is one of {sorted(self._models)}")
        if isinstance(inputs, Mapping):
            return model, inputs
        names = [spec.name for spec in model.manifest.signature.inputs]
        if len(names) != 1:
            raise UsageError(f"model {model.manifest.name!r} takes several inputs, give a dictionary with {names}")
        return model, {names[0]: np.asarray(inputs)}

    def _named(self, name: str) -> ServedModel:
        if name not in self._models:
            raise UnknownModelError(f"no model {name!r} here; there are {sorted(self._models)}")
        return self._models[name]

    def close(self) -> None:
        """Let go of the models."""
        self._models.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def choose(bundle: Bundle, *, limits: Limits, runtimes: Collection[str] = ()) -> ServedModel:
    """Measure the bundle's candidates on this machine and keep the fastest that passes, as a device does. Blocking.

    Args:
        bundle: of which a variant is chosen.
        limits: as of a deployment.
        runtimes: that may be used, by name; none: all that are installed.

    Raises:
        RuntimeUnavailableError: no variant can run here.
        SelfTestError: none passes.
        HashMismatchError, BundleError: a file is not what the manifest names.
    """
    device = device_of(probe(Path(tempfile.gettempdir()), {}, only=runtimes))
    able = candidates(bundle.manifest, device, limits=limits)
    if not able:
        reasons = obstacles(bundle.manifest, device, limits=limits)
        listed = "; ".join(f"{name} {why}" for name, why in reasons.items())
        raise RuntimeUnavailableError(f"{bundle.label}: no variant can run here: {listed}")
    with tempfile.TemporaryDirectory(prefix="lepton-edge-") as folder:
        best = _fastest(bundle, able, Path(folder), limits)
    return ServedModel(
        manifest=bundle.manifest,
        bundle=bundle.digest,
        variant=best.session.variant,
        session=best.session,
        choice=best.choice,
    )


def _fastest(bundle: Bundle, able: list[Variant], folder: Path, limits: Limits) -> Trial:
    """The fastest of the first batch that passes; the first that passes of the others where none does."""
    golden = bundle.golden()
    passed: list[Trial] = []
    failures: dict[str, str] = {}
    batch = first_batch(able, limits.max_candidates)
    while batch and not passed:
        for name in batch:
            try:
                passed.append(_try(bundle, bundle.manifest.variant(name), golden, folder, limits))
            except (SelfTestError, RuntimeUnavailableError) as error:
                _log.warning("%s: %s", bundle.label, error)
                failures[name] = str(error)
        following = next_candidate(able, failures)
        batch = [following] if following else []
    if not passed:
        raise SelfTestError(f"{bundle.label}: no variant passes here: {'; '.join(failures.values())}")
    best = min(passed, key=lambda trial: trial.choice.p50_ms)
    return replace(best, choice=with_reason(best.choice, [trial.choice for trial in passed], failures))


def _try(bundle: Bundle, variant: Variant, golden: Golden, folder: Path, limits: Limits) -> Trial:
    file = folder / variant.file
    with durable.translated(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bundle.read(variant.file))
    return self_test(folder, bundle.manifest, variant, golden, limits=limits)


def _committed_models(root: Path) -> list[ServedModel]:
    """What the agent of a state folder has committed; a model that does not load is left out with a warning."""
    layout = Layout(root)
    if not layout.models.is_dir():
        raise UsageError(f"{root}: neither a bundle nor an agent's state folder")
    found = []
    for name in layout.known_models():
        try:
            model = _committed_model(layout.model(name), name)
        except LeptonError as error:
            _log.warning("%s: model %s is left out: %s", root, name, error)
            continue
        found += [model] if model else []
    return found


def _committed_model(folder: Path, name: str) -> ServedModel | None:
    """None where the model is removed, or was never committed."""
    journal = JournalFile(folder, name).read()
    if journal is None or journal.committed is None or journal.removed_ms:
        return None
    committed, slots = journal.committed, Slots(folder)
    record = slots.read(committed.slot)
    if record is None or record.choice is None or record.bundle != committed.bundle:
        raise StorageError(f"slot {committed.slot} does not hold bundle {committed.bundle[:16]}")
    manifest: Manifest = slots.manifest(committed.slot, committed.bundle)
    variant = manifest.variant(record.choice.variant)
    file = slots.check_file(committed.slot, variant.file, manifest.files[variant.file])
    session = open_session(file, manifest.signature, variant, threads=record.threads)
    return ServedModel(manifest, committed.bundle, variant, session, record.choice)
