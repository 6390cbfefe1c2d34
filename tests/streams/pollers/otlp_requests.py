"""OTLP requests as senders write them, in protobuf and in JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

PROTOBUF, JSON = "application/x-protobuf", "application/json"
DELTA, CUMULATIVE = 1, 2
RESOURCE = {"service.name": "checkout", "service.version": "v2"}
NAME = "http.server.request.duration"
EDGES = (0.1, 0.25, 0.5)


def json_of(request: Any) -> bytes:
    """As OTLP has it: enumerations are numbers."""
    return MessageToJson(request, use_integers_for_enums=True).encode()


def pairs(of: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_any(value)) for key, value in of.items()]


def _any(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(string_value=value)


def nanos(seconds: float) -> int:
    return round(seconds * 1000) * 1_000_000


def point(
    start: float, time: float, counts: Sequence[int], *, code: int = 200, **attributes: Any
) -> dict[str, Any]:
    """A point of a histogram with :data:`EDGES`; ``counts`` has one number more."""
    return {
        "attributes": pairs({"http.response.status_code": code, **attributes}),
        "start_time_unix_nano": nanos(start),
        "time_unix_nano": nanos(time),
        "count": sum(counts),
        "bucket_counts": counts,
        "explicit_bounds": EDGES,
    }


def metrics(
    *points: Mapping[str, Any],
    temporality: int = DELTA,
    resource: Mapping[str, Any] = RESOURCE,
    name: str = NAME,
    unit: str = "s",
    kind: str = "histogram",
) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    of_resource.resource.attributes.extend(pairs(resource))
    metric = of_resource.scope_metrics.add().metrics.add(name=name, unit=unit)
    data = getattr(metric, kind)
    if kind not in ("gauge", "summary"):
        data.aggregation_temporality = temporality
    for each in points:
        data.data_points.add(**each)
    return request


def logs(
    *records: tuple[float, int], resource: Mapping[str, Any] = RESOURCE, text: str = ""
) -> ExportLogsServiceRequest:
    """Records by time and severity number."""
    request = ExportLogsServiceRequest()
    of_resource = request.resource_logs.add()
    of_resource.resource.attributes.extend(pairs(resource))
    scope = of_resource.scope_logs.add()
    for time, severity in records:
        scope.log_records.add(time_unix_nano=nanos(time), severity_number=severity, severity_text=text)
    return request


def spans(
    *given: tuple[float, int, int], resource: Mapping[str, Any] = RESOURCE
) -> ExportTraceServiceRequest:
    """Spans by end, kind and status code."""
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.extend(pairs(resource))
    scope = of_resource.scope_spans.add()
    for number, (end, kind, code) in enumerate(given):
        span = scope.spans.add(kind=kind, end_time_unix_nano=nanos(end), span_id=number.to_bytes(8))
        span.status.code = code
    return request
