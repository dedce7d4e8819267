"""The Open Inference Protocol v2 over HTTP, on TCP and a Unix socket."""

from pathlib import Path
from types import TracebackType

from device_agent.serve.engine import Engine


class Server:
    """A running endpoint. url: of the TCP endpoint; socket: the Unix socket's path, if any."""

    url: str
    socket: Path | None

    async def close(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> "Server":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def serve(engine: Engine, *, host: str, port: int, socket: Path | None) -> Server:
    """Listen, and return once requests are answered. `async with await serve(...) as server: ...`"""
    raise NotImplementedError
