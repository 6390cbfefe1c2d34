"""The batching writer: few transactions, nothing lost, and errors that reach whoever holds the acks."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from domain.errors import StoreError, StoreUnavailable
from domain.records import IncidentRecord
from store.database import open_engine, upgrade
from store.repository import Repository
from store.writer import BatchWriter
from tests.store.examples import evaluation, frame, incident, public, report, spec, start
from tests.store.servers import running_mariadb


@pytest.fixture
def repository(engine: Engine) -> Repository:
    repository = Repository(engine)
    repository.start_rollout(spec(), start(spec()))
    return repository


async def test_everything_put_before_a_flush_is_stored_in_one_transaction(repository: Repository) -> None:
    async with BatchWriter(repository, linger_s=60) as writer:
        await writer.put(frame(evaluation(1), evaluation(2)), evaluation(3), incident(3))
        await writer.put(IncidentRecord(incident=incident(4), service="s", environment="e"))
        await writer.put(report(), public(spec(), 3))
        await writer.flush()
        assert (writer.stats.transactions, writer.stats.stored, writer.queued_rows) == (1, 7, 0)
    assert [each.seq for each in repository.evaluations_of("r1")] == [1, 2, 3]
    assert len(repository.incidents_of("r1")) == 2
    assert repository.actions_of("r1") == [report()]
    stored = repository.get_rollout("r1")
    assert stored is not None
    assert stored.public == public(spec(), 3)


async def test_without_a_flush_records_are_stored_soon(repository: Repository) -> None:
    async with BatchWriter(repository, linger_s=0.05) as writer:
        for seq in range(1, 30):
            await writer.put(evaluation(seq))
        async with asyncio.timeout(30):
            while writer.stats.stored < 29:
                await asyncio.sleep(0.01)
        assert writer.stats.transactions < 29


async def test_closing_stores_what_is_queued(repository: Repository) -> None:
    async with BatchWriter(repository, linger_s=60) as writer:
        await writer.put(evaluation(1))
    assert len(repository.evaluations_of("r1")) == 1
    with pytest.raises(StoreError, match="closed"):
        await writer.put(evaluation(2))


async def test_a_full_batch_waits_for_nobody_and_order_is_kept(repository: Repository) -> None:
    async with BatchWriter(repository, linger_s=60, batch_rows=10) as writer:
        for seq in range(1, 36):
            await writer.put(evaluation(seq))
        await writer.flush()
        assert writer.stats.transactions >= 4
    assert [each.seq for each in repository.evaluations_of("r1")] == list(range(1, 36))


async def test_deposed_owners_are_counted(repository: Repository) -> None:
    async with BatchWriter(repository) as writer:
        await writer.put(frame(evaluation(1), epoch=2), frame(evaluation(2), evaluation(3), epoch=1))
        await writer.flush()
        assert writer.stats.fenced == 2


@pytest.fixture
def locked(sqlite_url: str) -> Iterator[tuple[Repository, sqlite3.Connection]]:
    """A store that another process has locked for writing."""
    engine = open_engine(sqlite_url, busy_timeout_s=0.02)
    repository = Repository(engine)
    repository.start_rollout(spec(), start(spec()))
    blocker = sqlite3.connect(
        sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False
    )
    blocker.execute("BEGIN IMMEDIATE")
    yield repository, blocker
    blocker.close()
    engine.dispose()


async def test_while_the_database_is_away_flush_fails_and_nothing_is_lost(
    locked: tuple[Repository, sqlite3.Connection],
) -> None:
    repository, blocker = locked
    async with BatchWriter(repository) as writer:
        await writer.put(evaluation(1), evaluation(2))
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="locked by another writer; try again"):
                await writer.flush()
        await writer.put(evaluation(3))
        assert writer.queued_rows == 3
        blocker.execute("ROLLBACK")
        await _flushed(writer)
        assert writer.stats.failures >= 2
    assert [each.seq for each in repository.evaluations_of("r1")] == [1, 2, 3]


async def _flushed(writer: BatchWriter) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                return await writer.flush()
            except StoreUnavailable:
                continue


async def test_a_full_queue_makes_put_wait(locked: tuple[Repository, sqlite3.Connection]) -> None:
    repository, blocker = locked
    async with BatchWriter(repository, queue_rows=2) as writer:
        await writer.put(evaluation(1), evaluation(2))
        waiting = asyncio.ensure_future(writer.put(evaluation(3)))
        with pytest.raises(StoreUnavailable):
            await writer.flush()
        assert not waiting.done()
        assert writer.queued_rows == 2
        blocker.execute("ROLLBACK")
        async with asyncio.timeout(60):
            await waiting
        await _flushed(writer)
    assert [each.seq for each in repository.evaluations_of("r1")] == [1, 2, 3]


async def test_closing_while_the_database_is_away_ends(locked: tuple[Repository, sqlite3.Connection]) -> None:
    repository, _ = locked
    async with asyncio.timeout(60):
        async with BatchWriter(repository) as writer:
            await writer.put(evaluation(1))
        assert writer.queued_rows == 1


async def test_a_record_no_database_takes_is_set_aside_and_said_once(repository: Repository) -> None:
    endless = report(observed_bp=2**80)
    async with BatchWriter(repository, linger_s=60) as writer:
        await writer.put(evaluation(1), endless, evaluation(2))
        with pytest.raises(StoreError, match="1 records were refused for good"):
            await writer.flush()
        await writer.flush()
        assert (writer.stats.rejected, writer.stats.stored) == (1, 2)
    assert [each.seq for each in repository.evaluations_of("r1")] == [1, 2]


@pytest.mark.server
async def test_a_database_that_is_restarted_gets_everything() -> None:
    folder = Path(tempfile.mkdtemp(prefix="sentra-db-"))
    try:
        with running_mariadb(folder) as url:
            upgrade(url)
            engine = open_engine(url)
            repository = Repository(engine)
            writer = BatchWriter(repository)
            await writer.__aenter__()
            await writer.put(evaluation(1))
            await writer.flush()
        await writer.put(evaluation(2))
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await writer.flush()
        with running_mariadb(folder, port=engine.url.port):
            await _flushed(writer)
            await writer.aclose()
            assert [each.seq for each in repository.evaluations_of("r1")] == [1, 2]
            engine.dispose()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
