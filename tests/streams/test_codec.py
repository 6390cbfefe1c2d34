"""What goes on a topic comes back as it was, or not at all."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import domain.records
from domain.decision import (
    ActionOutcome,
    Cause,
    CommandKind,
    Decision,
    DecisionKind,
    Incident,
    IncidentKind,
    Order,
)
from domain.errors import RecordError
from domain.policy import MatchRule
from domain.records import (
    ActionRecord,
    Checkpoint,
    ClockInput,
    ClockRecord,
    Command,
    DecisionRecord,
    Evaluation,
    EvaluationFrame,
    IncidentRecord,
    Report,
    RolloutRecord,
    SampleFrame,
    SignalInput,
)
from domain.rollout import GateState, Phase, RolloutFold, RolloutState, context_of
from domain.signal import Arm, Channel, Sample
from streams.codec import BULK, PEOPLE, decode, encode, event_headers, pack_samples, unpack_samples
from tests.streams.pollers.rollouts import record, spec

NOON = 1_700_000_000.0

DECISION = Decision(
    decision_id="d-1",
    rollout_id="r-1",
    seq=7,
    kind=DecisionKind.ADVANCE,
    cause=Cause.PASSED,
    reason="three passes",
    order=Order.SHIFT,
    weight_bp=2000,
    generation=3,
    at=NOON,
)
FOLD = RolloutFold(
    spec=spec(), context=context_of(spec()), state=RolloutState(rollout_id="r-1"), gates=(GateState(),)
)


def sample(**changes: Any) -> Sample:
    usual: dict[str, Any] = {
        "rollout_id": "r-1",
        "signal": "error_rate",
        "arm": Arm.CANARY,
        "start": NOON,
        "end": NOON + 5,
        "events": 1.0,
        "exposure": 40.0,
    }
    return Sample(**(usual | changes))


def frame_of(*samples: Sample) -> SampleFrame:
    report = Report(source="mesh", end=NOON + 5, rollouts=("r-1", "r-2"))
    return pack_samples(samples, report=report, channel=Channel.METRICS, interval_s=5.0)


RECORDS: tuple[msgspec.Struct, ...] = (
    frame_of(sample()),
    EvaluationFrame(
        partition=1,
        owner="w",
        owner_epoch=2,
        broker_epoch="b",
        published_at=NOON,
        evaluations=(
            Evaluation(
                rollout_id="r-1",
                seq=7,
                input=ClockInput(now=NOON),
                context="c",
                kernel_version="1",
                phase=Phase.ANALYSING,
                step_index=0,
                fold=FOLD,
            ),
        ),
        resume={"sentra.metrics.v1": 12},
    ),
    Checkpoint(partition=1, fold=FOLD, evaluations_offset=3, broker_epoch="b"),
    Command(command_id="c-1", rollout_id="r-1", kind=CommandKind.START, actor="ann", at=NOON, spec=spec()),
    ClockRecord(partition=1, now=NOON, silent=("loki",), owner="w", owner_epoch=2),
    DecisionRecord(
        decision=DECISION,
        service="checkout",
        environment="prod",
        stable="v1",
        canary="v2",
        traffic=spec().policy.traffic,
        match=MatchRule(),
        target_key="memory:name=checkout",
        owner="w",
        owner_epoch=2,
        verify_timeout_s=60.0,
    ),
    ActionRecord(rollout_id="r-1", decision_id="d-1", generation=3, outcome=ActionOutcome.VERIFIED, at=NOON),
    record(spec()),
    IncidentRecord(
        incident=Incident(
            rollout_id="r-1", kind=IncidentKind.FAIL, at=NOON, step_index=0, detail="5 %", seq=7
        ),
        service="checkout",
        environment="prod",
    ),
)


def test_every_record_type_is_tested_here() -> None:
    assert {type(each) for each in RECORDS} == set(BULK) | set(PEOPLE)


def test_every_versioned_record_has_a_form_on_the_wire() -> None:
    versioned = {
        each
        for each in vars(domain.records).values()
        if isinstance(each, type) and issubclass(each, msgspec.Struct) and "schema" in each.__struct_fields__
    }
    assert versioned == set(BULK) | set(PEOPLE)


@pytest.mark.parametrize("original", RECORDS, ids=lambda each: type(each).__name__)
def test_a_record_comes_back_as_it_was(original: msgspec.Struct) -> None:
    assert decode(type(original), encode(original)) == original


@pytest.mark.parametrize("original", RECORDS, ids=lambda each: type(each).__name__)
def test_bulk_is_binary_and_the_rest_is_json(original: msgspec.Struct) -> None:
    if isinstance(original, BULK):
        with pytest.raises(ValueError):
            json.loads(encode(original))
    else:
        assert json.loads(encode(original))["schema"] == 1


@pytest.mark.parametrize("original", RECORDS, ids=lambda each: type(each).__name__)
def test_a_newer_schema_is_refused_by_name(original: msgspec.Struct) -> None:
    newer = msgspec.structs.replace(original, schema=7)
    name = type(original).__name__
    with pytest.raises(RecordError, match=rf"^schema 7 of {name} is newer than this release reads \(1\)$"):
        decode(type(original), encode(newer))


def test_a_newer_schema_is_named_even_when_its_form_is_unreadable() -> None:
    with pytest.raises(RecordError, match="schema 9 of ClockRecord is newer"):
        decode(ClockRecord, b'{"schema": 9, "partition": "north"}')


@pytest.mark.parametrize("value", [b"", b"\x00\xff\xfe", b"[]", b"null", b"<html>", b'{"schema": {}}'])
@pytest.mark.parametrize("kind", [*BULK, *PEOPLE], ids=lambda kind: kind.__name__)
def test_bytes_of_another_form_are_refused_in_one_sentence(kind: type, value: bytes) -> None:
    with pytest.raises(RecordError, match=rf"^not a {kind.__name__}: [^\n]+$"):
        decode(kind, value)


def test_a_wrong_field_is_named() -> None:
    with pytest.raises(RecordError, match=r"Expected `int`, got `str` - at `\$.partition`"):
        decode(ClockRecord, b'{"partition":"x","now":1,"silent":[],"owner":"w","owner_epoch":1}')


def test_a_type_that_travels_on_no_topic_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RecordError, match="Report is not a record of any topic; known are ActionRecord"):
        decode(Report, b"{}")


def test_a_field_that_this_release_does_not_know_is_ignored() -> None:
    value = json.loads(encode(record(spec()))) | {"colour": "blue"}
    assert decode(RolloutRecord, json.dumps(value).encode()) == record(spec())


@pytest.mark.parametrize("original", RECORDS, ids=lambda each: type(each).__name__)
def test_people_facing_records_carry_cloudevents_attributes(original: msgspec.Struct) -> None:
    if isinstance(original, BULK):
        with pytest.raises(RecordError, match="is a bulk record, not an event"):
            event_headers(original)
        return
    headers = event_headers(original, source="/sentra/eu")
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_source"] == b"/sentra/eu"
    assert headers["ce_time"] == b"2023-11-14T22:13:20.000Z"
    assert headers["content-type"] == b"application/json"
    assert headers["ce_type"].startswith(b"sentra.") and headers["ce_type"].endswith(b".v1")
    assert headers == event_headers(original, source="/sentra/eu"), "publishing again is the same event"


def test_event_types_and_ids_tell_records_apart() -> None:
    people = [each for each in RECORDS if isinstance(each, PEOPLE)]
    headers = [event_headers(each) for each in people]
    assert len({each["ce_type"] for each in headers}) == len(people)
    assert len({each["ce_id"] for each in headers}) == len(people)


# --- samples


def numbers(top: float) -> st.SearchStrategy[float]:
    return st.floats(0.0, top, allow_nan=False)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    exposure = draw(numbers(1e12))
    width = draw(st.integers(0, 5))
    edges = draw(st.lists(numbers(1e6), min_size=width, max_size=width, unique=True))
    counts = draw(st.lists(numbers(exposure), min_size=width, max_size=width))
    signal = draw(st.sampled_from(("error_rate", "latency_ms", "log_error_ratio", "custom:refunds")))
    most = 1e12 if signal == "log_error_ratio" else exposure
    return sample(
        rollout_id=draw(st.sampled_from(("r-1", "r-2"))),
        signal=signal,
        arm=draw(st.sampled_from(Arm)),
        start=NOON - 5 * draw(st.integers(0, 9)),
        events=draw(numbers(most)),
        exposure=exposure,
        edges=tuple(sorted(edges)),
        counts=tuple(sorted(counts)),
        age_s=draw(numbers(1e4)),
        quality=draw(st.integers(0, 63)),
        replica=draw(st.sampled_from(("", "", "pod-1", "pod-2", "pod-3"))),
    )


@given(st.lists(samples(), max_size=20))
@settings(deadline=None)
def test_samples_come_back_from_their_columns(originals: list[Sample]) -> None:
    frame = frame_of(*originals)
    assert unpack_samples(decode(SampleFrame, encode(frame))) == originals


def without_replicas(frame: SampleFrame) -> bytes:
    """The bytes of a frame as releases before replicas wrote it."""
    fields = msgspec.msgpack.decode(encode(frame))
    return msgspec.msgpack.encode(
        {name: value for name, value in fields.items() if name not in ("replica", "replicas")}
    )


def test_a_frame_that_knows_no_replicas_is_read_as_whole_arms() -> None:
    originals = [sample(), sample(arm=Arm.STABLE)]
    assert unpack_samples(decode(SampleFrame, without_replicas(frame_of(*originals)))) == originals


def test_a_frame_without_replicas_costs_no_byte_a_row() -> None:
    for rows in (1, 1000):
        frame = frame_of(*[sample()] * rows)
        assert len(encode(frame)) - len(without_replicas(frame)) == 20  # two names, two empty values


def test_a_replicas_name_travels_once() -> None:
    name = "checkout-6d8f9c5b7-x2lqp"
    frame = frame_of(*[sample(replica=name)] * 1000)
    assert frame.replicas == (name,)
    assert len(encode(frame)) - len(encode(frame_of(*[sample()] * 1000))) < 4 * 1000 + 40


def test_an_input_recorded_before_halves_were_is_not_split() -> None:
    older = msgspec.msgpack.encode(["error_rate", "canary", NOON, 1.0, 40.0, [], [], 0.0, 0])
    assert msgspec.msgpack.decode(older, type=SignalInput) == SignalInput(
        "error_rate", Arm.CANARY, NOON, 1.0, 40.0
    )


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "start at end": ({"start": NOON + 5}, "start must lie before end"),
    "start after end": ({"start": NOON + 10}, "start must lie before end"),
    "infinite time": ({"start": float("-inf")}, "start and end must be finite"),
    "end after the report": ({"end": NOON + 10}, "end must not lie after the report's end"),
    "half a tick": ({"start": NOON + 2.5}, "whole number of ticks of 5 s"),
    "negative events": ({"events": -1.0}, "events must be finite and not negative"),
    "infinite events": ({"events": float("inf")}, "events must be finite and not negative"),
    "nan exposure": ({"exposure": float("nan")}, "exposure must be finite and not negative"),
    "infinite exposure": ({"exposure": float("inf")}, "exposure must be finite and not negative"),
    "negative exposure": ({"events": 0.0, "exposure": -1.0}, "exposure must be finite and not negative"),
    "negative age": ({"age_s": -0.1}, "age_s must be finite and not negative"),
    "more events than exposure": ({"events": 41.0}, "events must not exceed exposure"),
    "unknown signal": ({"signal": "errors"}, "unknown signal 'errors'"),
    "edges descend": ({"edges": (2.0, 1.0), "counts": (1.0, 2.0)}, "edges must ascend"),
    "edges repeat": ({"edges": (2.0, 2.0), "counts": (1.0, 2.0)}, "edges must ascend"),
    "infinite edge": ({"edges": (2.0, float("inf")), "counts": (1.0, 2.0)}, "edges must be finite"),
    "counts descend": ({"edges": (1.0, 2.0), "counts": (3.0, 2.0)}, "counts must ascend with the edges"),
    "counts beyond exposure": ({"edges": (1.0,), "counts": (41.0,)}, "counts must not exceed exposure"),
    "negative count": ({"edges": (1.0,), "counts": (-1.0,)}, "counts must be finite and not negative"),
    "fewer counts than edges": ({"edges": (1.0, 2.0), "counts": (1.0,)}, "the widths add up to"),
    "a stranger": ({"rollout_id": "r-9"}, "rollout 'r-9' is not in the report"),
}


@pytest.mark.parametrize("changes, rule", BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_named_with_its_rule(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(RecordError, match=rule) as caught:
        frame_of(sample(), sample(**changes))
    if not {"signal", "counts"} & changes.keys():
        assert str(caught.value).startswith("row 1: ")


def test_rows_with_edges_are_counted_as_rows_not_as_cells() -> None:
    wide = sample(signal="latency_ms", edges=(1.0, 2.0, 3.0), counts=(1.0, 2.0, 3.0))
    with pytest.raises(RecordError, match=r"^row 2: counts must ascend"):
        frame_of(wide, wide, sample(signal="latency_ms", edges=(1.0, 2.0), counts=(2.0, 1.0)))


def test_more_error_lines_than_requests_are_allowed() -> None:
    original = sample(signal="log_error_ratio", events=90.0, exposure=40.0)
    assert unpack_samples(frame_of(original)) == [original]


@pytest.mark.parametrize(
    "changes, rule",
    [
        ({"rollout": struct.pack("<I", 2)}, "row 0: rollout index must lie below 2"),
        ({"signal": struct.pack("<H", 1)}, "row 0: signal index must lie below 1"),
        ({"arm": b"\x02"}, "row 0: arm must be 0"),
        ({"events": b"\x00" * 7}, "column events has 7 bytes, not a multiple of 8"),
        ({"events": b"\x00" * 16}, "columns have different lengths"),
        ({"replica": struct.pack("<I", 0)}, "row 0: replica index must lie below 0"),
        ({"replicas": ("pod-1",)}, "columns have different lengths"),
        (
            {"replicas": ("pod-1",), "replica": struct.pack("<I", 1)},
            "row 0: replica index must lie below 1",
        ),
        ({"replicas": ("pod-1",), "replica": b"\x00" * 3}, "column replica has 3 bytes, not a multiple of 4"),
        ({"widths": struct.pack("<H", 3)}, "column edges has 0 values, the widths add up to 3"),
        ({"interval_s": 0.0}, "interval_s must be above 0"),
    ],
)
def test_a_frame_that_contradicts_itself_is_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(RecordError, match=rule):
        unpack_samples(msgspec.structs.replace(frame_of(sample()), **changes))


def test_a_frame_without_samples_is_a_word_all_the_same() -> None:
    frame = frame_of()
    assert unpack_samples(frame) == []
    assert frame.report.rollouts == ("r-1", "r-2")
