"""Bytes that nobody can read, on every topic that somebody reads: dead letters, and all else goes on."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from domain.records import SCHEMA, Report
from domain.rollout import Phase
from domain.signal import Channel
from sentra.embedded.stack import Stack
from streams import deadletter
from streams.agents.actuate import ActuateAgent
from streams.agents.judge import JudgeAgent
from streams.agents.record import RecordAgent
from streams.bus import Outgoing
from streams.codec import encode, pack_samples
from streams.consume import KafkaBus
from streams.topics import COMMANDS, METRICS
from tests.integration.loop import CLOCK, Loop, until

pytestmark = [pytest.mark.server, pytest.mark.slow]

READ_BY = Counter(topic for agent in (JudgeAgent, ActuateAgent, RecordAgent) for topic in agent.topics)


async def test_poison_on_every_topic_ends_in_the_dead_letter_topic_and_stops_nobody(
    loop: tuple[Loop, Stack],
) -> None:
    made, stack = loop
    rollout = made.start()
    await made.until_in_force(rollout, step=0)

    settings = made.settings.stream()
    partitions = range(settings.partitions)
    poison = b"\xff\x00{not a record"
    newer = msgspec.json.encode({"schema": SCHEMA + 1, "rollout_id": rollout, "kind": "pause"})
    stranger = pack_samples(
        [],
        report=Report(source="envoy", end=CLOCK.now(), rollouts=("r-nobody",)),
        channel=Channel.METRICS,
        interval_s=1.0,
    )
    async with KafkaBus(settings) as bus:
        await bus.send(
            [
                Outgoing(topic=topic, partition=number, value=poison)
                for topic in READ_BY
                for number in partitions
            ]
        )
        await bus.send([Outgoing(topic=COMMANDS.name, key=rollout.encode(), value=newer)])
        await bus.send([Outgoing(topic=METRICS.name, key=b"r-nobody", value=encode(stranger))])

    expected = sum(READ_BY.values()) * len(partitions) + 1
    await until(lambda: len(made.log.dead) >= expected, f"{expected} dead letters")
    await made.until_phase(rollout, Phase.PROMOTED)
    assert stack.worker is not None
    assert stack.worker.is_alive()
    await made.assert_replays(rollout)
    made.assert_seq_without_holes(rollout)
    made.assert_nothing_lost_or_twice(rollout)

    assert len(made.log.dead) == expected, "the stranger's frame has its grace"
    found = Counter(each.headers[deadletter.TOPIC].decode() for each in made.log.dead)
    assert found == {topic: of * len(partitions) + (topic == COMMANDS.name) for topic, of in READ_BY.items()}
    for letter in made.log.dead:
        assert letter.value in (poison, newer)
        assert letter.headers[deadletter.AGENT] in (b"judge", b"actuate", b"record")
        assert int(letter.headers[deadletter.OFFSET]) >= 0
        assert int(letter.headers[deadletter.PARTITION]) in partitions
        assert letter.headers[deadletter.ERROR].startswith(b"RecordError: ")
    (refused,) = [each for each in made.log.dead if each.value == newer]
    assert b"schema 2 of Command is newer" in refused.headers[deadletter.ERROR]
