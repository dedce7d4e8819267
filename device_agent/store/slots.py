"""A model's two slots: one is live, the other takes the next deployment; `active` is switched by one rename."""

from collections.abc import Set as AbstractSet
from pathlib import Path

from device_agent.store import documents
from device_agent.store.blobs import Blobs
from lepton_edge import durable
from lepton_edge.bundle.manifest import MANIFEST, Manifest, identity, read_manifest
from lepton_edge.errors import HashMismatchError
from lepton_edge.typed import Record
from lepton_edge.wire.chunks import BlobRef, sha256
from lepton_edge.wire.messages import Choice

SLOTS = ("a", "b")


class SlotRecord(Record, frozen=True, kw_only=True):
    """What lies in a slot. choice: of the variant that passed the self-test; None before it. files: digests.
    threads: that it runs on.
    """

    deployment: str
    bundle: str
    files: list[str]
    choice: Choice | None = None
    threads: int = 1
    v: int = 1


class _Active(Record, frozen=True, kw_only=True):
    slot: str
    v: int = 1


class Slots:
    """The slots in one model's folder. Blocking."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._active = folder / "active.json"

    def create(self) -> None:
        with durable.translated(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
        durable.remove_leftovers(self._root)

    def folder(self, slot: str) -> Path:
        return self._root / f"slot-{slot}"

    def active(self) -> str | None:
        """The slot that is live; None where none is."""
        found = documents.load(self._active, _Active)
        return found.slot if found is not None and found.slot in SLOTS else None

    def switch(self, slot: str | None) -> None:
        """Make a slot live, or none. Raises DiskFullError or StorageError; the old one then stays."""
        if slot == self.active():
            return
        if slot is None:
            durable.remove(self._active)
        else:
            documents.save(self._active, _Active(slot=slot))

    def stage(self, slot: str, record: SlotRecord, manifest: bytes, files: dict[str, BlobRef], blobs: Blobs) -> None:
        """Fill a slot: all of it or nothing.

        Args:
            manifest: the bytes of manifest.json.
            files: path -> reference; each blob is complete.

        Raises:
            DiskFullError, StorageError: the slot is empty then.
        """
        self.discard(slot)
        building = self._root / f".slot-{slot}.tmp"
        durable.remove(building)
        with durable.translated(building):
            building.mkdir()
        for path, ref in files.items():
            blobs.link(ref, building / path)
        durable.write(building / MANIFEST, manifest)
        documents.save(self._record(slot), record)
        durable.move_into_place(building, self.folder(slot))

    def record(self, slot: str, record: SlotRecord) -> None:
        documents.save(self._record(slot), record)

    def read(self, slot: str) -> SlotRecord | None:
        return documents.load(self._record(slot), SlotRecord) if slot in SLOTS else None

    def prune(self, slot: str, keep: AbstractSet[str]) -> None:
        """Delete the files of a slot that are not in `keep`. Raises StorageError."""
        folder = self.folder(slot)
        with durable.translated(folder):
            for path in folder.rglob("*"):
                if path.is_file() and path.relative_to(folder).as_posix() not in keep:
                    path.unlink()

    def discard(self, slot: str) -> None:
        durable.remove(self.folder(slot))
        durable.remove(self._record(slot))

    def manifest(self, slot: str, bundle: str) -> Manifest:
        """The manifest in a slot, which must be of `bundle`.

        Raises:
            HashMismatchError, StorageError, BundleError: the slot is damaged or holds something else.
        """
        path = self.folder(slot) / MANIFEST
        with durable.translated(path):
            data = path.read_bytes()
        if identity(data) != bundle:
            raise HashMismatchError(f"{path}: not the manifest of bundle {bundle[:16]}")
        return read_manifest(data)

    def check_file(self, slot: str, path: str, ref: BlobRef) -> Path:
        """The file of a slot, verified against its hash. Raises HashMismatchError or StorageError."""
        file = self.folder(slot) / path
        with durable.translated(file), file.open("rb") as opened:
            found = sha256(opened.read())
        if found != ref.sha256:
            raise HashMismatchError(f"{file}: damaged, its hash is not the manifest's")
        return file

    def reachable(self) -> set[str]:
        """The digests of the blobs that the slots use."""
        records = [self.read(slot) for slot in SLOTS]
        return {digest for record in records if record for digest in [record.bundle, *record.files]}

    def _record(self, slot: str) -> Path:
        return self._root / f"slot-{slot}.json"


def other(slot: str | None) -> str:
    """The slot that is not `slot`."""
    return "b" if slot == "a" else "a"
