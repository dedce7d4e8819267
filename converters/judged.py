"""Artifacts with all that was measured of them, and the stage that measures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import onnx

from converters.artifact import Artifact, in_groups
from converters.decide import Facts, Verdict, judge
from converters.golden import LIMIT, Proof, prove
from converters.measure.accuracy import Evaluation
from converters.measure.blame import Blame, blame_layers
from converters.measure.latency import measure_latency, summarise
from converters.measure.memory import measure_memory, release_memory
from converters.outcome import VariantOutcome
from converters.quantize.profiles import STATIC, Profile, host_flags, native_static
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import Latency, ModelSignature, Variant
from lepton_edge.errors import ModelError
from lepton_edge.progress import Progress, quiet


@dataclass(frozen=True)
class Judged:
    """One artifact, what was measured of it, and what follows."""

    artifact: Artifact
    proof: Proof
    verdict: Verdict
    latency: list[Latency] = field(default_factory=list)
    memory: int = 0
    native: bool = False
    blame: list[Blame] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.artifact.name


@dataclass(frozen=True)
class Terms:
    """On what terms variants are judged. budget: points, None where nothing is promised."""

    budget: float | None
    keep_all: bool = False
    benchmark: bool = True


def judge_artifacts(
    artifacts: Sequence[Artifact],
    signature: ModelSignature,
    inputs: Arrays,
    evaluation: Evaluation | None,
    *,
    terms: Terms,
    prepared: Path | None = None,
    blame: Sequence[Blame] = (),
    progress: Progress = quiet,
) -> list[Judged]:
    """Prove, time and judge every artifact.

    Args:
        artifacts: the float one first.
        signature: of the source model.
        inputs: the golden inputs.
        evaluation: what each variant did on the user's data; None where nothing was evaluated.
        terms: the budget and what else decides.
        prepared: the file of the float graph behind the quantised ones, to name layers in.
        blame: the layers that first aid found to lose most, where it was needed.
        progress: told after each proof, and during the timing.

    Raises:
        SelfTestError: the runtime does not take a file.
        ModelError: the source model gives no finite or no repeatable outputs, so nothing can be proven of it.
    """
    proofs = _prove(artifacts, signature, inputs, progress)
    _check_source(proofs[artifacts[0].name])
    latencies = _time(artifacts, signature, inputs, progress) if terms.benchmark else {}
    release_memory()
    needed = measure_memory([artifact.path for artifact in artifacts])
    memory = dict(zip((artifact.name for artifact in artifacts), needed, strict=True))
    native = {artifact.name for artifact in artifacts if artifact.is_source or artifact.profile is _native_profile()}
    judged = [
        Judged(
            artifact=artifact,
            proof=proofs[artifact.name],
            verdict=_verdict(artifact, proofs, evaluation, latencies if artifact.name in native else {}, terms),
            latency=latencies.get(artifact.name, []),
            memory=memory[artifact.name],
            native=artifact.name in native,
        )
        for artifact in artifacts
    ]
    return [_with_blame(one, prepared, blame, inputs) for one in _follow_the_native(judged)]


def _prove(
    artifacts: Sequence[Artifact], signature: ModelSignature, inputs: Arrays, progress: Progress
) -> dict[str, Proof]:
    proofs = {}
    for done, artifact in enumerate(artifacts, start=1):
        proofs[artifact.name] = prove(artifact, signature, inputs)
        release_memory()
        progress("proving", done, len(artifacts))
    return proofs


def _check_source(proof: Proof) -> None:
    """Without a source that can be relied on there is nothing to compare with."""
    if not proof.finite:
        raise ModelError("the source model gives NaN or Inf on the golden inputs: give --data that it is made for")
    if proof.tolerance > LIMIT:
        raise ModelError(
            f"the source model's outputs differ by {proof.spread:.2f} of their spread between runs or kernels: "
            "is there a random operator in it? Export it for inference"
        )


def _native_profile() -> Profile | None:
    """The profile of which this host is one: its speed here says something."""
    flags, machine = host_flags()
    return native_static(flags=flags, machine=machine)


def _time(
    artifacts: Sequence[Artifact], signature: ModelSignature, inputs: Arrays, progress: Progress
) -> dict[str, list[Latency]]:
    """Interleaved with the float model: all together where they are small, else each alone with it."""
    plain = artifacts[0]
    found: dict[str, list[Latency]] = {}
    groups = in_groups(artifacts)
    for number, group in enumerate(groups):

        def told(stage: str, done: int, total: int, before: int = number) -> None:
            progress(stage, before * total + done, len(groups) * total)

        sessions = {artifact.name: artifact.open(signature) for artifact in group}
        times = measure_latency(sessions, inputs, progress=told)
        for artifact in group:
            summary = summarise(times[artifact.name], times[plain.name], runtime=artifact.profile.runtime, threads=1)
            found.setdefault(artifact.name, [summary])
        del sessions
        release_memory()
    return found


def _verdict(
    artifact: Artifact,
    proofs: Mapping[str, Proof],
    evaluation: Evaluation | None,
    latencies: Mapping[str, list[Latency]],
    terms: Terms,
) -> Verdict:
    if artifact.is_source:
        return Verdict(kept=True)
    timed = latencies.get(artifact.name)
    proof = proofs[artifact.name]
    facts = Facts(
        drop=evaluation.drop(artifact.name).value if evaluation else None,
        finite=proof.finite and not (evaluation and evaluation.variants[artifact.name].not_finite),
        tolerance=proof.tolerance,
        p50_ms=timed[0].p50_ms if timed else None,
        float_p50_ms=timed[0].float_p50_ms if timed else None,
        unit=evaluation.metric.unit if evaluation else "fraction",
    )
    return judge(facts, budget=terms.budget if evaluation else None, keep_all=terms.keep_all)


def _follow_the_native(judged: list[Judged]) -> list[Judged]:
    """Where int8 is not faster on the profile of this host, nothing speaks for its forms for other profiles."""
    forms = {profile.variant for profile in STATIC}
    native = next((one for one in judged if one.native and one.name in forms), None)
    if native is None or native.verdict.kept or native.verdict.over_budget:
        return judged
    verdict = Verdict(kept=False, reason=f"follows {native.name}: {native.verdict.reason}")
    return [replace(one, verdict=verdict) if one.name in forms and one.verdict.kept else one for one in judged]


def _with_blame(one: Judged, prepared: Path | None, blame: Sequence[Blame], inputs: Arrays) -> Judged:
    """Name the layers that lost most: in a file that first aid mended those that it returned to float."""
    if blame and one.artifact.precision == "int8" and not one.artifact.is_source:
        return replace(one, blame=list(blame))
    if prepared is None or not one.verdict.over_budget:
        return one
    return replace(one, blame=blame_layers(onnx.load(prepared), one.artifact.read(), inputs))


def ranked(judged: Sequence[Judged]) -> list[Judged]:
    """The kept variants, the best first: by the latency measured on a host of their profile; float last on a tie.

    A form for another profile stands right behind the one for this host, float behind what is not slower. Where no
    int8 pays on this host, forms for other profiles stand behind float.
    """
    kept = [one for one in judged if one.verdict.kept]
    quantised = [one for one in kept if not one.artifact.is_source]
    plain = [one for one in kept if one.artifact.is_source]
    timed = next((one.latency[0] for one in quantised if one.native and one.latency), None)
    slower = timed is not None and timed.p50_ms > timed.float_p50_ms
    return plain + quantised if slower or for_others_alone(kept) else quantised + plain


def for_others_alone(judged: Sequence[Judged]) -> bool:
    """Whether all int8 that is kept is for other kinds of CPU: this host has a profile, by which none pays here."""
    forms = {profile.variant for profile in STATIC}
    kept = [one for one in judged if one.verdict.kept and one.name in forms]
    return bool(kept) and _native_profile() is not None and not any(one.native for one in kept)


def to_variant(one: Judged, signature: ModelSignature, evaluation: Evaluation | None, *, rank: int) -> Variant:
    """The manifest's entry."""
    base = one.artifact.variant(signature, rank=rank, tolerance=one.proof.tolerance)
    return msgspec.structs.replace(base, memory=one.memory, latency=one.latency, **_measured(one, evaluation))


