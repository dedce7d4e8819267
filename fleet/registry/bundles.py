"""Published bundles: manifests and signatures in the database, contents in the blob folder."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.errors import ConflictError, UnknownError
from fleet.registry.models import BundleRow
from lepton_edge.bundle.manifest import Manifest, identity, read_manifest
from lepton_edge.typed import decode, encode
from lepton_edge.wire.chunks import BlobRef, blob_ref
from lepton_edge.wire.signatures import Signature

MAX_SIGNATURE = 4096


def check_known(session: Session, name: str, version: str, digest: str) -> bool:
    """Whether this very bundle is published. Raises ConflictError where its name and version mean another one."""
    row = session.scalars(select(BundleRow).where(BundleRow.name == name, BundleRow.version == version)).first()
    if row is not None and row.digest != digest:
        raise ConflictError(
            f"{name}-{version} is published with other content ({row.digest[:12]}, yours is {digest[:12]}): "
            "give yours a new version"
        )
    return row is not None


def add(session: Session, manifest_bytes: bytes, signature: Signature, now_ms: int) -> str:
    """Record a bundle whose files are all in the blob folder; again is harmless. Returns its digest."""
    manifest, digest = read_manifest(manifest_bytes), identity(manifest_bytes)
    if not check_known(session, manifest.name, manifest.version, digest):
        session.add(
            BundleRow(
                digest=digest,
                name=manifest.name,
                version=manifest.version,
                manifest=manifest_bytes,
                signature=encode(signature).decode(),
                published_ms=now_ms,
            )
        )
    return digest


def get(session: Session, digest: str) -> BundleRow:
    """Raises UnknownError."""
    row = session.get(BundleRow, digest)
    if row is None:
        raise UnknownError(f"bundle {digest[:12]} is not published here: publish it with `lepton-edge publish`")
    return row


def signature_of(row: BundleRow) -> Signature:
    return decode(row.signature.encode(), Signature, what=f"signature of {row.name}", limit=MAX_SIGNATURE)


def manifest_ref(row: BundleRow) -> BlobRef:
    return blob_ref(row.manifest)


def blobs_of(row: BundleRow) -> dict[str, BlobRef]:
    """Every blob that a device with this bundle as its goal may ask for: the manifest and all its files."""
    manifest: Manifest = read_manifest(row.manifest)
    refs = [manifest_ref(row), *manifest.files.values()]
    return {ref.sha256: ref for ref in refs}


def all_bundles(session: Session) -> list[BundleRow]:
    return list(session.scalars(select(BundleRow).order_by(BundleRow.name, BundleRow.published_ms)))


def missing(session: Session, digests: Iterable[str]) -> list[str]:
    """Those of `digests` that are not published here."""
    return [digest for digest in digests if session.get(BundleRow, digest) is None]
