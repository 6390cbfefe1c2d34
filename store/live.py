"""Live state in Redis: one hash per rollout, and a channel on which every change is told.

Rule: Redis is a cache. All of it can be rebuilt from the repository, so losing it loses nothing: no method
raises when Redis is away, `degraded` turns true and one warning is logged, and the next call that gets
through turns it back. Only commands of Redis 6.2 are used: the embedded server is that old.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any, TypeVar, cast

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from domain.records import RolloutRecord

T = TypeVar("T")

TIMEOUT_S = 1.0
"""A cache that takes longer is no help."""

KEEP_ENDED_S = 24 * 3600
"""Rollouts that have ended leave the cache after a day; the repository has them."""

_PUT_IF_NEWER = """
local known = redis.call('HGET', KEYS[1], 'seq')
if known and tonumber(known) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'seq', ARGV[1], 'phase', ARGV[2], 'record', ARGV[3])
if ARGV[5] == '' then
  redis.call('PERSIST', KEYS[1])
  redis.call('SADD', KEYS[2], ARGV[4])
else
  redis.call('EXPIRE', KEYS[1], ARGV[5])
  redis.call('SREM', KEYS[2], ARGV[4])
end
redis.call('PUBLISH', KEYS[3], ARGV[3])
return 1
"""
"""One step, so that no reader sees half a change and no late writer brings back an old one."""

_log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder(RolloutRecord).decode


class LiveState:
    """The live state at ``url`` (``redis://host:port/0``). ``namespace`` keeps installations apart."""

    def __init__(self, url: str, *, namespace: str = "sentra", timeout_s: float = TIMEOUT_S) -> None:
        self._redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 1),  # once: a connection that idled too long is replaced unnoticed
        )
        self._url, self._timeout_s, self._namespace = url, timeout_s, namespace
        self._put_if_newer = self._redis.register_script(_PUT_IF_NEWER)
        self.degraded = False
        """Whether the last call did not get through."""

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def put(self, record: RolloutRecord) -> bool:
        """Show ``record`` and tell listeners. ``False`` when a newer one is shown, or Redis is away."""
        rollout_id = record.spec.rollout_id
        expiry = str(KEEP_ENDED_S) if record.phase.is_final else ""
        keys = [self._key(rollout_id), self._key(), self.channel]
        values = [record.seq, record.phase.value, msgspec.json.encode(record), rollout_id, expiry]
        return bool(await self._ask(lambda: self._put_if_newer(keys=keys, args=values), 0))

    async def get(self, rollout_id: str) -> RolloutRecord | None:
        """What is shown of a rollout; ``None`` when nothing is, or Redis is away."""
        value = await self._ask(lambda: _any(self._redis.hget(self._key(rollout_id), "record")), None)
        return None if value is None else _decode(value)

    async def active(self) -> list[RolloutRecord]:
        """The rollouts that have not ended, by id; empty when Redis is away."""
        ids: set[bytes] = await self._ask(lambda: _any(self._redis.smembers(self._key())), set())
        shown = [await self.get(each.decode()) for each in sorted(ids)]
        return [record for record in shown if record is not None]

    async def rebuild(self, records: Iterable[RolloutRecord]) -> int:
        """Show what the repository knows, after Redis was lost; how many were news."""
        return sum([await self.put(record) for record in records])

    async def forget(self, rollout_id: str) -> None:
        """Show nothing of a rollout any more."""
        await self._ask(lambda: _any(self._redis.delete(self._key(rollout_id))), 0)
        await self._ask(lambda: _any(self._redis.srem(self._key(), rollout_id)), 0)

    async def ping(self) -> bool:
        """Whether Redis answers."""
        return bool(await self._ask(lambda: _any(self._redis.ping()), False))

    async def changes(self) -> AsyncGenerator[RolloutRecord, None]:
        """Every change from now on, until Redis is away: then it ends, and `degraded` says why.

        Changes may be missed between two calls; look at `active` after each new beginning.
        """
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        try:
            if not await self._ask(lambda: _done(pubsub.subscribe(self.channel)), False):
                return
            while True:
                message = await self._ask(lambda: pubsub.get_message(timeout=self._timeout_s / 2), None)
                if self.degraded:
                    return
                if message is not None:
                    yield _decode(message["data"])
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call] # redis-py annotates all but this one

    @property
    def channel(self) -> str:
        """Where changes are published, as JSON rollout records."""
        return f"{self._namespace}:changes"

    def _key(self, rollout_id: str = "") -> str:
        return f"{self._namespace}:rollout:{rollout_id}" if rollout_id else f"{self._namespace}:rollouts"

    async def _ask(self, call: Callable[[], Awaitable[T]], otherwise: T) -> T:
        try:
            answer = await call()
        except (RedisError, OSError) as exc:
            if not self.degraded:
                _log.warning("live state is unavailable, pages fall back to the database: %s", exc)
            self.degraded = True
            return otherwise
        if self.degraded:
            _log.warning("live state is back")
        self.degraded = False
        return answer


def _any(answer: Any) -> Awaitable[Any]:
    """redis-py types its answers as "awaitable or not" for both of its clients; here they are awaitable."""
    return cast(Awaitable[Any], answer)


async def _done(call: Awaitable[Any]) -> bool:
    await call
    return True
