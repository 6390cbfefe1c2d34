"""Records that could not be handled: the bytes as they came with headers that say whence and why, and an
incident for whoever is to be told.
"""

from __future__ import annotations

from domain.decision import Incident, IncidentKind
from domain.records import IncidentRecord
from streams.bus import Incoming, Outgoing
from streams.codec import encode, event_headers
from streams.topics import DEADLETTER, INCIDENTS

TOPIC = "x-topic"
PARTITION = "x-partition"
OFFSET = "x-offset"
AGENT = "x-agent"
ERROR = "x-error"
"""The names of the headers; what the record had before is kept beside them."""

LONGEST_ERROR = 1000
"""Characters of an error that are kept: enough for a sentence and its cause, not for a dump."""


def dead_letters(record: Incoming, error: Exception, *, agent: str, now: float) -> list[Outgoing]:
    """``record`` as it goes to the dead-letter topic, and the incident that says so."""
    return [_letter(record, error, agent), _incident(record, error, agent, now)]


def _letter(record: Incoming, error: Exception, agent: str) -> Outgoing:
    """Keyed by the topic that it came from."""
    why = {
        TOPIC: record.topic,
        PARTITION: str(record.partition),
        OFFSET: str(record.offset),
        AGENT: agent,
        ERROR: f"{type(error).__name__}: {error}"[:LONGEST_ERROR],
    }
    return Outgoing(
        topic=DEADLETTER.name,
        key=record.topic.encode(),
        value=record.value,
        headers={**record.headers, **{name: text.encode() for name, text in why.items()}},
    )


def _incident(record: Incoming, error: Exception, agent: str, now: float) -> Outgoing:
    """Of no rollout: what cannot be read does not say whose it is."""
    noticed = Incident(
        rollout_id="",
        kind=IncidentKind.DEAD_LETTER,
        at=now,
        step_index=0,
        detail=f"{agent} put {record.address} aside: {error}"[:LONGEST_ERROR],
    )
    incident = IncidentRecord(incident=noticed, service="", environment="")
    return Outgoing(
        topic=INCIDENTS.name,
        key=record.topic.encode(),
        partition=record.partition,
        value=encode(incident),
        headers=event_headers(incident),
    )
