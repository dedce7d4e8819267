"""Alembic's scripts: how the tables come from one version to the next."""
