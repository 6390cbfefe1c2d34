"""The jobs of worker processes, by name. What each consists of: ``roles``."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """One job of a worker process."""

    JUDGE = "judge"
    ACTUATE = "actuate"
    RECORD = "record"
    POLL = "poll"
    RELAY = "relay"


ALL_ROLES = tuple(Role)
