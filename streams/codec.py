"""Bytes of the log: every record to bytes and back, and samples to columns and back.

Bulk records (frames, checkpoints) are MessagePack, everything a person may read is plain JSON. What cannot be
read raises :class:`RecordError` with one sentence, so that the reader can put the bytes aside and go on.
Nothing half-read ever comes out: a frame is either valid row by row, or refused as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain.clock import utc_text
from domain.errors import RecordError
from domain.records import (
    SCHEMA,
    ActionRecord,
    Checkpoint,
    ClockRecord,
    Command,
    DecisionRecord,
    EvaluationFrame,
    IncidentRecord,
    Report,
    RolloutRecord,
    SampleFrame,
)
from domain.signal import Arm, Channel, Sample, Shape, signal_kind

Record = TypeVar("Record", bound=msgspec.Struct)

BULK: tuple[type[msgspec.Struct], ...] = (SampleFrame, EvaluationFrame, Checkpoint)
"""Records for machines; all others are JSON."""

PEOPLE: tuple[type[msgspec.Struct], ...] = (
    Command,
    ClockRecord,
    DecisionRecord,
    ActionRecord,
    RolloutRecord,
    IncidentRecord,
)
"""Records that a person or another service may read as they are."""

_PACK = msgspec.msgpack.Encoder()
_JSON = msgspec.json.Encoder()
_DECODERS: dict[type, Any] = {kind: msgspec.msgpack.Decoder(kind) for kind in BULK} | {
    kind: msgspec.json.Decoder(kind) for kind in PEOPLE
}


class _Versioned(msgspec.Struct):
    """Only the version: what can still be read of a record whose form we do not know."""

    schema: int = SCHEMA


_VERSION_OF_BULK = msgspec.msgpack.Decoder(_Versioned)
_VERSION_OF_PEOPLE = msgspec.json.Decoder(_Versioned)


def encode(record: msgspec.Struct) -> bytes:
    """The bytes of ``record`` as they go on its topic."""
    if isinstance(record, BULK):
        return _PACK.encode(record)
    return _JSON.encode(record)


def decode(kind: type[Record], value: bytes) -> Record:
    """The record of type ``kind`` in ``value``.

    Raises
    ------
    RecordError
        For another schema version (naming both) or bytes of another form (naming the field and the reason).
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        known = ", ".join(sorted(each.__name__ for each in _DECODERS))
        raise RecordError(f"{kind.__name__} is not a record of any topic; known are {known}")
    try:
        record: Record = decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        # A newer form usually fails field by field; its version says more than the first field does.
        _refuse_other_schema(kind, _schema_of(kind, value))
        raise RecordError(f"not a {kind.__name__}: {str(exc).rstrip('.')}") from exc
    _refuse_other_schema(kind, getattr(record, "schema", SCHEMA))
    return record


def _schema_of(kind: type[msgspec.Struct], value: bytes) -> int:
    decoder: Any = _VERSION_OF_BULK if kind in BULK else _VERSION_OF_PEOPLE
    try:
        return int(decoder.decode(value).schema)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return SCHEMA


def _refuse_other_schema(kind: type[msgspec.Struct], schema: int) -> None:
    if schema != SCHEMA:
        side = "newer" if schema > SCHEMA else "older"
        raise RecordError(f"schema {schema} of {kind.__name__} is {side} than this release reads ({SCHEMA})")


def event_headers(record: msgspec.Struct, *, source: str = "sentra") -> dict[str, bytes]:
    """CloudEvents 1.0 attributes of a people-facing record, in Kafka's binary mode.

    The id derives from the record alone: publishing it again gives the same event. ``source`` is a URI
    reference that names the installation.

    Raises
    ------
    RecordError
        For a bulk record: those are no events.
    """
    event_id, at = _identity(record)
    name = type(record).__name__.removesuffix("Record").lower()
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": source,
        "ce_type": f"sentra.{name}.v{SCHEMA}",
        "ce_time": utc_text(at),
        "content-type": "application/json",
    }
    return {key: value.encode() for key, value in attributes.items()}


def _identity(record: msgspec.Struct) -> tuple[str, float]:
    """What makes the record this one and no other, and when it happened."""
    match record:
        case Command():
            return record.command_id, record.at
        case DecisionRecord(decision=decision):
            return decision.decision_id, decision.at
        case ActionRecord():
            moment = round(record.at * 1000)
            return f"{record.decision_id}/{record.outcome.value}/{moment}", record.at
        case RolloutRecord():
            return f"{record.spec.rollout_id}/{record.seq}", record.at
        case IncidentRecord(incident=incident):
            moment = round(incident.at * 1000)
            return f"{incident.rollout_id}/{incident.seq}/{incident.kind.value}/{moment}", incident.at
        case ClockRecord():
            return f"{record.partition}/{record.owner_epoch}/{round(record.now * 1000)}", record.now
        case _:
            raise RecordError(f"{type(record).__name__} is a bulk record, not an event")


