"""Opening the database: SQLite on one machine, MySQL or MariaDB for many. Also its schema's upgrade.

Rule: nobody outside this module begins a transaction. `reading` and `writing` do, and turn every error of the
database into ours. A write transaction takes SQLite's only write lock at its beginning: one that starts as a
reader and becomes a writer half-way is refused at once when somebody else wrote in between.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError

from domain.errors import ConfigError, StoreError, StoreUnavailable
from store.errors import Contended, Duplicate, place, translated

T = TypeVar("T")

RACES = 5
"""How often a write is tried again because somebody made the same rows in between."""

BUSY_TIMEOUT_S = 5.0
"""How long a writer waits for the one before it."""

SCHEMA_WAIT_S = 60
"""How long one process waits for another one's upgrade."""

RECYCLE_S = 1800
"""Connections are renewed before firewalls and MySQL's ``wait_timeout`` forget them."""

MIN_FREE_BYTES = 64 * 1024 * 1024
"""Less than this left on the disk is no place to start a rollout: about a day of ten rollouts' records."""

MIGRATIONS = Path(__file__).parent / "migrations"


def open_engine(url: str | URL, *, pool_size: int = 5, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """An engine for ``sqlite:///file`` or ``mysql+pymysql://user:password@host/name``. Connects to nothing.

    Raises :class:`ConfigError` for any other kind of database.
    """
    parsed = _parse(url)
    if _is_sqlite(parsed):
        return _open_sqlite(parsed, pool_size, busy_timeout_s)
    return _open_mysql(parsed, pool_size, busy_timeout_s)


def _parse(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise ConfigError("the database URL cannot be read; it looks like sqlite:///sentra.db") from exc
    if parsed.drivername == "mysql":
        parsed = parsed.set(drivername="mysql+pymysql")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "mysql+pymysql", "mariadb+pymysql"):
        raise ConfigError(
            f"no store speaks {parsed.drivername!r}; known are sqlite, mysql+pymysql, mariadb+pymysql"
        )
    if _is_sqlite(parsed) and parsed.database in (None, "", ":memory:"):
        # Each connection would have a memory of its own.
        raise ConfigError("the store needs a file; an example is sqlite:///sentra.db")
    return parsed


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _open_sqlite(url: URL, pool_size: int, busy_timeout_s: float) -> Engine:
    engine = create_engine(url, pool_size=pool_size, max_overflow=pool_size, hide_parameters=True)
    event.listen(engine, "connect", lambda connection, _: _prepare_sqlite(connection, busy_timeout_s))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    # The driver's own idea of when a transaction begins is switched off; `_begin_sqlite` decides.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={round(busy_timeout_s * 1000)}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    kind = "BEGIN IMMEDIATE" if connection.get_execution_options().get("is_writer") else "BEGIN"
    connection.exec_driver_sql(kind)


def _open_mysql(url: URL, pool_size: int, busy_timeout_s: float) -> Engine:
    engine = create_engine(
        url.update_query_dict({"charset": "utf8mb4"}),
        pool_pre_ping=True,
        pool_recycle=RECYCLE_S,
        pool_size=pool_size,
        max_overflow=pool_size,
        isolation_level="READ COMMITTED",
        hide_parameters=True,
        connect_args={"connect_timeout": 5, "read_timeout": 60, "write_timeout": 60},
    )
    event.listen(engine, "connect", lambda connection, _: _prepare_mysql(connection, busy_timeout_s))
    return engine


def _prepare_mysql(connection: Any, busy_timeout_s: float) -> None:
    # Strict: a value that does not fit is an error, never a silently shortened one.
    wait_s = max(1, round(busy_timeout_s))
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION sql_mode = 'TRADITIONAL', SESSION innodb_lock_wait_timeout = {wait_s}")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent look at the database.

    Raises :class:`StoreUnavailable` when another try may work, :class:`StoreError` otherwise.
    """
    with translated(engine.url), engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction: all of it is stored when the block ends, or nothing. Raises as `reading` does."""
    with translated(engine.url), engine.execution_options(is_writer=True).begin() as connection:
        yield connection


def upgrade(url: str | URL, revision: str = "head") -> None:
    """Bring the schema to ``revision``, creating it where there is none. Safe at every start."""
    _migrate(url, lambda config: command.upgrade(config, revision))


def downgrade(url: str | URL, revision: str = "base") -> None:
    """Take the schema back. Loses what the older schema has no place for."""
    _migrate(url, lambda config: command.downgrade(config, revision))


def check_current(engine: Engine) -> None:
    """Raise :class:`ConfigError` unless the schema is the one this program was written for."""
    with reading(engine) as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    wanted = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    if found != wanted:
        raise ConfigError(
            f"the store at {place(engine.url)} has schema {found or 'none'}, this program needs {wanted}; "
            "run sentra db upgrade"
        )


def _migrate(url: str | URL, run: Callable[[Config], None]) -> None:
    engine = open_engine(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        with _alone(engine), writing(engine) as connection:
            config.attributes["connection"] = connection
            run(config)
    except CommandError as exc:
        raise StoreError(f"the schema of {place(engine.url)} cannot be changed: {exc}") from exc
    finally:
        engine.dispose()


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Nobody else changes the schema meanwhile. SQLite's write lock sees to that, MySQL's end with each DDL.

    The named lock has a connection of its own, for it must outlive the commit of the migration.
    """
    if _is_sqlite(engine.url):
        yield
        return
    with reading(engine) as connection:
        wanted = {"wait_s": SCHEMA_WAIT_S}
        if not connection.scalar(text("SELECT GET_LOCK('sentra-schema', :wait_s)"), wanted):
            raise StoreUnavailable(f"somebody else is changing the schema of {place(engine.url)}")
        try:
            yield
        finally:
            connection.execute(text("DO RELEASE_LOCK('sentra-schema')"))


def check_writable(url: str | URL, *, needs_bytes: int = MIN_FREE_BYTES) -> None:
    """At start-up: raise :class:`StoreUnavailable` when a SQLite store could not be written.

    Makes its directory. Says what cannot be written to, or how much disk space is missing. Other databases
    pass.
    """
    parsed = _parse(url)
    if not _is_sqlite(parsed):
        return
    check_folder(Path(parsed.database or "").absolute().parent, needs_bytes=needs_bytes)
    file = Path(parsed.database or "")
    if file.exists() and not os.access(file, os.W_OK, effective_ids=True):
        raise StoreUnavailable(f"the store at {file} is read-only; make the file writable")


def check_folder(folder: Path, *, needs_bytes: int = MIN_FREE_BYTES) -> None:
    """Raise :class:`StoreUnavailable` unless files of ``needs_bytes`` can be written to ``folder``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    except OSError as exc:
        raise StoreUnavailable(
            f"the directory {folder} cannot be written to ({exc.strerror}); "
            "choose another one for the store or change its permissions"
        ) from exc
    if free < needs_bytes:
        raise StoreUnavailable(
            f"there is no disk space for the store in {folder}: {free // 2**20} MB are free and "
            f"{needs_bytes // 2**20} MB needed; free some or choose another directory"
        )


def write_past_races(engine: Engine, store: Callable[[Connection], T]) -> T:
    """Run ``store`` in a transaction, again when somebody else's rows got in its way: the next look finds
    them."""
    for _ in range(RACES - 1):
        try:
            with writing(engine) as connection:
                return store(connection)
        except (Duplicate, Contended):
            continue
    with writing(engine) as connection:
        return store(connection)
