"""Where the demo plays: a working folder, the commands that it types, and the services that run meanwhile.

Everything is a real process started through the real command line. Leaving the stage stops all services and deletes
all but what the visitor wants to keep.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import click

from lepton_edge.errors import LeptonError

STOP_S = 15.0
PROGRAM = (sys.executable, "-P", "-m", "lepton_edge")
"""-P: a folder `fleet` in the working directory must not hide the package of that name."""


class DemoError(LeptonError):
    code = "demo"


class Service:
    """A child that printed its JSON line: it is ready."""

    def __init__(self, process: subprocess.Popen[str], ready: dict[str, object], log: Path) -> None:
        self.process = process
        self.ready = ready
        self.log = log

    @property
    def http(self) -> str:
        return str(self.ready["http"])


class Stage:
    """Runs commands and services; a context manager that cleans up on every way out."""

    def __init__(self, keep: Path) -> None:
        keep.mkdir(parents=True, exist_ok=True)  # first: where it cannot be, nothing is left to clean up
        self.keep = keep
        self.folder = Path(tempfile.mkdtemp(prefix="lepton-demo-"))
        self._services: list[Service] = []
        passphrase = self.folder / "passphrase"
        passphrase.touch(mode=0o600)
        passphrase.write_text(secrets.token_urlsafe(16))
        self.env = {
            **os.environ,
            "LEPTON_FLEET": str(self.folder / "fleet"),
            "LEPTON_PASSPHRASE_FILE": str(passphrase),
            "PYTHONUNBUFFERED": "1",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for service in reversed(self._services):
            service.process.terminate()
        for service in reversed(self._services):
            _wait(service.process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *arguments: str | Path, status: int = 0) -> None:
        """Type a command where the visitor sees it; its output goes to the terminal.

        Raises:
            DemoError: it ended with another status.
        """
        self._say(arguments)
        got = subprocess.run([*PROGRAM, *map(str, arguments)], env=self.env, check=False).returncode
        if got != status:
            raise DemoError(f"`lepton-edge {arguments[0]}` ended with {got}, expected {status}")

    def document(self, *arguments: str | Path, status: int = 0) -> dict[str, object]:
        """Like `command`, with --json: its document."""
        words = [*PROGRAM, *map(str, arguments), "--json"]
        done = subprocess.run(words, env=self.env, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != status:
            raise DemoError(f"`lepton-edge {arguments[0]}` ended with {done.returncode}, expected {status}")
        document: dict[str, object] = json.loads(done.stdout)
        return document

    def service(self, name: str, *arguments: str | Path) -> Service:
        """Start a service in the background and wait for its JSON line.

        Raises:
            DemoError: it ended, or was not ready in time; the end of its log is in the message.
        """
        self._say(arguments, background=True)
        log = self.folder / f"{name}.log"
        with log.open("wb") as sink:
            # A session of its own: Ctrl-C reaches the demo alone, which then stops its services in order.
            process = subprocess.Popen(
                [*PROGRAM, *map(str, arguments)],
                env=self.env,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                start_new_session=True,
            )
        service = Service(process, {}, log)
        self._services.append(service)
        service.ready = _ready_line(process.stdout, name, log)
        return service

    @staticmethod
    def _say(arguments: tuple[str | Path, ...], *, background: bool = False) -> None:
        words = " ".join(Path(word).name if isinstance(word, Path) else word for word in arguments)
        click.secho(f"$ lepton-edge {words}{' &' if background else ''}", fg="cyan", err=True)


def _ready_line(stdout: IO[str] | None, name: str, log: Path) -> dict[str, object]:
    line = stdout.readline() if stdout is not None else ""
    if not line:
        raise DemoError(f"{name} did not start: {' / '.join(log.read_text(errors='replace').splitlines()[-3:])}")
    document: dict[str, object] = json.loads(line)
    return document


def _wait(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
