"""``sentra schema`` and ``sentra topics``: what is published about the log is true of what lies on it."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from sentra.cli.connect import settings_of
from sentra.cli.exits import Exit
from sentra.cli.schema import PUBLISHED, schema_of
from streams.codec import BULK
from streams.consume import follow
from streams.topics import TOPICS
from tests.sentra.cli.conftest import Line
from tests.sentra.cli.shop import Shop

TOPIC_OF = {
    "sample_frame": "sentra.logs.v1",
    "evaluation_frame": "sentra.evaluations.v1",
    "clock": "sentra.clock.v1",
    "command": "sentra.commands.v1",
    "decision": "sentra.decisions.v1",
    "action": "sentra.actions.v1",
    "rollout": "sentra.rollouts.v1",
    "incident": "sentra.incidents.v1",
    "checkpoint": "sentra.state.v1",
}
"""Record name to a topic that holds such records."""


def plain(name: str, value: bytes) -> Any:
    """A record's bytes as a reader without our types sees them."""
    if PUBLISHED[name][0] in BULK:
        return msgspec.to_builtins(msgspec.msgpack.decode(value))
    return json.loads(value)


async def first_of_each(within_s: float) -> dict[str, Any]:
    """The first record of each kind that lies on the running stack's log."""
    names = {topic: name for name, topic in TOPIC_OF.items()}
    found: dict[str, Any] = {}
    async with asyncio.timeout(within_s):
        async with aclosing(follow(settings_of(None).stream(), list(names), from_beginning=True)) as log:
            async for record in log:
                name = names[record.topic]
                if record.value and name not in found:
                    found[name] = plain(name, record.value)
                if len(found) == len(names):
                    break
    return found


def test_every_record_on_the_log_keeps_its_published_schema(shop: Shop, sentra: Line) -> None:
    shop.errors = 0.8
    assert sentra(*shop.start_line("--wait", "--timeout", "60s")).code == Exit.ROLLED_BACK
    found = asyncio.run(first_of_each(30.0))
    for name, value in found.items():
        validator = Draft202012Validator(schema_of(name))
        assert [error.message for error in validator.iter_errors(value)] == [], name
        field = next(iter(schema_of(name)["$defs"][PUBLISHED[name][0].__name__]["required"]))
        broken = {key: part for key, part in value.items() if key != field}
        assert not validator.is_valid(broken), f"{name} without {field} should be refused"


def test_every_published_record_has_a_topic() -> None:
    assert TOPIC_OF.keys() == PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_schema_is_printed_as_one_json_value(name: str, sentra: Line) -> None:
    said = sentra("schema", name)
    assert said.code == Exit.OK
    assert said.value["$id"].endswith(f"/{name}.v1.json")
    Draft202012Validator.check_schema(said.value)


def test_without_a_name_the_records_are_listed(sentra: Line) -> None:
    out = sentra("schema").out
    assert all(name in out for name in PUBLISHED)


def test_an_unknown_record_is_refused_with_the_known_ones(sentra: Line) -> None:
    said = sentra("schema", "nonsense")
    assert said.code == Exit.ERROR
    assert "unknown record 'nonsense'; known are sample_frame, " in said.err


def test_all_topics_are_listed(sentra: Line) -> None:
    out = sentra("topics").out
    assert all(name in out for name in TOPICS)
    assert "newest per key" in out


def test_topics_as_json_hold_what_the_program_itself_uses(sentra: Line) -> None:
    value = sentra("topics", "-o", "json").value
    assert [topic["name"] for topic in value] == list(TOPICS)
    assert {topic["kind"] for topic in value} == {"bulk", "event", "state"}


def test_the_topics_of_the_schemas_exist(nowhere: Path) -> None:
    assert set(TOPIC_OF.values()) <= set(TOPICS)