def to_outcome(one: Judged, evaluation: Evaluation | None, *, written: bool) -> VariantOutcome:
    """The result's entry; written: whether a bundle is."""
    artifact = one.artifact
    return VariantOutcome(
        name=one.name,
        format="onnx",
        precision=artifact.precision,
        profile=artifact.profile.name,
        file=artifact.file if one.verdict.kept and written else "",
        bytes=artifact.size,
        int8_macs=artifact.int8_macs,
        latency=one.latency,
        memory=one.memory,
        tolerance=one.proof.tolerance,
        golden_spread=one.proof.spread,
        kept=one.verdict.kept and written,
        reason=one.verdict.reason or ("" if written else "no bundle was written"),
        blame=one.blame,
        kept_float=list(artifact.notes),
        **_measured(one, evaluation),
    )


def _measured(one: Judged, evaluation: Evaluation | None) -> dict[str, Any]:
    speed = {"speed": "measured" if one.native and one.latency else "unmeasured"}
    return speed | (accuracy_of(one.name, evaluation, is_source=one.artifact.is_source) if evaluation else {})


def accuracy_of(name: str, evaluation: Evaluation, *, is_source: bool) -> dict[str, Any]:
    """The fields of a variant that tell its accuracy; is_source: whether it is what the others are compared with."""
    if is_source:
        return {
            "metric": evaluation.value(evaluation.source),
            "drop": 0.0,
            "drop_low": 0.0,
            "drop_high": 0.0,
            "agreement": 1.0,
        }
    drop = evaluation.drop(name)
    return {
        "metric": evaluation.value(evaluation.variants[name]),
        "drop": drop.value,
        "drop_low": drop.low,
        "drop_high": drop.high,
        "agreement": evaluation.agreement(name),
    }
