"""Where the endpoint listens; what the system refuses becomes one clear line."""

import errno
import os
import socket as sockets
from pathlib import Path

from aiohttp import web

from device_agent.serve.errors import ListenError

_MODE = 0o660
_PROBE_S = 1.0


async def listen_tcp(runner: web.AppRunner, host: str, port: int) -> str:
    """Listen on `host` and `port` (0 picks one); returns the URL.

    Raises:
        ListenError: the port is in use, or the address is not this machine's.
    """
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise ListenError(
                f"{host}:{port} is in use by another program: stop that, or choose another port (0 picks a free one)"
            ) from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ListenError(f"cannot listen on {host}:{port}: {reason}") from error
    bound = next(address for address in runner.addresses if isinstance(address, tuple))
    name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    return f"http://{name}:{bound[1]}"


async def listen_unix(runner: web.AppRunner, path: Path) -> None:
    """Listen on a Unix socket that its owner and group may use; a stale one is replaced.

    Raises:
        ListenError: another program answers there, or the path cannot be used.
    """
    _refuse_living(path)
    try:
        await web.UnixSite(runner, path).start()
        os.chmod(path, _MODE)  # noqa: PTH101 - one system call, no waiting on a disk
    except OSError as error:
        raise ListenError(f"cannot listen on the Unix socket {path}: {error.strerror or error}") from error


def _refuse_living(path: Path) -> None:
    """Asyncio deletes whatever socket lies at the path, even one that another agent serves."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise ListenError(f"the Unix socket {path} is in use by another program: stop that, or choose another path")
