"""One TFLite file as two variants: for LiteRT, and for tflite-runtime where it has all of the file's operators.

Where LiteRT has no wheel, a device has tflite-runtime alone, and a bundle must hold something for it. Nothing here can
time that (it wants NumPy < 2), so both float and int8 are offered, and the device keeps what it finds to be faster. A
form that its own profile made goes before a twin.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from converters.golden import LIMIT, Proof
from converters.host import stand_in
from converters.judged import Judged, to_outcome, to_variant
from converters.measure.accuracy import Evaluation
from converters.outcome import VariantOutcome
from converters.tflite_files import runs_on
from lepton_edge.bundle.manifest import ModelSignature, Variant

RUNTIME, PROFILE, SUFFIX = "tflite-runtime", "tflite-runtime-2.14", "-2.14"


class Twin(NamedTuple):
    """One kept variant for the older runtime. min_runtime: the oldest release of that which takes the file."""

    of: Judged
    min_runtime: str

    @property
    def name(self) -> str:
        return f"{self.of.name}{SUFFIX}"

    @property
    def proof(self) -> Proof:
        """What its devices must repeat: the older runtime has XNNPACK for float alone.

        Where TFLite's two sets of kernels are too far apart for one test, those of the older runtime, which mix them
        and which nothing here can run, get the widest test that still tells a broken file. (Measured on an int8
        MobileNetV2 with float parts: 0.09 from TFLite's own kernels of today, whose threads repeat each other.)
        """
        proof = self.of.proof.builtin or self.of.proof
        return proof._replace(tolerance=LIMIT) if self.of.proof.note else proof

    def variant(self, signature: ModelSignature, evaluation: Evaluation | None, *, rank: int) -> Variant:
        """The manifest's entry; rank: of the variant that it is a twin of."""
        made = to_variant(self.of, signature, evaluation, rank=rank)
        return msgspec.structs.replace(made, runtime=RUNTIME, min_runtime=self.min_runtime, **self._unmeasured())

    def outcome(self, evaluation: Evaluation | None, *, written: bool) -> VariantOutcome:
        """The result's entry."""
        return msgspec.structs.replace(to_outcome(self.of, evaluation, written=written), **self._unmeasured())

    def _unmeasured(self) -> Mapping[str, Any]:
        """What no host of the runtime has shown."""
        judged_with = stand_in(RUNTIME)
        return {
            "name": self.name,
            "profile": PROFILE,
            "latency": [],
            "speed": "unmeasured",
            "judged_with": judged_with,
            "tolerance": self.proof.tolerance,
        }


def find_twins(judged: Sequence[Judged]) -> list[Twin]:
    """The kept TFLite variants that the older runtime takes too."""
    kept = [one for one in judged if one.verdict.kept and one.artifact.shipped and one.artifact.format == "tflite"]
    names = {one.name for one in kept}
    found = []
    for one in kept:
        if one.artifact.profile.runtime == RUNTIME or f"{one.name}{SUFFIX}" in names:
            continue
        oldest, able = runs_on(one.artifact.path)
        if RUNTIME in able:
            found.append(Twin(one, oldest))
    return found
