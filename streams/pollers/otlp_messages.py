"""From the bytes of an OTLP request to its message, with limits on what bytes may become."""

from __future__ import annotations

import zlib
from typing import Any, cast

import msgspec
from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # it ships no stubs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from domain.errors import RecordError
from domain.signal import Channel
from streams.pollers import otlp_json

PROTOBUF, JSON = "application/x-protobuf", "application/json"
MEDIA = (PROTOBUF, JSON)

_MEMBERS = 16
"""Gzip members in one body. Each is copied, so a body of tiny ones would cost time without end."""

Request = ExportMetricsServiceRequest | ExportLogsServiceRequest | ExportTraceServiceRequest
"""Of JSON, the twin with the same attributes."""

_REQUESTS: dict[Channel, type[Request]] = {
    Channel.METRICS: ExportMetricsServiceRequest,
    Channel.LOGS: ExportLogsServiceRequest,
    Channel.TRACES: ExportTraceServiceRequest,
}
_RESPONSES: dict[Channel, tuple[type[Any], str]] = {
    Channel.METRICS: (ExportMetricsServiceResponse, "rejected_data_points"),
    Channel.LOGS: (ExportLogsServiceResponse, "rejected_log_records"),
    Channel.TRACES: (ExportTraceServiceResponse, "rejected_spans"),
}
# 64-bit numbers are written as text in JSON.
_JSON: dict[Channel, msgspec.json.Decoder[Any]] = {
    Channel.METRICS: msgspec.json.Decoder(otlp_json.MetricsRequest, strict=False),
    Channel.LOGS: msgspec.json.Decoder(otlp_json.LogsRequest, strict=False),
    Channel.TRACES: msgspec.json.Decoder(otlp_json.TracesRequest, strict=False),
}


class BodyTooLarge(RecordError):
    """More bytes than are taken, before or after decompression."""


def decode_request(channel: Channel, body: bytes, media: str) -> Request:
    """The message of a whole body.

    Raises
    ------
    RecordError
        When the body is not what its media type says.
    """
    try:
        if media == JSON:
            return cast(Request, _JSON[channel].decode(body))
        return cast(Request, _REQUESTS[channel].FromString(body))
    except (DecodeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        kind = "JSON" if media == JSON else "protobuf"
        why = f": {exc}" if media == JSON else ", or cut off"
        raise RecordError(f"the body is no OTLP {channel.value} request in {kind}{why}") from exc


def encode_response(channel: Channel, media: str, rejected: int, message: str) -> bytes:
    """The answer to a request that was taken. ``message`` alone is a warning; none and 0 is full success."""
    response, field = _RESPONSES[channel]
    if media == JSON:
        partial: dict[str, Any] = {"errorMessage": message} if message else {}
        if rejected:
            head, *rest = field.split("_")
            partial[head + "".join(word.title() for word in rest)] = str(rejected)
        return msgspec.json.encode({"partialSuccess": partial} if partial else {})
    answer = response()
    if rejected or message:
        told = answer.partial_success
        setattr(told, field, rejected)
        told.error_message = message
    return bytes(answer.SerializeToString())


def encode_status(media: str, message: str) -> bytes:
    """The body of an error: a ``google.rpc.Status`` of which only the message is set."""
    if media == JSON:
        return msgspec.json.encode({"message": message})
    text = message[:1000].encode()
    length = (len(text),) if len(text) < 128 else (len(text) & 127 | 128, len(text) >> 7)
    return bytes((0x12, *length)) + text


def gunzip(body: bytes, most: int) -> bytes:
    """``body`` decompressed, into no more than ``most`` bytes.

    Raises
    ------
    BodyTooLarge
        Before more memory than that is used.
    RecordError
        When it is not gzip, or was cut off.
    """
    found = bytearray()
    for _ in range(_MEMBERS):
        stream = zlib.decompressobj(wbits=31)
        try:
            found += stream.decompress(body, most + 1 - len(found))
        except zlib.error as exc:
            raise RecordError("the body is not gzip") from exc
        if len(found) > most:
            raise BodyTooLarge(f"the body has more than {most} bytes when decompressed")
        if not stream.eof:
            raise RecordError("the body is gzip that was cut off")
        body = stream.unused_data
        if not body:
            return bytes(found)
    raise BodyTooLarge(f"the body has more than {_MEMBERS} gzip members")
