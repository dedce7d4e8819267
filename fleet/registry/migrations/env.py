"""Alembic runs this module for each upgrade."""

from alembic import context

from fleet.registry.database import open_engine
from fleet.registry.models import Base


def _run() -> None:
    url = context.config.get_main_option("sqlalchemy.url")
    if url is None:
        raise RuntimeError("no database URL: call fleet.registry.database.migrate")
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            # batch: SQLite cannot alter most of a table in place
            context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
            with context.begin_transaction():
                context.run_migrations()
    finally:
        engine.dispose()


_run()
