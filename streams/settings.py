"""How Sentra speaks to its broker: every timing and size, each with its reason.

Two profiles: `StreamSettings.embedded` for the single-binary broker on one machine and
`StreamSettings.production` for Apache Kafka. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

from domain.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How clients prove who they are to the broker. The default is an open port on a trusted network."""

    protocol: str = "PLAINTEXT"
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
    ca_file: str | None = None
    """PEM file of the authority that signed the broker's certificate; ``None`` is the system's store."""
    certificate_file: str | None = None
    key_file: str | None = None
    """The client's own certificate and key, for brokers that ask for one."""
    mechanism: str = "PLAIN"
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def client_options(self) -> dict[str, Any]:
        """The keyword arguments every aiokafka client takes."""
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.endswith("SSL"):
            options["ssl_context"] = self._tls_context()
        if self.protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password
        return options

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.certificate_file is not None:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """One worker's view of the log. Immutable, so that every client of a process agrees.

    Raises
    ------
    ConfigError
        When two settings contradict each other.
    """

    bootstrap: str
    """``host:port``, or several of them separated by commas."""
    namespace: str = ""
    """Prefix of every topic and group name on the broker, so that several installations can share it."""
    security: Security = field(default_factory=Security)

    # --- shape of the log
    partitions: int = 4
    """Of every topic, fixed at birth: all topics are cut alike, so one worker owns all of a rollout."""
    replication: int = 1
    declare_topics: bool = True
    """Create what is missing; off where topics are somebody else's code, then missing ones are an error."""
    reliable_end_offsets: bool = False
    """Whether the broker's "latest" offset can be believed. The embedded broker answers with the start of
    the last batch plus one, so a topic's end is found by a barrier record instead."""

    # --- membership
    session_timeout_s: float = 6.0
    """A silent worker loses its partitions after this. Kafka refuses less than 6 by default."""
    heartbeat_interval_s: float = 1.0
    """Several beats must fit into a session, or one late packet costs a rebalance."""
    rebalance_timeout_s: float = 10.0
    """What a worker may take to let go of its partitions when the group changes."""
    request_timeout_s: float = 20.0
    """Must not be below the session: joining a group holds its request open that long."""
    max_poll_interval_s: float = 300.0
    """A worker that waits for the database keeps its partitions this long without fetching."""

    # --- flow
    commit_interval_s: float = 1.0
    """Bounds what a restarted worker reads twice."""
    fetch_max_wait_ms: int = 20
    """The embedded broker does not wake a waiting fetch when data arrives: it answers at about half of this.
    Faust's own 1500 ms means 440 ms of latency in the median."""
    fetch_max_bytes: int = 4 * 1024 * 1024
    """Per partition and fetch: sixteen of the largest frames."""
    max_poll_records: int = 500
    """Fairness between partitions when one has a backlog."""
    buffer_records: int = 256
    """Faust's queue per stream; its default of 4096 could hold a gigabyte of frames."""
    processing_timeout_s: float = 60.0
    """After this Faust logs that an agent is stuck."""
    linger_ms: int = 0
    """Writers wait for their acknowledgement and batch what belongs together themselves, so lingering only
    adds to the wait: with 5 ms an agent that answers each record did 180 records a second, with 0 3,700."""
    max_request_bytes: int = 1024 * 1024
    """Kafka's default limit for one record; frames stay below it."""
    acks: int | str = "all"
    """A result is written when all in-sync replicas have it. Offsets are committed only after results."""

    # --- repair
    retry_first_s: float = 0.1
    retry_longest_s: float = 5.0
    """Back-off while a store or the broker is away: doubling between these, without end."""
    sweep_first_s: float = 2.0
    sweep_interval_s: float = 15.0
    """How often a worker looks past its own position for records that were never delivered to it."""
    revoke_grace_s: float = 2.0
    """What the record in hand may take to finish when partitions are revoked; then it is abandoned."""

    def __post_init__(self) -> None:
        if self.partitions < 1:
            raise ConfigError(f"partitions must be at least 1, got {self.partitions}")
        if self.session_timeout_s > self.request_timeout_s:
            raise ConfigError(
                f"session timeout {self.session_timeout_s} s must not exceed the request timeout "
                f"{self.request_timeout_s} s: a joining member waits that long for its answer"
            )
        if self.heartbeat_interval_s * 3 > self.session_timeout_s:
            raise ConfigError(
                f"heartbeat interval {self.heartbeat_interval_s} s must fit three times into the session "
                f"timeout {self.session_timeout_s} s"
            )

    @classmethod
    def embedded(cls, bootstrap: str, **overrides: Any) -> StreamSettings:
        """For the broker that ``sentra up`` starts: one worker on the same machine.

        A 3 s session means a 2 s start (that broker makes every join wait half a session, and looks twice a
        second), and it is safe there because nobody else could take the partitions over.
        """
        profile: dict[str, Any] = {"session_timeout_s": 3.0, "heartbeat_interval_s": 0.5}
        return cls(bootstrap=bootstrap, **(profile | overrides))

    @classmethod
    def production(cls, bootstrap: str, **overrides: Any) -> StreamSettings:
        """For Apache Kafka: replicated topics that somebody else creates, a real long poll."""
        profile: dict[str, Any] = {
            "partitions": 12,
            "replication": 3,
            "declare_topics": False,
            "reliable_end_offsets": True,
            "fetch_max_wait_ms": 100,
        }
        return cls(bootstrap=bootstrap, **(profile | overrides))

    def wire_name(self, name: str) -> str:
        """The name of a topic or group on the broker.

        >>> StreamSettings.embedded("localhost:9092", namespace="blue").wire_name("sentra.clock.v1")
        'blue.sentra.clock.v1'
        """
        return f"{self.namespace}.{name}" if self.namespace else name

    def plain_name(self, wire_name: str) -> str:
        """The inverse of `wire_name`: what code and documents call the topic."""
        return wire_name.removeprefix(f"{self.namespace}.") if self.namespace else wire_name

    def servers(self) -> list[str]:
        return [server.strip() for server in self.bootstrap.split(",")]

    def client_options(self) -> dict[str, Any]:
        """What every client of the broker is told."""
        return {
            "bootstrap_servers": self.servers(),
            "request_timeout_ms": round(self.request_timeout_s * 1000),
            **self.security.client_options(),
        }

    def fetch_options(self) -> dict[str, Any]:
        """What every consumer is told on top, in a group or not."""
        return {
            "fetch_max_wait_ms": self.fetch_max_wait_ms,
            "max_partition_fetch_bytes": self.fetch_max_bytes,
            "max_poll_records": self.max_poll_records,
            "enable_auto_commit": False,
        }
