"""The ring of latency windows on disk: bounded, kept until acknowledged, and honest about what it lost.

One file per window, named by its place in the order and its id, so that an acknowledgement reads nothing. When the
ring is full the oldest windows make room. A window that goes is counted, with the drops that it carried itself, in
the `dropped` of the one that takes its place; the new file also names the files that it replaced, so that after a
crash between the two steps they are neither sent nor counted again. A file that cannot be read counts as a drop too.
"""

import logging
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from lepton_edge import durable
from lepton_edge.errors import MessageError, StorageError
from lepton_edge.telemetry.window import Window
from lepton_edge.typed import Record, decode, encode

_log = logging.getLogger(__name__)

CAPACITY = 1024
"""Windows; at most about 30 KB each, 2 KB as a rule."""
_MAX_FILE = 256 * 1024
_NAME = re.compile(r"(\d{16})-([0-9a-f]{32})\.json")


class _Stored(Record, frozen=True, kw_only=True):
    """A file of the ring. replaced: names of files whose drop `window.dropped` counts already."""

    window: Window
    replaced: list[str] = []
    v: int = 1


class Ring:
    """Windows that wait for the manager. Not safe across threads without the caller's lock."""

    def __init__(self, folder: Path, capacity: int = CAPACITY) -> None:
        """Open the ring in `folder`, which is made if need be, and finish what a crash interrupted.

        Args:
            folder: for this ring alone.
            capacity: the most windows that are kept, at least 1.

        Raises:
            StorageError: the folder cannot be made or read.
        """
        self._folder = folder
        self._capacity = max(1, capacity)
        self._lost = 0
        self._damaged: list[str] = []
        with durable.translated(folder):
            folder.mkdir(parents=True, exist_ok=True)
            durable.remove_leftovers(folder)
            found = [match for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
        self._next = 1 + max((int(match[1]) for match in found), default=0)
        self._names = {match[2]: match[0] for match in found}
        # The newest first: it may name an older one as replaced, which is then neither read nor counted.
        for name in sorted(self._names.values(), reverse=True):
            if name in self._names.values() and (stored := self._read(name)):
                self._forget(stored.replaced)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, window: Window) -> None:
        """Keep `window`, durably; a window that cannot be written is counted as dropped, not raised.

        Telemetry must not stop a device whose disk is full.
        """
        if window.id in self._names:
            return
        excess = max(0, len(self._names) + 1 - self._capacity)
        oldest = {name: self._weight(name) for name in sorted(self._names.values())[:excess]}
        replaced = [*oldest, *(name for name in self._damaged if name not in oldest)]
        dropped = window.dropped + self._lost + len(self._damaged) + sum(oldest.values())
        stored = _Stored(window=msgspec.structs.replace(window, dropped=dropped), replaced=replaced)
        name = f"{self._next:016d}-{window.id}.json"
        try:
            durable.write(self._folder / name, encode(stored))
        except StorageError as error:
            self._lost += 1 + window.dropped
            _log.warning("a latency window is lost: %s", error)
            return
        self._next += 1
        self._lost = 0
        self._damaged = []
        self._names[window.id] = name
        self._forget(replaced)

    def pending(self, limit: int) -> list[Window]:
        """The oldest windows that are not acknowledged, at most `limit`."""
        found: list[Window] = []
        for name in sorted(self._names.values()):
            if len(found) >= limit:
                break
            stored = self._read(name)
            if stored:
                found.append(stored.window)
        return found

    def acknowledge(self, ids: Iterable[str]) -> None:
        """Let go of windows that the manager has committed; ids that are not here are ignored."""
        self._forget([self._names[window_id] for window_id in set(ids) if window_id in self._names])

    def _weight(self, name: str) -> int:
        """How many windows are lost with this file; 0 where it is damaged, which `_read` counts by itself."""
        stored = self._read(name)
        return 1 + stored.window.dropped if stored else 0

    def _read(self, name: str) -> _Stored | None:
        """None where the file is damaged; it is left out from then on, and counted by the next window."""
        try:
            data = (self._folder / name).read_bytes()
            stored = decode(data, _Stored, what=name, limit=_MAX_FILE)
        except (OSError, MessageError) as error:
            _log.warning("a latency window is damaged and left out: %s", error)
            self._names = {key: value for key, value in self._names.items() if value != name}
            self._damaged.append(name)
            return None
        return stored

    def _forget(self, names: Iterable[str]) -> None:
        """Delete files, durably: one that came back after a power cut would be sent although it was counted lost.

        One that cannot be deleted is left to the next start; it is at worst sent again, which its id makes harmless.
        """
        gone = set(names)
        self._names = {key: value for key, value in self._names.items() if value not in gone}
        for name in sorted(gone):
            if not _NAME.fullmatch(name):
                continue
            try:
                durable.remove(self._folder / name)
            except StorageError as error:
                _log.warning("a latency window stays behind: %s", error)
