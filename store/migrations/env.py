"""Alembic's entry point, called by `store.database` with an open connection. There is no alembic.ini."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from store.models import Project


def run(connection: Connection) -> None:
    """Run what was asked for on ``connection``, inside the caller's transaction."""
    context.configure(
        connection=connection,
        target_metadata=Project.metadata,
        # SQLite cannot alter most things in place; batch mode copies the table instead.
        render_as_batch=True,
    )
    context.run_migrations()


run(context.config.attributes["connection"])
