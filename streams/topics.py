"""The topics of Sentra: what each holds, how it is keyed, how long it lives, and how it is cut.

Rule: every topic has the same number of partitions, and a rollout's records are in the partition
`partition_of` names in each of them, so one worker sees everything about its rollouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, TopicAlreadyExistsError, for_code

from domain.errors import ConfigError
from streams.bus import BrokerUnavailable
from streams.settings import StreamSettings

HOUR_S = 3600
DAY_S = 24 * HOUR_S


class Kind(Enum):
    """How a topic is meant to be read."""

    BULK = "bulk"
    """Frames for machines: binary, many rollouts in one record."""
    EVENT = "event"
    """One JSON record per thing that happened."""
    STATE = "state"
    """The latest record of a key is its state; the broker drops older ones, so offsets have holes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic. ``retention_s`` is ``None`` where compaction decides what stays."""

    name: str
    kind: Kind
    key: str
    retention_s: int | None
    description: str

    @property
    def is_compacted(self) -> bool:
        return self.kind is Kind.STATE

    def broker_config(self) -> dict[str, str]:
        """The topic's settings as Kafka spells them."""
        if self.retention_s is None:
            return {"cleanup.policy": "compact"}
        return {"cleanup.policy": "delete", "retention.ms": str(self.retention_s * 1000)}


def _bulk(name: str, key: str, retention_s: int, description: str) -> Topic:
    return Topic(name=name, kind=Kind.BULK, key=key, retention_s=retention_s, description=description)


def _event(name: str, key: str, retention_s: int, description: str) -> Topic:
    return Topic(name=name, kind=Kind.EVENT, key=key, retention_s=retention_s, description=description)


def _state(name: str, key: str, description: str) -> Topic:
    return Topic(name=name, kind=Kind.STATE, key=key, retention_s=None, description=description)


_ROLLOUT = "rollout id"
_FRAME = "none: written to the partition of the rollouts it holds"

METRICS = _bulk("sentra.metrics.v1", _FRAME, DAY_S, "One poll's metric samples of many rollouts, columnar.")
LOGS = _bulk("sentra.logs.v1", _FRAME, DAY_S, "One poll's log counts of many rollouts, columnar.")
TRACES = _bulk("sentra.traces.v1", _FRAME, DAY_S, "One poll's trace counts of many rollouts, columnar.")
EVALUATIONS = _bulk(
    "sentra.evaluations.v1",
    _FRAME,
    7 * DAY_S,
    "What the judge saw and concluded, tick by tick: the write-ahead record its recovery folds again.",
)
CLOCK = _event(
    "sentra.clock.v1", _FRAME, DAY_S, "The partition owner's clock and the sources it has not heard from."
)
SCORES = _bulk("sentra.scores.v1", _ROLLOUT, DAY_S, "Anomaly scores on their way back to the judge.")
COMMANDS = _event(
    "sentra.commands.v1", _ROLLOUT, 7 * DAY_S, "What people and pipelines ask for: start, pause, abort."
)
DECISIONS = _event(
    "sentra.decisions.v1", _ROLLOUT, 90 * DAY_S, "What the judge decided, with reason and target weight."
)
ACTIONS = _event("sentra.actions.v1", _ROLLOUT, 90 * DAY_S, "What the actuator did, and saw in force.")
ROLLOUTS = _state("sentra.rollouts.v1", _ROLLOUT, "The current public state of each rollout.")
INCIDENTS = _event(
    "sentra.incidents.v1", _ROLLOUT, 90 * DAY_S, "Every failure, pause, roll-back, drift and lost source."
)
FEATURES = _bulk(
    "sentra.features.v1", _ROLLOUT, 7 * DAY_S, "One flat feature row per rollout and tick, for models."
)
STATE = _state("sentra.state.v1", _ROLLOUT, "Checkpoints: fold state and the input offsets it contains.")
DEADLETTER = _event(
    "sentra.deadletter.v1", "topic it came from", 14 * DAY_S, "Bytes that could not be read, and why."
)

TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        METRICS,
        LOGS,
        TRACES,
        EVALUATIONS,
        CLOCK,
        SCORES,
        COMMANDS,
        DECISIONS,
        ACTIONS,
        ROLLOUTS,
        INCIDENTS,
        FEATURES,
        STATE,
        DEADLETTER,
    )
}
"""Every topic by its name, without namespace."""


def has_contiguous_offsets(name: str) -> bool:
    """Whether a jump in offsets means that records were missed. Not so where the broker compacts."""
    topic = TOPICS.get(name)
    return topic is None or not topic.is_compacted


async def create_topics(settings: StreamSettings) -> tuple[str, ...]:
    """Make sure that every topic exists and is cut as the settings say. Safe to call at every start.

    Returns the names that were created. Where ``settings.declare_topics`` is off nothing is created.

    Raises
    ------
    ConfigError
        Naming every topic that is missing (and may not be created) or has another number of partitions.
    BrokerUnavailable
        When nobody answers.
    """
    admin = AIOKafkaAdminClient(**settings.client_options())
    try:
        await admin.start()
        found = await _partition_counts(admin, settings)
        missing = [topic for name, topic in TOPICS.items() if name not in found]
        _require_alike(found, settings)
        if missing and not settings.declare_topics:
            raise ConfigError(_missing_text(missing, settings))
        return await _create(admin, missing, settings)
    except KafkaConnectionError as exc:
        raise BrokerUnavailable(f"no broker at {settings.bootstrap}: {exc}") from exc
    finally:
        await admin.close()


async def _partition_counts(admin: AIOKafkaAdminClient, settings: StreamSettings) -> dict[str, int]:
    described: list[dict[str, Any]] = await admin.describe_topics()
    counts = {settings.plain_name(entry["topic"]): len(entry["partitions"]) for entry in described}
    return {name: count for name, count in counts.items() if name in TOPICS}


def _require_alike(found: dict[str, int], settings: StreamSettings) -> None:
    wrong = [
        f"{settings.wire_name(name)} has {count} partitions, {settings.partitions} wanted"
        for name, count in sorted(found.items())
        if count != settings.partitions
    ]
    if wrong:
        raise ConfigError(
            "; ".join(wrong) + ": all topics must be cut alike, recreate them or change the setting"
        )


def _missing_text(missing: list[Topic], settings: StreamSettings) -> str:
    names = ", ".join(settings.wire_name(topic.name) for topic in missing)
    return (
        f"missing topics (declare_topics is off): {names}; create them with {settings.partitions} partitions"
    )


async def _create(
    admin: AIOKafkaAdminClient, missing: list[Topic], settings: StreamSettings
) -> tuple[str, ...]:
    if not missing:
        return ()
    wanted = [
        NewTopic(
            settings.wire_name(topic.name),
            settings.partitions,
            settings.replication,
            topic_configs=topic.broker_config(),
        )
        for topic in missing
    ]
    response = await admin.create_topics(wanted)
    for name, code, *_ in response.topic_errors:
        # Another process may have been quicker; that is what idempotent means here.
        if code not in (0, TopicAlreadyExistsError.errno):
            raise ConfigError(f"the broker refused to create {name}: {for_code(code).__name__}")
    return tuple(topic.name for topic in missing)


def partition_of(key: str | bytes, partitions: int) -> int:
    """The partition Kafka's default partitioner gives ``key``, in ``0..partitions-1``.

    >>> partition_of("checkout-42", 4)
    0

    References
    ----------
    Apache Kafka, ``org.apache.kafka.common.utils.Utils.murmur2`` and ``toPositive``.
    """
    data = key.encode() if isinstance(key, str) else key
    return (murmur2(data) & 0x7FFFFFFF) % partitions


_MIX = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Appleby's 32-bit MurmurHash2 with Kafka's seed, as an unsigned number."""
    body = len(data) & ~3
    hashed = _SEED ^ len(data)
    for start in range(0, body, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _MIX & _MASK
        word = (word ^ word >> 24) * _MIX & _MASK
        hashed = hashed * _MIX & _MASK ^ word
    if body < len(data):
        hashed = (hashed ^ int.from_bytes(data[body:], "little")) * _MIX & _MASK
    hashed = (hashed ^ hashed >> 13) * _MIX & _MASK
    return hashed ^ hashed >> 15
