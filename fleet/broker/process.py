"""A broker as a child process: started, awaited until it answers a CONNECT, stopped, killed, started again.

`answers` is the whole of MQTT that is spoken here: one CONNECT and its CONNACK, because a listening socket alone
does not mean that the broker serves.
"""

import contextlib
import logging
import os
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from lepton_edge.errors import ConnectionFailedError

log = logging.getLogger(__name__)

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
_POLL_S = 0.02
_CLIENT_ID = b"lepton-edge-probe"


def free_port(host: str = "127.0.0.1", port: int = 0) -> int:
    """A TCP port that nobody uses at this moment: `port`, or any where that is 0. Raises OSError: it is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Bound, never listening: clients of a broker that is being restarted would get in, and wait for an answer.
        probe.bind((host, port))
        found: int = probe.getsockname()[1]
        return found


def _connect_packet() -> bytes:
    """MQTT 5.0 section 3.1: clean start, 10 s keep alive, no properties."""
    body = b"\x00\x04MQTT\x05\x02\x00\x0a\x00" + len(_CLIENT_ID).to_bytes(2, "big") + _CLIENT_ID
    return bytes([0x10, len(body)]) + body


def answers(host: str, port: int, *, timeout_s: float = 1.0) -> bool:
    """Whether an MQTT 5 broker there accepts a CONNECT."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(_connect_packet())
            reply = connection.recv(4)
            connection.sendall(b"\xe0\x00")  # DISCONNECT
    except OSError:
        return False
    return len(reply) == 4 and reply[0] == 0x20 and reply[3] == 0


def _listening_sockets(port: int) -> set[str]:
    """The names under /proc/PID/fd of all sockets that listen on `port` (Linux, proc(5))."""
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        rows = table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else []
        for fields in map(str.split, rows):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def listens(pid: int, port: int) -> bool:
    """Whether it is process `pid` that listens on `port`; taken for granted where the system does not tell.

    Two managers that start at the same moment both find a port free; the one that loses the race must not take the
    other's broker for its own.
    """
    if not Path("/proc/net/tcp").exists():
        return True
    sockets = _listening_sockets(port)
    try:
        return any(str(entry.readlink()) in sockets for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False  # it has just ended


class BrokerProcess(ABC):
    """One broker child; subclasses know its command line and configuration.

    Attributes:
        port: kept over restarts.
    """

    name: ClassVar[str]

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Args: folder: for its configuration, log and data. port: 0 picks a free one."""
        self.folder = folder
        self.host = host
        self.port = port or free_port(host)
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Write the configuration and return the command line."""

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """0 where it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it and return when it answers a CONNECT.

        Raises:
            ConnectionFailedError: its port is in use, it ended, or it does not answer in time.
        """
        self._check_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "broker.log").open("ab") as output:
            # The pipe stays open as long as this process lives: its end tells the child to end too.
            self._process = subprocess.Popen(self.command(), stdin=subprocess.PIPE, stdout=output, stderr=output)
        deadline = time.monotonic() + timeout_s
        while not (answers(self.host, self.port) and listens(self.pid, self.port)):
            if not self.is_running:
                self._reap()
                self._check_port()  # the usual reason
                raise ConnectionFailedError(f"broker {self.name} ended at once: see {self.folder / 'broker.log'}")
            if time.monotonic() > deadline:
                self.kill()
                raise ConnectionFailedError(f"broker {self.name} did not answer within {timeout_s:.0f} s")
            time.sleep(_POLL_S)
        log.info("broker %s answers at %s", self.name, self.url)

    def _check_port(self) -> None:
        try:
            free_port(self.host, self.port)
        except OSError as cause:
            where = f"{self.host}:{self.port}"
            reason = os.strerror(cause.errno) if cause.errno else str(cause)
            raise ConnectionFailedError(f"{where}: {reason}; choose another port for the broker") from cause

    def wait(self) -> int:
        """Block until it has ended; its exit status."""
        return self._process.wait() if self._process is not None else 0

    def stop(self) -> None:
        """End it in order; safe to call twice."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def restart(self) -> None:
        """Start it again on the same port."""
        self.stop()
        self.start()

    def _reap(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
