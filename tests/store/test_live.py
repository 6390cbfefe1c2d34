"""Live state on a real Redis; and without one, nothing is lost and nothing raises."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis import Redis

from domain.records import RolloutRecord
from domain.rollout import Phase
from store.database import open_engine
from store.live import LiveState
from store.repository import Repository
from tests.store.examples import public, spec
from tests.store.servers import free_port, running_redis

pytestmark = pytest.mark.server


@pytest.fixture
async def live(redis_url: str) -> AsyncIterator[LiveState]:
    state = LiveState(redis_url)
    yield state
    await state.aclose()


async def test_what_is_put_is_shown(live: LiveState) -> None:
    assert await live.get("r1") is None
    assert await live.put(public(spec(), 5))
    assert await live.get("r1") == public(spec(), 5)
    assert await live.active() == [public(spec(), 5)]
    assert not live.degraded


async def test_an_older_record_is_not_shown_over_a_newer_one(live: LiveState) -> None:
    await live.put(public(spec(), 10))
    assert not await live.put(public(spec(), 9))
    assert await live.put(public(spec(), 10, passes=2))
    shown = await live.get("r1")
    assert shown is not None
    assert (shown.seq, shown.passes) == (10, 2)


async def test_a_rollout_that_ended_is_not_active_and_leaves_in_time(live: LiveState, redis_url: str) -> None:
    await live.put(public(spec(), 5))
    await live.put(public(spec(), 6, Phase.PROMOTED))
    assert await live.active() == []
    assert await live.get("r1") == public(spec(), 6, Phase.PROMOTED)
    with Redis.from_url(redis_url) as client:
        assert 0 < client.ttl("sentra:rollout:r1") <= 24 * 3600


async def test_installations_do_not_see_each_other(live: LiveState, redis_url: str) -> None:
    other = LiveState(redis_url, namespace="blue")
    await other.put(public(spec(), 5))
    assert await live.active() == []
    await other.aclose()


async def test_listeners_hear_every_change(live: LiveState, redis_url: str) -> None:
    heard: list[RolloutRecord] = []

    async def listen() -> None:
        async for record in live.changes():
            heard.append(record)
            if len(heard) == 3:
                return

    listener = asyncio.create_task(listen())
    with Redis.from_url(redis_url) as client:
        async with asyncio.timeout(30):
            while not client.pubsub_numsub(live.channel)[0][1]:
                await asyncio.sleep(0.01)
    told = [public(spec(f"r{seq}"), seq) for seq in (1, 2, 3)]
    speaker = LiveState(redis_url)
    for record in told:
        await speaker.put(record)
    async with asyncio.timeout(30):
        await listener
    await speaker.aclose()
    assert heard == told


async def test_without_redis_everything_goes_on_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    live = LiveState(f"redis://127.0.0.1:{free_port()}/0")
    with caplog.at_level(logging.WARNING):
        assert not await live.put(public(spec()))
        assert await live.get("r1") is None
        assert await live.active() == []
        assert not await live.ping()
        assert [record async for record in live.changes()] == []
        await live.forget("r1")
    assert live.degraded
    assert len(caplog.records) == 1
    await live.aclose()


async def test_a_lost_redis_is_rebuilt_from_the_repository(sqlite_url: str, tmp_path: Path) -> None:
    engine = open_engine(sqlite_url)
    repository, port = Repository(engine), free_port()
    told = [public(spec(f"r{number}", f"s{number}"), number) for number in (1, 2)]
    with running_redis(tmp_path, port) as url:
        live = LiveState(url)
        for record in told:
            repository.save_rollout(record)
            await live.put(record)
        assert await live.active() == told
        await live.forget("r1")
        assert await live.active() == told[1:]
    changes = [record async for record in live.changes()]
    assert (changes, live.degraded) == ([], True)
    with running_redis(tmp_path, port):
        assert await live.active() == []
        assert not live.degraded
        known = [stored.public for stored in repository.active_rollouts() if stored.public is not None]
        assert await live.rebuild(known) == 2
        assert await live.active() == told
        await live.aclose()
    engine.dispose()
