"""The stage that measures: every artifact is proven, timed and judged."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from converters.artifact import Artifact, in_timing_groups
from converters.decide import Facts, Verdict, judge
from converters.golden import LIMIT, Proof, is_dear, prove
from converters.host import stand_in
from converters.judged import Judged, follow_the_native, is_native, without_wrong_formats
from converters.measure.accuracy import Evaluation
from converters.measure.blame import Blame, blame_layers
from converters.measure.latency import measure_latency, summarise
from converters.measure.memory import measure_memory, release_memory
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import Latency, ModelSignature
from lepton_edge.errors import ModelError
from lepton_edge.progress import Progress, quiet


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
        ModelError: the source model gives no finite or no repeatable outputs, so nothing can be proven of it; or its
            only format that is wanted computes something else.
    """
    proofs, memory = _prove_and_weigh(artifacts, signature, inputs, progress)
    _check_source(proofs[artifacts[0].name])
    latencies = _time(artifacts, signature, inputs, progress) if terms.benchmark else {}
    release_memory()
    native = {artifact.name for artifact in artifacts if is_native(artifact)}
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
    judged = without_wrong_formats(judged, proofs[artifacts[0].name])
    _check_floats(judged)
    return [_with_blame(one, judged, prepared, blame, inputs) for one in follow_the_native(judged)]


def _prove_and_weigh(
    artifacts: Sequence[Artifact], signature: ModelSignature, inputs: Arrays, progress: Progress
) -> tuple[dict[str, Proof], dict[str, int]]:
    """Proofs, and the bytes that each file needs: in a process beside the proofs, behind them where files are large."""
    files = [artifact.path for artifact in artifacts]
    with ThreadPoolExecutor(1) as beside:
        started = None if any(is_dear(one) for one in artifacts) else beside.submit(measure_memory, files)
        proofs = _prove(artifacts, signature, inputs, progress)
        if started is None:
            release_memory(worth=0)
        needed = started.result() if started else measure_memory(files)
    return proofs, dict(zip((artifact.name for artifact in artifacts), needed, strict=True))


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


def _check_floats(judged: Sequence[Judged]) -> None:
    """Without a float file that can be relied on there is nothing to ship."""
    floats = [one for one in judged if one.artifact.is_float and one.artifact.shipped]
    if not any(one.verdict.kept for one in floats):
        raise ModelError(floats[0].verdict.reason)


def _time(
    artifacts: Sequence[Artifact], signature: ModelSignature, inputs: Arrays, progress: Progress
) -> dict[str, list[Latency]]:
    """Interleaved with the float model: all together where they are small, else each alone with its format's.

    Another runtime's speed says nothing: files whose own is not here are not timed. What seems no faster than float is
    timed once more, with float alone: on a busy machine one run in many says so of a file that is twice as fast.
    """
    found: dict[str, list[Latency]] = {}
    groups = in_timing_groups([artifact for artifact in artifacts if not stand_in(artifact.profile.runtime)])
    for number, group in enumerate(groups):

        def told(stage: str, done: int, total: int, before: int = number) -> None:
            progress(stage, before * total + done, len(groups) * total)

        sessions = {artifact.name: artifact.open(signature) for artifact in group}
        times = measure_latency(sessions, inputs, progress=told)
        for artifact in group:
            plain = next((one for one in group if one.is_float and one.format == artifact.format), group[0])
            summary = _summary(artifact, plain, times)
            if is_native(artifact) and not artifact.is_float and _share(summary) >= 1:
                pair = {one.name: sessions[one.name] for one in (plain, artifact)}
                summary = min(summary, _summary(artifact, plain, measure_latency(pair, inputs)), key=_share)
            found.setdefault(artifact.name, [summary])
        del sessions
        release_memory()
    return found


def _summary(artifact: Artifact, plain: Artifact, times: Mapping[str, Sequence[float]]) -> Latency:
    profile = artifact.profile
    timed = times[artifact.name], times[plain.name]
    return summarise(*timed, runtime=profile.runtime, threads=1, provider=profile.provider)


def _share(timed: Latency) -> float:
    """Of the float file's time."""
    return timed.p50_ms / timed.float_p50_ms if timed.float_p50_ms else 0.0


def _verdict(
    artifact: Artifact,
    proofs: Mapping[str, Proof],
    evaluation: Evaluation | None,
    latencies: Mapping[str, list[Latency]],
    terms: Terms,
) -> Verdict:
    if artifact.is_float:
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


def _with_blame(
    one: Judged, judged: Sequence[Judged], prepared: Path | None, blame: Sequence[Blame], inputs: Arrays
) -> Judged:
    """Name the layers that lost most: in a file that first aid mended those that it returned to float.

    A TFLite file is blamed by the ONNX one of its precision: the same steps, and its layers have names.
    """
    if blame and one.artifact.precision == "int8" and not one.artifact.is_float:
        return replace(one, blame=list(blame))
    alike = [two.artifact for two in judged if two.artifact.precision == one.artifact.precision]
    readable = next((two for two in (one.artifact, *alike) if two.format == "onnx"), None)
    if prepared is None or readable is None or not one.verdict.over_budget:
        return one
    return replace(one, blame=blame_layers(onnx.load(prepared), readable.read(), inputs))
