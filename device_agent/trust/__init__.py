"""Who may say what this device runs. One small interface; today's rule is a detached signature by an operator key."""

from typing import Protocol

from lepton_edge.bundle.manifest import Manifest, read_manifest
from lepton_edge.errors import SignatureError
from lepton_edge.wire.goal import ModelGoal
from lepton_edge.wire.signatures import Context, PublicKey, verify


class Verifier(Protocol):
    """Decides whether a manifest may be used. The TUF repository will stand behind this interface."""

    def verify_manifest(self, name: str, entry: ModelGoal, data: bytes) -> Manifest:
        """Parse `data` once it is known to be what the operator signed for this model.

        Args:
            name: the model's key in the goal.
            entry: what the goal says of it.
            data: the manifest's bytes; their hash is already known to be the goal's.

        Raises:
            SignatureError: nobody whom this device trusts signed it, or it is of another model.
            BundleError: it is no valid manifest.
        """
        ...


class OperatorKeys:
    """Ed25519 over the manifest's bytes, by one of the operator keys of the enrolment."""

    def __init__(self, keys: list[PublicKey]) -> None:
        self._keys = keys

    def verify_manifest(self, name: str, entry: ModelGoal, data: bytes) -> Manifest:
        verify(self._keys, Context.MANIFEST, data, entry.signature, what=f"manifest of {name}")
        manifest = read_manifest(data)
        if manifest.name != name:
            # Else whoever holds the goal key alone could answer for one model with another that was once signed.
            raise SignatureError(f"manifest of {name}: it is signed for model {manifest.name!r}")
        return manifest
