"""Records that could not be handled: the bytes as they came, and headers that say whence and why."""

from __future__ import annotations

from streams.bus import Incoming, Outgoing
from streams.topics import DEADLETTER

TOPIC = "x-topic"
PARTITION = "x-partition"
OFFSET = "x-offset"
AGENT = "x-agent"
ERROR = "x-error"
"""The names of the headers; what the record had before is kept beside them."""

LONGEST_ERROR = 1000
"""Characters of an error that are kept: enough for a sentence and its cause, not for a dump."""


def dead_letter(record: Incoming, error: Exception, *, agent: str) -> Outgoing:
    """``record`` as it goes to the dead-letter topic, keyed by the topic it came from."""
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
