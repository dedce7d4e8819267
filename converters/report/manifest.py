"""What a bundle's manifest tells, in the form that the page is made from."""

from converters.outcome import Outcome, SourceOutcome, SplitOutcome, VariantOutcome
from converters.quantize.profiles import FLOATS
from lepton_edge.bundle import Bundle, Variant

_NO_PACKAGES = {"format", "sha256"}


def outcome_of_bundle(bundle: Bundle, where: str, report: str) -> Outcome:
    """The outcome of the conversion that made a bundle, as far as its manifest holds it.

    Args:
        bundle: opened; its files are not read.
        where: its path.
        report: the page's path.
    """
    manifest = bundle.manifest
    floats = [profile.name for profile in FLOATS]
    ranked = sorted(manifest.variants, key=lambda one: (one.profile not in floats, one.rank))
    variants = [_variant(one, manifest.files[one.file].size) for one in ranked]
    plain = next((one for one in variants if one.profile in floats), None)
    metric = plain.metric if plain else None
    return Outcome(
        bundle=where,
        report=report,
        name=manifest.name,
        version=manifest.version,
        source=SourceOutcome(
            format=manifest.source.get("format", ""), bytes=plain.bytes if plain else 0, metric=metric
        ),
        variants=variants,
        seconds=0.0,
        peak_rss_mb=0.0,
        split=SplitOutcome(evaluation=metric.n if metric else 0),
        versions={name: version for name, version in manifest.source.items() if name not in _NO_PACKAGES},
    )


def _variant(one: Variant, size: int) -> VariantOutcome:
    return VariantOutcome(
        name=one.name,
        format=one.format,
        precision=one.precision,
        profile=one.profile,
        file=one.file,
        bytes=size,
        metric=one.metric,
        drop=one.drop,
        drop_low=one.drop_low,
        drop_high=one.drop_high,
        agreement=one.agreement,
        int8_macs=one.int8_macs,
        latency=one.latency,
        memory=one.memory,
        tolerance=one.tolerance,
        speed=one.speed,
        judged_with=one.judged_with,
    )
