"""A service that answers requests and exports what it measured with the real OpenTelemetry SDK.

Run as a process: ``python otlp_sender.py '{"endpoint": ..., "requests": 600, "failures": 20, ...}'``. It
answers in several rounds with an export after each, then ends as a service does, flushing what is left.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

EDGES_S = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]


def run(given: dict[str, Any]) -> None:
    resource = Resource.create(given["resource"])
    url, compression = given["endpoint"], Compression(given.get("compression", "none"))
    temporality = AggregationTemporality[given.get("temporality", "CUMULATIVE")]
    exporter = OTLPMetricExporter(
        endpoint=f"{url}/v1/metrics",
        compression=compression,
        preferred_temporality={Histogram: temporality},
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    views = [View(instrument_name="*", aggregation=ExponentialBucketHistogramAggregation())]
    metrics = MeterProvider([reader], resource, views=views if given.get("exponential") else ())
    traces, logs = TracerProvider(resource=resource, shutdown_on_exit=False), LoggerProvider(resource)
    traces.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces", compression=compression))
    )
    logs.add_log_record_processor(
        BatchLogRecordProcessor(OTLPLogExporter(f"{url}/v1/logs", compression=compression))
    )
    answer = _Service(metrics, traces, logs).answer
    rounds, failures, sent = given.get("rounds", 4), given["failures"], 0
    for number in range(rounds):
        upto = given["requests"] * (number + 1) // rounds
        while sent < upto:
            answer(is_failure=sent < failures * 3 and sent % 3 == 0, slow=sent % 10 == 0)
            sent += 1
        for provider in (metrics, traces, logs):
            provider.force_flush()
        time.sleep(given.get("pause_s", 0.1))
    for provider in (metrics, traces, logs):
        provider.shutdown()


class _Service:
    def __init__(self, metrics: MeterProvider, traces: TracerProvider, logs: LoggerProvider) -> None:
        self._duration = metrics.get_meter("shop").create_histogram(
            "http.server.request.duration", "s", explicit_bucket_boundaries_advisory=EDGES_S
        )
        self._tracer = traces.get_tracer("shop")
        self._logger = logs.get_logger("shop")

    def answer(self, *, is_failure: bool, slow: bool) -> None:
        from opentelemetry._logs import SeverityNumber

        code = 500 if is_failure else 200
        labels = {"http.request.method": "GET", "http.response.status_code": code, "url.scheme": "http"}
        self._duration.record(0.6 if slow else 0.04, labels)
        with self._tracer.start_as_current_span("GET /", kind=SpanKind.SERVER) as span:
            with self._tracer.start_as_current_span("call", kind=SpanKind.CLIENT) as call:
                call.set_status(StatusCode.ERROR)
            if is_failure:
                span.set_status(StatusCode.ERROR)
        number = SeverityNumber.ERROR if is_failure else SeverityNumber.INFO
        self._logger.emit(timestamp=time.time_ns(), severity_number=number, body="answered")


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
