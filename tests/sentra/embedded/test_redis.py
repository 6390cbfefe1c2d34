"""The real redis-server and its stand-in: same commands, told from a stranger, gone afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from domain.errors import ConfigError
from sentra.embedded import binaries
from sentra.embedded.ports import free_port, is_free
from sentra.embedded.redis import RedisServer, server_pid_at

pytestmark = pytest.mark.server


@pytest.fixture(params=["redis-server", "stand-in"])
async def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RedisServer]:
    if request.param == "stand-in":
        monkeypatch.setattr(binaries, "redis_server", lambda: None)
    server = RedisServer(free_port(), tmp_path / "redis.log")
    server.start()
    assert server.is_real == (request.param == "redis-server")
    try:
        await server.wait_until_ready()
        yield server
    finally:
        await server.stop()


async def test_it_pings_and_keeps_hashes(server: RedisServer) -> None:
    async with Redis.from_url(server.url, decode_responses=True) as client:
        assert await client.ping()
        await client.hset("rollout:1", mapping={"state": "ANALYSING", "weight_bp": "500"})
        assert await client.hgetall("rollout:1") == {"state": "ANALYSING", "weight_bp": "500"}
        assert await client.set("lock", "1", nx=True, px=5_000)
        assert not await client.set("lock", "2", nx=True, px=5_000)


async def test_published_messages_arrive(server: RedisServer) -> None:
    async with Redis.from_url(server.url) as client, client.pubsub() as listener:
        await listener.subscribe("live")
        assert (await listener.get_message(timeout=5.0) or {})["type"] == "subscribe"
        await client.publish("live", b"moved")
        assert (await listener.get_message(timeout=5.0) or {})["data"] == b"moved"


async def test_it_says_who_it_is(server: RedisServer) -> None:
    assert server.child is not None
    assert await server_pid_at(server.port) == server.child.pid


async def test_the_port_is_free_afterwards_and_nothing_is_on_disk(server: RedisServer) -> None:
    async with Redis.from_url(server.url) as client:
        await client.set("key", "value")
    await server.stop()
    assert is_free(server.port)
    assert [path.name for path in server.log_path.parent.iterdir()] == ["redis.log"]


async def test_a_second_server_on_the_port_is_refused(server: RedisServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"port {server.port} .* Redis needs, is in use"):
        RedisServer(server.port, tmp_path / "second.log").start()


async def test_an_older_server_does_not_answer_for_a_new_one(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentra.embedded.redis.require_free", lambda port, what: None)
    second = RedisServer(server.port, tmp_path / "second.log")
    second.start()
    with pytest.raises(ConfigError, match="Redis ended with exit code 1 before it was ready"):
        await second.wait_until_ready()


async def test_nobody_at_the_port_has_no_pid() -> None:
    assert await server_pid_at(free_port()) is None


def test_without_any_server_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "redis_server", lambda: None)
    monkeypatch.setattr("sentra.embedded.redis.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"Redis .* is not installed here: .*sentra\[demo\]"):
        RedisServer(free_port(), tmp_path / "redis.log").start()
