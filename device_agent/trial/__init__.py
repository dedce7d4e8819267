"""Proving that a variant computes here what it computed on the host, and measuring how fast."""

from dataclasses import dataclass
from pathlib import Path

from lepton_edge.bundle.golden import Golden
from lepton_edge.bundle.manifest import Manifest, Variant
from lepton_edge.runtimes import Session
from lepton_edge.wire.goal import Limits
from lepton_edge.wire.messages import Choice


@dataclass(frozen=True)
class Trial:
    """A variant that passed: loaded, and what was measured (`fetched` is the caller's to fill in)."""

    session: Session
    choice: Choice


def self_test(folder: Path, manifest: Manifest, variant: Variant, golden: Golden, *, limits: Limits) -> Trial:
    """Load, prove and measure a variant. Blocking."""
    raise NotImplementedError


def golden_check(session: Session, variant: Variant, golden: Golden) -> float:
    """The golden ratio of a loaded variant. Blocking."""
    raise NotImplementedError
