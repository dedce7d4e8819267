"""Artifacts with all that was measured of them, and what follows for one from another. Nothing is measured here."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from converters.artifact import Artifact
from converters.decide import Verdict
from converters.golden import LIMIT, Proof
from converters.host import stand_in
from converters.importers.check import how_apart
from converters.measure.accuracy import Evaluation
from converters.measure.blame import Blame
from converters.outcome import VariantOutcome
from converters.quantize.profiles import STATIC, Profile, host_flags, native_static
from lepton_edge.bundle.golden import distance
from lepton_edge.bundle.manifest import Latency, ModelSignature, Variant
from lepton_edge.runtimes import installed


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


def native_profile(runtime: str) -> Profile | None:
    """The profile of a runtime of which this host is one: its speed here says something."""
    flags, machine = host_flags()
    return native_static(runtime, flags=flags, machine=machine) if runtime in installed() else None


def is_native(artifact: Artifact) -> bool:
    """Whether this host is one that the artifact is made for."""
    return artifact.is_float or artifact.profile == native_profile(artifact.profile.runtime)


def without_wrong_formats(judged: list[Judged], source: Proof) -> list[Judged]:
    """Where the float file of a format does not compute what the source model does, none of its format is kept."""
    wrong = {
        one.artifact.format: reason for one in judged if one.artifact.is_float and (reason := _unlike(one, source))
    }
    return [
        replace(one, verdict=Verdict(kept=False, reason=wrong[one.artifact.format]))
        if one.artifact.format in wrong
        else one
        for one in judged
    ]


def _unlike(one: Judged, source: Proof) -> str:
    """How the model in another format differs from the source model on the golden inputs; "" where it does not."""
    if one.artifact.is_source:
        return ""
    if one.artifact.precision == "float32":
        apart = {name: how_apart(one.proof.outputs[name], want) for name, want in source.outputs.items()}
        found = next((f"output {name!r} {text}" for name, text in apart.items() if text), "")
    else:
        far = distance(source.outputs, one.proof.outputs)
        found = f"its outputs differ by {far:.2f} of their spread, at most {LIMIT:g} is rounding" if far > LIMIT else ""
    return found and f"{one.name} does not compute what the model does: {found}: please report it with the model"


def follow_the_native(judged: list[Judged]) -> list[Judged]:
    """Where int8 is not faster on the profile of this host, nothing speaks for its format's forms for other ones."""
    verdicts: dict[str, Verdict] = {}
    for one in judged:
        if one.native and _is_form(one) and not one.verdict.kept and not one.verdict.over_budget:
            verdict = Verdict(kept=False, reason=f"follows {one.name}: {one.verdict.reason}")
            verdicts.setdefault(one.artifact.format, verdict)
    return [
        replace(one, verdict=verdicts[one.artifact.format])
        if one.verdict.kept and _is_form(one) and one.artifact.format in verdicts
        else one
        for one in judged
    ]


def _is_form(one: Judged) -> bool:
    """Whether it is one of the forms of static int8."""
    return one.artifact.profile in STATIC


def ranked(judged: Sequence[Judged]) -> list[Judged]:
    """The kept variants of a bundle, the best first: quantised ones that pay, then float, then those that do not.

    Within a format a form for another profile stands right behind the one for this host, and quantised ones stand
    behind float where they are slower here, or no int8 pays on this host. Among formats that goes first whose
    quantised or else float form was the fastest here.
    """
    kept = [one for one in judged if one.verdict.kept and one.artifact.shipped]
    formats = sorted(dict.fromkeys(one.artifact.format for one in kept), key=lambda name: _quickest(kept, name))
    behind = {name: _stands_behind(kept, name) for name in formats}

    def place(one: Judged) -> tuple[int, int]:
        tier = 1 if one.artifact.is_float else 2 if behind[one.artifact.format] else 0
        return tier, formats.index(one.artifact.format)

    return sorted(kept, key=place)


def _quickest(kept: Sequence[Judged], name: str) -> float:
    """The least median of a format's native files here, in milliseconds; infinite where nothing was timed."""
    timed = [one.latency[0].p50_ms for one in kept if one.artifact.format == name and one.native and one.latency]
    return min(timed, default=float("inf"))


def _stands_behind(kept: Sequence[Judged], name: str) -> bool:
    """Whether a format's quantised files stand behind its float one."""
    alike = [one for one in kept if one.artifact.format == name]
    quantised = [one for one in alike if not one.artifact.is_float]
    timed = next((one.latency[0] for one in quantised if one.native and one.latency), None)
    slower = timed is not None and timed.p50_ms > timed.float_p50_ms
    return slower or bool(for_others_alone(alike))


def for_others_alone(judged: Sequence[Judged]) -> list[str]:
    """The formats whose int8 that is kept is all for other kinds of CPU: this host's profile says that none pays."""
    found: list[str] = []
    for name in dict.fromkeys(one.artifact.format for one in judged):
        kept = [one for one in judged if one.verdict.kept and _is_form(one) and one.artifact.format == name]
        native = any(native_profile(form.runtime) for form in STATIC if form.format == name)
        if kept and native and not any(one.native for one in kept):
            found.append(name)
    return found


def to_variant(one: Judged, signature: ModelSignature, evaluation: Evaluation | None, *, rank: int) -> Variant:
    """The manifest's entry."""
    base = one.artifact.variant(signature, rank=rank, tolerance=one.proof.tolerance)
    judged_with = stand_in(one.artifact.profile.runtime)
    known = {"memory": one.memory, "latency": one.latency, "judged_with": judged_with}
    return msgspec.structs.replace(base, **known, **_measured(one, evaluation))


def to_outcome(one: Judged, evaluation: Evaluation | None, *, written: bool) -> VariantOutcome:
    """The result's entry; written: whether a bundle is."""
    artifact = one.artifact
    return VariantOutcome(
        name=one.name,
        format=artifact.format,
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
        judged_with=stand_in(artifact.profile.runtime),
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
