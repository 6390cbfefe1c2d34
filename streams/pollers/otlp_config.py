"""Settings of the OTLP sources: what the attributes mean, how much is taken, who may send.

Sources of one receiver say the same of everything but what they carry and how they report it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from domain.signal import Channel
from streams.pollers.config import Regex, SourceSettings, Template

MIB = 1024 * 1024
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class OtlpMapping(SourceSettings):
    """What telemetry means, wherever it comes from."""

    carries: Channel
    """``metrics``, ``logs`` or ``traces``: which gates this source feeds."""
    replicas: bool = True
    """Whether instances are counted apart, so that the judge can compare healthy ones with each other."""
    histogram: Literal["needed", "full"] = "needed"
    """Which bucket edges samples carry: those that the gates need, or all."""

    service_attribute: str = "service.name"
    version_attribute: str = "service.version"
    environment_attribute: str = "deployment.environment.name"
    """Telemetry that has it must have the rollout's environment; what has none belongs to any. Empty: off."""
    instance_attribute: str = "service.instance.id"
    service: Template = "{service}"
    version: Template = "{version}"
    environment: Template = "{environment}"
    """The attributes' values for a rollout; may use {service}, {environment} and {version}."""

    requests: tuple[str, ...] = ()
    """Histograms of requests, in place of the conventions' (``http.server.request.duration``, ...)."""
    error_attribute: str = ""
    error_values: Regex = ""
    """With ``requests``: which values of a point's attribute are failures (a regular expression)."""

    max_series: int = Field(default=2_000, gt=0)
    """Request series remembered per service; what a service sends beyond it is refused, and it is partial."""
    max_services: int = Field(default=2_000, gt=0)

    @field_validator("requests", mode="before")
    @classmethod
    def _one_or_many(cls, names: Any) -> Any:
        return (names,) if isinstance(names, str) else names

    @model_validator(mode="after")
    def _belong_together(self) -> OtlpMapping:
        if not self.service_attribute or not self.version_attribute:
            raise ValueError("service_attribute and version_attribute must name attributes")
        if len({bool(self.requests), bool(self.error_attribute), bool(self.error_values)}) > 1:
            raise ValueError("requests, error_attribute and error_values go together")
        return self

    @property
    def channel(self) -> Channel:  # type: ignore[override] # a kind that carries any of them
        return self.carries

    def receiver(self) -> dict[str, Any]:
        """What sources of one receiver must agree on."""
        return self.model_dump(exclude={"carries", "replicas", "histogram", "freshness"})


class OtlpSettings(OtlpMapping):
    """``kind: otlp``: exporters and collectors send to this process by HTTP."""

    listen: str = "127.0.0.1:4318"
    """Address and port. Sources that listen on the same one share a receiver."""
    token_file: str = ""
    """File with the bearer token that senders must have, read anew when it changes."""
    cert_file: str = ""
    key_file: str = ""
    """The receiver's certificate and key; without them it speaks plain HTTP."""
    client_ca_file: str = ""
    """Senders need a certificate of this authority."""
    anyone_may_send: bool = False
    """Beyond this machine a sender must prove itself: false telemetry promotes bad canaries."""

    max_body_bytes: int = Field(default=4 * MIB, gt=0)
    max_message_bytes: int = Field(default=16 * MIB, gt=0)
    """Of a body when it is decompressed."""
    max_waiting_bytes: int = Field(default=64 * MIB, gt=0)
    """Of all bodies that are being received; beyond it senders are asked to come again."""

    @field_validator("listen")
    @classmethod
    def _is_address(cls, listen: str) -> str:
        host, colon, port = listen.rpartition(":")
        if not colon or not host or not port.isdecimal() or not 0 <= int(port) < 65536:
            raise ValueError("listen is address:port, such as 127.0.0.1:4318")
        return listen

    @model_validator(mode="after")
    def _is_safe(self) -> OtlpSettings:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together")
        if self.client_ca_file and not self.cert_file:
            raise ValueError("client_ca_file needs cert_file: senders show certificates over TLS only")
        proves = self.token_file or self.client_ca_file or self.anyone_may_send
        if self.host not in LOOPBACK and not proves:
            raise ValueError(
                "listening beyond 127.0.0.1 needs token_file or client_ca_file (or anyone_may_send: true)"
            )
        if self.max_waiting_bytes < self.max_body_bytes:
            raise ValueError("max_waiting_bytes must hold at least one body of max_body_bytes")
        return self

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


KAFKA_TOPICS = {
    Channel.METRICS: "otlp_metrics",
    Channel.LOGS: "otlp_logs",
    Channel.TRACES: "otlp_spans",
}
"""What the OpenTelemetry Collector's Kafka exporter calls its topics."""


class OtlpKafkaSettings(OtlpMapping):
    """``kind: otlp_kafka``: what OpenTelemetry Collectors write to Kafka."""

    bootstrap: str = Field(min_length=1)
    """Kafka's ``host:port[,host:port]``."""
    topic: str = ""
    """Empty: the Collector's own name, by what is carried."""
    encoding: Literal["otlp_proto", "otlp_json"] = "otlp_proto"
    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str = ""
    password_file: str = ""
    fetch_wait_ms: int = Field(default=100, gt=0)
    """How long the broker may hold back an answer that is still empty."""

    @property
    def topic_name(self) -> str:
        return self.topic or KAFKA_TOPICS[self.carries]