# --- samples in columns

_COLUMNS: dict[str, str] = {
    "rollout": "<u4",
    "signal": "<u2",
    "arm": "u1",
    "start": "<f8",
    "end": "<f8",
    "events": "<f8",
    "exposure": "<f8",
    "age_s": "<f8",
    "quality": "<u2",
    "widths": "<u2",
}
"""One value a row."""
_CELLS: dict[str, str] = {"edges": "<f8", "counts": "<f8"}
"""``widths[i]`` values for row i."""
_REPLICA = {"replica": "<u4"}
"""One value a row of a frame that names replicas, none in others."""

_TYPES = _COLUMNS | _CELLS | _REPLICA

_ARMS = (Arm.STABLE, Arm.CANARY)
_ARM_INDEX = {arm: index for index, arm in enumerate(_ARMS)}

Column = NDArray[Any]


def pack_samples(
    samples: Sequence[Sample],
    *,
    report: Report,
    channel: Channel,
    interval_s: float,
    source_epoch: float = 0.0,
    frame_seq: int = 0,
    published_at: float = 0.0,
) -> SampleFrame:
    """``samples`` of the rollouts in ``report`` as one frame.

    Raises
    ------
    RecordError
        When a reader would refuse the frame: the rules of :func:`unpack_samples` hold here already.
    """
    rollouts = {rollout_id: index for index, rollout_id in enumerate(report.rollouts)}
    signals = {name: index for index, name in enumerate(dict.fromkeys(each.signal for each in samples))}
    _refuse_strangers(samples, rollouts)
    values: dict[str, list[Any]] = {
        "rollout": [rollouts[each.rollout_id] for each in samples],
        "signal": [signals[each.signal] for each in samples],
        "arm": [_ARM_INDEX[each.arm] for each in samples],
        "widths": [len(each.edges) for each in samples],
        "edges": [edge for each in samples for edge in each.edges],
        "counts": [count for each in samples for count in each.counts],
    }
    for name in ("start", "end", "events", "exposure", "age_s", "quality"):
        values[name] = [getattr(each, name) for each in samples]
    replicas, values["replica"] = _replicas_of(samples)
    columns: dict[str, Any] = {
        name: np.array(values[name], dtype=dtype).tobytes() for name, dtype in _TYPES.items()
    }
    frame = SampleFrame(
        channel=channel,
        interval_s=interval_s,
        report=report,
        signals=tuple(signals),
        source_epoch=source_epoch,
        frame_seq=frame_seq,
        published_at=published_at,
        replicas=replicas,
        **columns,
    )
    _check(frame, _columns(frame))
    return frame


def _replicas_of(samples: Sequence[Sample]) -> tuple[tuple[str, ...], list[int]]:
    """The names of a frame's replicas and each row's index of its own; both empty when no row has one."""
    if {each.replica for each in samples} <= {""}:
        return (), []
    known = {name: index for index, name in enumerate(dict.fromkeys(each.replica for each in samples))}
    return tuple(known), [known[each.replica] for each in samples]


def _refuse_strangers(samples: Sequence[Sample], rollouts: dict[str, int]) -> None:
    for row, sample in enumerate(samples):
        if sample.rollout_id not in rollouts:
            raise RecordError(f"row {row}: rollout {sample.rollout_id!r} is not in the report")


def unpack_samples(frame: SampleFrame) -> list[Sample]:
    """The samples of ``frame`` in row order, all of them valid.

    Raises
    ------
    RecordError
        Naming the first row that breaks a rule, and the rule.
    """
    columns = _columns(frame)
    _check(frame, columns)
    rollouts, signals = frame.report.rollouts, frame.signals
    rows = [columns[name].tolist() for name in _COLUMNS]
    edges, counts = columns["edges"].tolist(), columns["counts"].tolist()
    replicas = _names(frame, columns)
    samples = []
    at = 0
    for rollout, signal, arm, start, end, events, exposure, age_s, quality, width, replica in zip(
        *rows, replicas, strict=True
    ):
        samples.append(
            Sample(
                rollout_id=rollouts[rollout],
                signal=signals[signal],
                arm=_ARMS[arm],
                start=start,
                end=end,
                events=events,
                exposure=exposure,
                edges=tuple(edges[at : at + width]) if width else (),
                counts=tuple(counts[at : at + width]) if width else (),
                age_s=age_s,
                quality=quality,
                replica=replica,
            )
        )
        at += width
    return samples


