"""Which of the candidates are tried together, and which comes next. Pure."""

from collections.abc import Collection, Sequence

from lepton_edge.bundle.manifest import Variant


def first_batch(candidates: Sequence[Variant], most: int) -> list[str]:
    """The best candidate of each runtime, at most `most` of them: what is fetched and measured at first.

    Args:
        candidates: as `choice.candidates` orders them.
    """
    batch: list[Variant] = []
    for variant in candidates[:most]:
        if variant.runtime in {chosen.runtime for chosen in batch}:
            break
        batch.append(variant)
    return [variant.name for variant in batch]


def next_candidate(candidates: Sequence[Variant], tried: Collection[str]) -> str | None:
    """The one to fetch when all before have failed; None where none is left."""
    return next((variant.name for variant in candidates if variant.name not in tried), None)
