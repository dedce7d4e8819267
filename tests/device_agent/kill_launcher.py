"""The real agent, except that it dies by SIGKILL at one chosen journal entry.

    python -m tests.device_agent.kill_launcher N before|after LOG run DEVICE.zip ...

Each entry is appended to LOG as `number state`. N = 0 kills nothing.
"""

import os
import signal
import sys
from pathlib import Path

from device_agent.cli import main
from device_agent.store.journal import Journal, JournalFile


def arm(number: int, moment: str, log: Path) -> None:
    """Wrap the journal's writing."""
    real = JournalFile.write
    count = 0

    def write(self: JournalFile, journal: Journal) -> None:
        nonlocal count
        count += 1
        with log.open("a") as file:
            file.write(f"{count} {journal.current.state if journal.current else 'removed'}\n")
        if count == number and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, journal)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    JournalFile.write = write  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    del sys.argv[1:4]
    main()
