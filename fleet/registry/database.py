"""The database's engine, its migrations, and the one thread that uses it.

All transactions of a process run one after another in a thread of their own: SQLite has one writer anyway, the event
loop never blocks, and no two tasks see each other's half-done work.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import alembic.command
import alembic.config
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from lepton_edge.errors import StorageError

T = TypeVar("T")

BUSY_MS = 10_000


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def _prepare(connection: Any, _record: object) -> None:
    """Commit means on the disk: acknowledgements rely on it, hence synchronous FULL in WAL mode."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def open_engine(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare)
    return engine


def migrate(url: str) -> None:
    """Bring the tables to the newest version."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    alembic.command.upgrade(config, "head")


def create_sqlite(path: Path) -> None:
    """An empty, migrated database that its owner alone may read."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    migrate(sqlite_url(path))


class Database:
    """Transactions, one at a time."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")

    def transact(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one transaction, in this thread: committed when it returns, undone when it raises.

        Raises:
            StorageError: the database cannot be read or written (disk full, permissions, damage).
        """
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                return work(session)
        except OperationalError as cause:
            raise StorageError(f"fleet database: {cause.orig}") from cause

    async def run(self, work: Callable[[Session], T]) -> T:
        """`transact` in the database's thread; a caller that is cancelled does not undo what was begun."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.transact, work)

    def close(self) -> None:
        self._thread.shutdown(wait=True)
        self._engine.dispose()
