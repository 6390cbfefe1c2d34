"""Log records and spans as counts. Pure.

A log record is bad from severity ERROR upwards. Of spans only those of servers and consumers count, one per
request; a client's span would count it once more on the other side.

References
----------
OpenTelemetry logs data model, "SeverityNumber"; trace API, "SpanKind" and "Status".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from streams.pollers.otlp_config import OtlpMapping
from streams.pollers.otlp_count import NANOS, Count, Origin, Taken, attributes_of, origin_of

ERROR = 17
"""The lowest severity number of ERROR; FATAL lies above."""
ERROR_TEXTS = ("error", "critical", "fatal", "emergency", "alert", "panic")
"""For records whose sender sets no number."""
SERVER, CONSUMER = 2, 5
STATUS_ERROR = 2


def read_logs(request: Any, mapping: OtlpMapping, taken: Taken) -> None:
    """Count the log records of every resource."""
    for of_resource in request.resource_logs:
        records = [record for of_scope in of_resource.scope_logs for record in of_scope.log_records]
        origin = _origin(of_resource, mapping, len(records), taken)
        if origin is not None:
            taken.counts += _counts(origin, (_log(record) for record in records))


def read_traces(request: Any, mapping: OtlpMapping, taken: Taken) -> None:
    """Count the server spans of every resource."""
    for of_resource in request.resource_spans:
        spans = [
            span
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
            if span.kind in (SERVER, CONSUMER)
        ]
        origin = _origin(of_resource, mapping, len(spans), taken)
        if origin is not None:
            found = ((span.end_time_unix_nano, span.status.code == STATUS_ERROR) for span in spans)
            taken.counts += _counts(origin, found)


def _origin(of_resource: Any, mapping: OtlpMapping, items: int, taken: Taken) -> Origin | None:
    origin = origin_of(attributes_of(of_resource.resource.attributes), mapping)
    if origin is None and items:
        names = f"{mapping.service_attribute} and {mapping.version_attribute}"
        taken.refuse(items, f"a resource without {names} belongs to no rollout")
    return origin if items else None


def _log(record: Any) -> tuple[int, bool]:
    """When it was written, and whether it is bad."""
    time = record.time_unix_nano or record.observed_time_unix_nano
    if record.severity_number:
        return time, record.severity_number >= ERROR
    return time, record.severity_text.lower() in ERROR_TEXTS


def _counts(origin: Origin, events: Iterable[tuple[int, bool]]) -> list[Count]:
    """One count per second of the sender's clock: how old an event is matters, but not to the nanosecond.

    Events without a time are of now, which ``inf`` stands for.
    """
    by_second: dict[float, list[float]] = {}
    for nanos, is_bad in events:
        time = nanos / NANOS if nanos else math.inf
        cell = by_second.setdefault(time // 1.0 if nanos else time, [time, time, 0.0, 0.0])
        cell[0], cell[1] = min(cell[0], time), max(cell[1], time)
        cell[2] += 1.0
        cell[3] += is_bad
    return [
        Count(origin=origin, start=first, time=last, total=total, bad=bad)
        for first, last, total, bad in by_second.values()
    ]
