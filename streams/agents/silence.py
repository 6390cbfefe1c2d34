"""Which sources have not been heard of for so long that ticks no longer wait for them.

Silence is counted in clock records, not in seconds: a machine that slept, or a backlog that is being read,
counts as one record, whatever the clock says.
"""

from __future__ import annotations

from collections.abc import Collection

CLOCK_S = 1.0
"""How often the owner of a partition writes a clock record."""
SILENT_INTERVALS = 3
"""A source unheard of for this many of a rollout's intervals is silent for that rollout."""


class Silence:
    """How long each source has been unheard of."""

    def __init__(self) -> None:
        self._records: dict[str, int] = {}
        """Clock records since each source was heard."""

    def heard(self, source: str) -> None:
        """A source has said something."""
        self._records[source] = 0

    def pass_clock(self, awaited: Collection[str]) -> None:
        """One clock record passed; sources that nobody waits for are forgotten."""
        self._records = {name: self._records.get(name, 0) + 1 for name in awaited}

    def at(self, interval_s: float) -> frozenset[str]:
        """The sources that are silent for rollouts with ticks of ``interval_s``."""
        patience_s = SILENT_INTERVALS * interval_s
        return frozenset(name for name, records in self._records.items() if records * CLOCK_S > patience_s)
