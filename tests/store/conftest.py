"""Databases and a Redis for the store's tests. ``engine`` runs a test on every database."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from store.database import open_engine, upgrade, writing
from store.models import Project
from tests.store.servers import running_mariadb, running_redis


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    """A MariaDB for the whole session; tests empty its tables."""
    # A socket's path may have 107 bytes; pytest's own temporary paths are longer than some.
    folder = Path(tempfile.mkdtemp(prefix="sentra-db-"))
    try:
        with running_mariadb(folder) as url:
            upgrade(url)
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """An empty Redis."""
    with running_redis(tmp_path) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file with the present schema."""
    url = f"sqlite:///{tmp_path / 'sentra.db'}"
    upgrade(url)
    return url


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.server)])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database with the present schema."""
    chosen: str = request.getfixturevalue(f"{request.param}_url")
    if request.param == "mariadb":
        _empty(chosen)
    return chosen


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An engine on an empty database."""
    opened = open_engine(url)
    yield opened
    opened.dispose()


def _empty(url: str) -> None:
    opened = open_engine(url)
    with writing(opened) as connection:
        for table in reversed(Project.metadata.sorted_tables):
            connection.execute(table.delete())
    opened.dispose()
