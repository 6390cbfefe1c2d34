"""OTLP as JSON: the parts of its messages that are counted, under the names that the protobuf classes have.

So one reader walks both. 64-bit numbers come as text or as numbers, unknown keys are passed over, and oneofs
are attributes of which one is there: ``WhichOneof`` and ``HasField`` answer as protobuf's do.

References
----------
OTLP 1.x, "JSON Protobuf Encoding"; protobuf 3 JSON mapping.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
Fixed64 = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Message(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """A message of which only some fields are known."""

    def HasField(self, name: str) -> bool:  # the name is protobuf's
        return getattr(self, name) is not None


class AnyValue(_Message, frozen=True, gc=False):
    """A value of an attribute; lists and mappings name nothing that is counted."""

    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | None = None
    double_value: float | str | None = None

    def WhichOneof(self, group: str) -> str | None:
        return next((name for name in self.__struct_fields__ if getattr(self, name) is not None), None)


class KeyValue(_Message, frozen=True, gc=False):
    key: str = ""
    value: AnyValue = AnyValue()


class Resource(_Message, frozen=True, gc=False):
    attributes: list[KeyValue] = []


class Scope(_Message, frozen=True, gc=False):
    name: str = ""
    version: str = ""


class _Point(_Message, frozen=True, gc=False):
    attributes: list[KeyValue] = []
    start_time_unix_nano: Fixed64 = 0
    time_unix_nano: Fixed64 = 0
    count: Fixed64 = 0
    flags: int = 0


class NumberPoint(_Point, frozen=True, gc=False):
    pass


class HistogramPoint(_Point, frozen=True, gc=False):
    bucket_counts: list[Fixed64] = []
    explicit_bounds: list[float] = []


class Buckets(_Message, frozen=True, gc=False):
    offset: Int32 = 0
    bucket_counts: list[Fixed64] = []


class ExponentialPoint(_Point, frozen=True, gc=False):
    scale: Int32 = 0
    zero_count: Fixed64 = 0
    positive: Buckets = Buckets()
    negative: Buckets = Buckets()


class Numbers(_Message, frozen=True, gc=False):
    data_points: list[NumberPoint] = []
    aggregation_temporality: int = 0


class Histograms(_Message, frozen=True, gc=False):
    data_points: list[HistogramPoint] = []
    aggregation_temporality: int = 0


class ExponentialHistograms(_Message, frozen=True, gc=False):
    data_points: list[ExponentialPoint] = []
    aggregation_temporality: int = 0


class Metric(_Message, frozen=True, gc=False):
    name: str = ""
    unit: str = ""
    gauge: Numbers | None = None
    sum: Numbers | None = None
    histogram: Histograms | None = None
    exponential_histogram: ExponentialHistograms | None = None
    summary: Numbers | None = None

    def WhichOneof(self, group: str) -> str | None:
        kinds = ("histogram", "exponential_histogram", "sum", "gauge", "summary")
        return next((name for name in kinds if getattr(self, name) is not None), None)


class ScopeMetrics(_Message, frozen=True, gc=False):
    scope: Scope = Scope()
    metrics: list[Metric] = []


class ResourceMetrics(_Message, frozen=True, gc=False):
    resource: Resource = Resource()
    scope_metrics: list[ScopeMetrics] = []


class MetricsRequest(_Message, frozen=True, gc=False):
    resource_metrics: list[ResourceMetrics] = []


class LogRecord(_Message, frozen=True, gc=False):
    time_unix_nano: Fixed64 = 0
    observed_time_unix_nano: Fixed64 = 0
    severity_number: int = 0
    severity_text: str = ""


class ScopeLogs(_Message, frozen=True, gc=False):
    log_records: list[LogRecord] = []


class ResourceLogs(_Message, frozen=True, gc=False):
    resource: Resource = Resource()
    scope_logs: list[ScopeLogs] = []


class LogsRequest(_Message, frozen=True, gc=False):
    resource_logs: list[ResourceLogs] = []


class Status(_Message, frozen=True, gc=False):
    code: int = 0


class Span(_Message, frozen=True, gc=False):
    kind: int = 0
    end_time_unix_nano: Fixed64 = 0
    status: Status = Status()


class ScopeSpans(_Message, frozen=True, gc=False):
    spans: list[Span] = []


class ResourceSpans(_Message, frozen=True, gc=False):
    resource: Resource = Resource()
    scope_spans: list[ScopeSpans] = []


class TracesRequest(_Message, frozen=True, gc=False):
    resource_spans: list[ResourceSpans] = []
