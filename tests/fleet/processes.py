"""lepton-edge as a user runs it: real processes."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from click.testing import CliRunner

from lepton_edge.cli import main
from tests.fleet.bundles import make_bundle

COMMAND = [sys.executable, "-P", "-c", "from lepton_edge.cli import main; main()"]


class Result:
    """How a command ended."""

    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status = status
        self.out = out.decode()
        self.err = err.decode()

    def json(self):
        return json.loads(self.out)


class Place:
    """A working directory with a passphrase file."""

    def __init__(self, root: Path, passphrase: str = "correct horse") -> None:
        self.root = root
        (root / "passphrase").write_text(passphrase + "\n")
        self.environment = {**os.environ, "LEPTON_PASSPHRASE_FILE": str(root / "passphrase"), "HOME": str(root)}

    def bundle(self, name: str, version: str = "1", **more: int) -> str:
        return str(make_bundle(name, version, **more).save(self.root / f"{name}-{version}.lep"))

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            cwd=self.root,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, timeout_s: float = 60.0) -> Result:
        process = await self.start(*arguments)
        return await self.end(process, timeout_s=timeout_s)

    async def call(self, *arguments: str) -> Result:
        """As `run`, but in this process: for the many commands whose process does not matter."""
        runner = CliRunner(env=self.environment)
        done = await asyncio.to_thread(runner.invoke, main, arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Result(done.exit_code, done.stdout_bytes, done.stderr_bytes)

    async def end(self, process: asyncio.subprocess.Process, *, timeout_s: float = 60.0) -> Result:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Result(process.returncode, out, err)

    @asynccontextmanager
    async def serving(self, *arguments: str) -> AsyncIterator["Server"]:
        server = Server(self, [*arguments, "--http", "127.0.0.1:0"])
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


class Server:
    """`fleet serve`, to be killed and started again."""

    def __init__(self, place: Place, arguments: list[str]) -> None:
        self._place = place
        self._arguments = arguments
        self.line: dict[str, object] = {}

    async def start(self) -> None:
        self.process = await self._place.start("fleet", "serve", *self._arguments)
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            line = await self.process.stdout.readline()
        if not line:
            raise AssertionError((await self.process.communicate())[1].decode())
        self.line = json.loads(line)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.communicate()

    async def stop(self) -> Result:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await self._place.end(self.process, timeout_s=15)
