"""The database: migrations, published names, budgets, counters."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from fleet.errors import ConflictError
from fleet.registry import budgets, bundles, counters, devices
from fleet.registry.counters import Tallies
from fleet.registry.database import Database, create_sqlite, open_engine, sqlite_url
from fleet.registry.models import Base
from lepton_edge.errors import StorageError
from lepton_edge.wire.signatures import Signature
from tests.fleet.bundles import make_bundle

SIGNATURE = Signature(keyid="0" * 64, sig="")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    create_sqlite(tmp_path / "fleet.db")
    found = Database(sqlite_url(tmp_path / "fleet.db"))
    yield found
    found.close()


def test_migrations_build_what_the_models_say(tmp_path: Path) -> None:
    create_sqlite(tmp_path / "fleet.db")
    engine = open_engine(sqlite_url(tmp_path / "fleet.db"))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    create_sqlite(tmp_path / "fleet.db")
    create_sqlite(tmp_path / "fleet.db")
    assert (tmp_path / "fleet.db").stat().st_mode & 0o777 == 0o600


def test_known_version_with_other_content_is_refused(database: Database) -> None:
    one, other = make_bundle(seed=1), make_bundle(seed=2)
    database.transact(lambda s: bundles.add(s, one.manifest_bytes, SIGNATURE, 1))
    database.transact(lambda s: bundles.add(s, one.manifest_bytes, SIGNATURE, 2))
    with pytest.raises(ConflictError, match="digits-1 is published with other content"):
        database.transact(lambda s: bundles.add(s, other.manifest_bytes, SIGNATURE, 3))


def test_budget_is_per_device_and_hour(database: Database) -> None:
    for name in ("a", "b"):
        database.transact(lambda s, name=name: devices.enrol(s, name, {}, 1000))
    spend = lambda name, size, now: database.transact(lambda s: budgets.spend(s, name, size, 100, now))  # noqa: E731
    assert spend("a", 60, 0)
    assert not spend("a", 60, 1)
    assert spend("a", 40, 2)
    assert spend("b", 60, 3)
    assert spend("a", 100, budgets.HOUR_MS)


def test_counts_add_up_over_flushes(database: Database) -> None:
    tallies = Tallies()
    for number in (1, 2):
        tallies.count("a", "attack", number)
        database.transact(lambda s: counters.flush(s, tallies.take()))
    assert tallies.take() == {}
    assert database.transact(counters.read) == {"a": {"attack": 3}}


def test_enrolling_again_raises_the_generation_changes_the_key_and_keeps_the_labels(database: Database) -> None:
    first, _ = database.transact(lambda s: devices.enrol(s, "a", {"site": "x"}, 5000))
    second, labels = database.transact(lambda s: devices.enrol(s, "a", {}, 5000))
    assert second.generation == first.generation + 1
    assert second.key != first.key
    assert labels == {"site": "x"}


def test_unreadable_database_is_one_clear_error(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "missing" / "fleet.db"))
    with pytest.raises(StorageError, match="fleet database: unable to open"):
        database.transact(devices.members)
    database.close()