def _names(frame: SampleFrame, columns: dict[str, Column]) -> list[str]:
    """The replica of each row."""
    if not frame.replicas:
        return [""] * len(columns["rollout"])
    return [frame.replicas[index] for index in columns["replica"].tolist()]


def _columns(frame: SampleFrame) -> dict[str, Column]:
    """The columns as arrays over the frame's own bytes, of equal lengths."""
    columns: dict[str, Column] = {}
    for name, dtype in _TYPES.items():
        data: bytes = getattr(frame, name)
        size = np.dtype(dtype).itemsize
        if len(data) % size:
            raise RecordError(f"column {name} has {len(data)} bytes, not a multiple of {size}")
        columns[name] = np.frombuffer(data, dtype=dtype)
    lengths = {name: len(columns[name]) for name in (*_COLUMNS, *(_REPLICA if frame.replicas else ()))}
    if len(set(lengths.values())) > 1:
        raise RecordError(f"columns have different lengths: {lengths}")
    cells = int(columns["widths"].sum())
    for name in _CELLS:
        if len(columns[name]) != cells:
            raise RecordError(f"column {name} has {len(columns[name])} values, the widths add up to {cells}")
    return columns


def _check(frame: SampleFrame, columns: dict[str, Column]) -> None:
    """Every rule of a row; the first broken one is raised."""
    if not (np.isfinite(frame.interval_s) and frame.interval_s > 0):
        raise RecordError(f"interval_s must be above 0, got {frame.interval_s}")
    _check_indices(frame, columns)
    _check_times(frame, columns)
    _check_numbers(frame, columns)
    if len(columns["edges"]):
        _check_cells(columns)


def _require(holds: NDArray[np.bool_], rule: str, rows: Column | None = None) -> None:
    """``RecordError`` naming the first row where ``holds`` is false; ``rows`` maps cells to rows."""
    if not holds.all():
        index = int(np.argmin(holds))
        raise RecordError(f"row {index if rows is None else int(rows[index])}: {rule}")


def _check_indices(frame: SampleFrame, columns: dict[str, Column]) -> None:
    known, signals = len(frame.report.rollouts), len(frame.signals)
    _require(columns["rollout"] < known, f"rollout index must lie below {known}")
    _require(columns["signal"] < signals, f"signal index must lie below {signals}")
    _require(columns["arm"] < len(_ARMS), "arm must be 0 (stable) or 1 (canary)")
    named = len(frame.replicas)
    _require(columns["replica"] < named, f"replica index must lie below {named}")


def _check_times(frame: SampleFrame, columns: dict[str, Column]) -> None:
    start, end = columns["start"], columns["end"]
    _require(np.isfinite(start) & np.isfinite(end), "start and end must be finite")
    _require(start < end, "start must lie before end")
    _require(end <= frame.report.end, f"end must not lie after the report's end {frame.report.end}")
    ticks = (end - start) / frame.interval_s
    _require(
        np.abs(ticks - np.rint(ticks)) < 1e-3,
        f"end - start must be a whole number of ticks of {frame.interval_s:g} s",
    )


def _check_numbers(frame: SampleFrame, columns: dict[str, Column]) -> None:
    for name in ("events", "exposure", "age_s"):
        column = columns[name]
        _require(np.isfinite(column) & (column >= 0), f"{name} must be finite and not negative")
    try:
        # Log lines are judged per request, and one request may write many.
        kinds = [signal_kind(name) for name in frame.signals]
        unbounded = np.array([kind.per_request or kind.shape is Shape.COUNT for kind in kinds], dtype=bool)
    except ValueError as exc:
        raise RecordError(str(exc)) from exc
    if len(columns["signal"]):
        bounded = ~unbounded[columns["signal"]]
        fits = columns["events"] <= columns["exposure"]
        _require(fits | ~bounded, "events must not exceed exposure")


def _check_cells(columns: dict[str, Column]) -> None:
    edges, counts, widths = columns["edges"], columns["counts"], columns["widths"]
    rows = np.repeat(np.arange(len(widths)), widths)
    _require(np.isfinite(edges), "edges must be finite", rows)
    _require(np.isfinite(counts) & (counts >= 0), "counts must be finite and not negative", rows)
    within = rows[1:] == rows[:-1]
    _require((edges[1:] > edges[:-1]) | ~within, "edges must ascend", rows[1:])
    _require((counts[1:] >= counts[:-1]) | ~within, "counts must ascend with the edges", rows[1:])
    _require(counts <= columns["exposure"][rows], "counts must not exceed exposure", rows)
