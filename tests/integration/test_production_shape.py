"""The shape of production: Apache Kafka, MariaDB, Redis, and every role in a process of its own."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from domain.rollout import Phase
from sentra.embedded.demo.behaviour import HEALTHY, Fault
from store.database import upgrade
from store.live import LiveState
from streams.topics import create_topics
from tests.integration.loop import Loop, Processes, traffic
from tests.kafka_server import running_kafka
from tests.store.servers import running_mariadb, running_redis

ROLES = ("judge", "actuate", "record,relay", "poll")


class OnServers(Processes):
    """Worker processes on servers that somebody else runs."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        super().__init__(folder)
        self.config_path.write_text(yaml.safe_dump(settings))
        (folder / "logs").mkdir(parents=True, exist_ok=True)


@pytest.mark.server
@pytest.mark.slow
async def test_a_bad_rollout_is_rolled_back_and_a_good_one_promoted_on_production_servers(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        kafka = await stack.enter_async_context(running_kafka(tmp_path / "kafka"))
        for name in ("mariadb", "redis"):
            (tmp_path / name).mkdir()
        database = stack.enter_context(running_mariadb(tmp_path / "mariadb"))
        redis = stack.enter_context(running_redis(tmp_path / "redis"))
        plane, routes = await stack.enter_async_context(traffic(tmp_path))
        upgrade(database)
        settings = {
            "state_dir": str(tmp_path / "state"),
            "profile": "production",
            "bootstrap": kafka.bootstrap,
            "partitions": kafka.partitions,
            "database": database,
            "redis": redis,
            "sources": plane.sources,
        }
        apart = OnServers(tmp_path, settings)
        stack.push_async_callback(apart.stop)
        await create_topics(kafka)  # in production somebody else does; workers only check
        await apart.start(*ROLES)
        loop = Loop(apart.config_path, plane, routes)
        stack.push_async_callback(loop.aclose)
        await stack.enter_async_context(loop.log)

        await plane.canary.inject(Fault(error_ratio=0.2))
        bad = loop.start("bad")
        await loop.until_phase(bad, Phase.ROLLED_BACK)
        await loop.assert_replays(bad)

        await plane.canary.inject(HEALTHY)
        good = loop.start("good")
        await loop.until_phase(good, Phase.PROMOTED)
        await loop.assert_replays(good)
        loop.assert_nothing_lost_or_twice(good)

        live = LiveState(redis)
        stack.push_async_callback(live.aclose)
        shown = await live.get(good)
        assert shown is not None
        assert shown.phase is Phase.PROMOTED
