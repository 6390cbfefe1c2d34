"""Records: each top-level one carries its schema version, has a JSON Schema and survives both codecs."""

from __future__ import annotations

import inspect

import jsonschema  # type: ignore[import-untyped]  # no stubs are installed
import msgspec
import pytest

from domain import records
from domain.decision import CommandKind
from domain.policy import Policy, Traffic
from domain.records import SCHEMA, Command, Evaluation, TickInput

TOP_LEVEL = (
    records.SampleFrame,
    records.Command,
    records.EvaluationFrame,
    records.Checkpoint,
    records.ClockRecord,
    records.DecisionRecord,
    records.ActionRecord,
    records.RolloutRecord,
    records.IncidentRecord,
)
"""What travels on a topic by itself."""
PARTS = (
    records.Report,
    records.SignalInput,
    records.TickInput,
    records.CommandInput,
    records.ActionInput,
    records.ClockInput,
    records.RestartInput,
    records.Evaluation,
)


def _schema_of(record: type[msgspec.Struct]) -> int:
    fields = {field.name: field for field in msgspec.structs.fields(record)}
    assert "schema" in fields, record
    default = fields["schema"].default
    assert isinstance(default, int)
    return default


@pytest.mark.parametrize("record", TOP_LEVEL, ids=lambda record: record.__name__)
def test_every_record_on_a_topic_carries_the_schema_version_on_the_wire(record: type[msgspec.Struct]) -> None:
    assert _schema_of(record) == SCHEMA


def test_every_struct_is_a_record_on_a_topic_or_a_part_of_one() -> None:
    structs = {
        one
        for _, one in inspect.getmembers(records, inspect.isclass)
        if issubclass(one, msgspec.Struct) and one.__module__ == "domain.records"
    }
    assert structs == {*TOP_LEVEL, *PARTS}


@pytest.mark.parametrize("record", [*TOP_LEVEL, *PARTS], ids=lambda record: record.__name__)
def test_every_record_has_a_json_schema(record: type[msgspec.Struct]) -> None:
    schema = msgspec.json.schema(record)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$defs"][record.__name__]["type"] in ("object", "array")


def test_a_record_matches_its_own_json_schema() -> None:
    policy = Policy(
        service="s",
        environment="e",
        weights_bp=(10_000,),
        gates=(),
        traffic=Traffic(adapter="memory", target={"a": 1}),
    )
    command = Command(
        command_id="c", rollout_id="r", kind=CommandKind.CHANGE_POLICY, actor="ann", policy=policy
    )
    jsonschema.validate(msgspec.json.decode(msgspec.json.encode(command)), msgspec.json.schema(Command))


@pytest.mark.parametrize("record", [*TOP_LEVEL, *PARTS], ids=lambda record: record.__name__)
def test_records_are_values(record: type[msgspec.Struct]) -> None:
    assert record.__struct_config__.frozen


def test_a_reader_ignores_fields_it_does_not_know() -> None:
    text = b'{"command_id":"c","rollout_id":"r","kind":"pause","actor":"ann","new_field":{"a":1}}'
    assert msgspec.json.decode(text, type=Command).kind is CommandKind.PAUSE


def test_inputs_are_told_apart_by_their_tag() -> None:
    union = records.Input
    tick = TickInput(start=0.0, end=5.0, now=6.0)
    clock = records.ClockInput(now=6.0)
    for each in (tick, clock):
        assert msgspec.json.decode(msgspec.json.encode(each), type=union) == each
    assert Evaluation.__struct_config__.omit_defaults
