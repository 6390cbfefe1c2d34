"""The schema on both databases, and what a broken database says."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from domain.errors import ConfigError, StoreError, StoreUnavailable
from store.database import (
    check_current,
    check_writable,
    downgrade,
    open_engine,
    reading,
    upgrade,
    writing,
)
from store.errors import Duplicate
from store.models import Project
from tests.store.servers import free_port

NOBODY = 65534


def test_models_and_migrations_agree(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Project.metadata) == []
    check_current(engine)


def test_the_schema_goes_down_to_nothing_and_up_again(url: str) -> None:
    engine = open_engine(url)
    downgrade(url)
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    with pytest.raises(ConfigError, match="has schema none, this program needs"):
        check_current(engine)
    upgrade(url)
    upgrade(url)
    assert set(inspect(engine).get_table_names()) >= set(Project.metadata.tables)
    engine.dispose()


def test_processes_that_start_together_upgrade_one_after_the_other(url: str) -> None:
    downgrade(url)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade, [url] * 4))
    engine = open_engine(url)
    check_current(engine)
    engine.dispose()


def test_an_unknown_revision_is_an_error_of_ours(sqlite_url: str) -> None:
    with pytest.raises(StoreError, match="cannot be changed"):
        upgrade(sqlite_url, "no-such-revision")


def test_sqlite_is_opened_for_many_processes_and_keeps_what_was_committed(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    with reading(engine) as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        }
    engine.dispose()
    assert found == {"journal_mode": "wal", "busy_timeout": 5000, "foreign_keys": 1, "synchronous": 2}


@pytest.mark.parametrize("bad", ["postgresql://h/x", "sqlite+aiosqlite:///x", "nonsense", "sqlite://"])
def test_other_databases_are_refused_by_name(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"known are sqlite|looks like sqlite|needs a file"):
        open_engine(bad)


def test_a_write_is_all_or_nothing(engine: Engine) -> None:
    with pytest.raises(Duplicate, match="holds such a row already"), writing(engine) as connection:
        connection.execute(text("INSERT INTO meta (`key`, value) VALUES ('a', '1')"))
        connection.execute(text("INSERT INTO meta (`key`, value) VALUES ('a', '2')"))
    with reading(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM meta")).scalar() == 0


def test_a_database_that_is_not_there_says_so_and_hides_the_password() -> None:
    engine = open_engine(f"mysql+pymysql://sentra:hunter2@127.0.0.1:{free_port()}/sentra")
    with pytest.raises(StoreUnavailable, match="check that it runs") as caught, reading(engine):
        pass
    assert "hunter2" not in str(caught.value)


@pytest.mark.server
def test_a_connection_the_server_cut_is_replaced(mariadb_url: str) -> None:
    engine = open_engine(mariadb_url)
    with reading(engine) as connection:
        number = connection.execute(text("SELECT CONNECTION_ID()")).scalar()
    other = open_engine(mariadb_url)
    with writing(other) as connection:
        connection.execute(text(f"KILL {number}"))
    with reading(engine) as connection:
        assert connection.execute(text("SELECT CONNECTION_ID()")).scalar() != number
    with pytest.raises(StoreUnavailable, match="does not answer"), reading(engine) as connection:
        number = connection.execute(text("SELECT CONNECTION_ID()")).scalar()
        with writing(other) as killer:
            killer.execute(text(f"KILL {number}"))
        connection.execute(text("SELECT 1"))
    engine.dispose()
    other.dispose()


def test_a_full_disk_is_one_clear_sentence(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    full = pytest.raises(StoreUnavailable, match="there is no disk space left for the store at")
    with full as caught, writing(engine) as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
        connection.execute(text("INSERT INTO meta VALUES ('big', :value)"), {"value": "x" * 10_000_000})
    assert "\n" not in str(caught.value)
    engine.dispose()


def test_a_locked_store_asks_to_try_again(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url, busy_timeout_s=0.02)
    blocker = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked by another writer; try again"), writing(engine):
        pass
    blocker.close()
    engine.dispose()


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom permissions bind."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_directory_is_one_clear_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with unprivileged(), pytest.raises(StoreUnavailable) as caught:
        check_writable(f"sqlite:///{folder / 'sentra.db'}")
    assert str(caught.value) == (
        f"the directory {folder} cannot be written to (Permission denied); "
        "choose another one for the store or change its permissions"
    )


def test_a_file_in_the_place_of_the_directory_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match=r"cannot be written to \((File exists|Not a directory)\)"):
        check_writable(f"sqlite:///{tmp_path / 'file' / 'sentra.db'}")


def test_too_little_disk_space_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"no disk space for the store in .* MB are free and"):
        check_writable(f"sqlite:///{tmp_path / 'sentra.db'}", needs_bytes=2**62)


def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a' / 'b' / 'sentra.db'}"
    check_writable(url)
    upgrade(url)
    check_writable(url)


def test_a_store_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'nowhere' / 'sentra.db'}")
    with pytest.raises(StoreUnavailable, match="make sure that its directory exists"), reading(engine):
        pass
