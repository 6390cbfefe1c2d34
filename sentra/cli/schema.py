"""``sentra schema``: JSON Schemas of every record on the log, generated from the record types."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from domain import records
from domain.errors import ConfigError
from sentra.cli.output import show_json, show_table

BASE = "https://sentra.dev/schemas/"
"""Identity of the schemas; nothing is served there."""

PUBLISHED: dict[str, tuple[type[msgspec.Struct], str]] = {
    "sample_frame": (records.SampleFrame, "sentra.metrics.v1, .logs.v1, .traces.v1"),
    "evaluation_frame": (records.EvaluationFrame, "sentra.evaluations.v1"),
    "clock": (records.ClockRecord, "sentra.clock.v1"),
    "command": (records.Command, "sentra.commands.v1"),
    "decision": (records.DecisionRecord, "sentra.decisions.v1"),
    "action": (records.ActionRecord, "sentra.actions.v1"),
    "rollout": (records.RolloutRecord, "sentra.rollouts.v1"),
    "incident": (records.IncidentRecord, "sentra.incidents.v1"),
    "checkpoint": (records.Checkpoint, "sentra.state.v1"),
}
"""Record name to its type and its topics."""


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a record; :class:`ConfigError` for an unknown name."""
    if name not in PUBLISHED:
        raise ConfigError(f"unknown record {name!r}; known are {', '.join(PUBLISHED)}")
    kind, _ = PUBLISHED[name]
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{BASE}{name}.v{records.SCHEMA}.json",
    }
    return head | msgspec.json.schema(kind)


def schema(
    record: Annotated[str | None, typer.Argument(help="a record's name; without one, a list")] = None,
) -> None:
    """Print the JSON Schema of a record, or list the records."""
    if record is None:
        rows = [(name, topics, kind.__name__) for name, (kind, topics) in PUBLISHED.items()]
        show_table("records", ("record", "topic", "type"), rows)
        return
    show_json(schema_of(record))
