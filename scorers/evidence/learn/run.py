"""One finished rollout as it is remembered for learning: small, and never read from evaluations again."""

from __future__ import annotations

import zlib

import msgspec
import numpy as np

from domain.errors import RecordError
from scorers.evidence.types import Bools, Floats, Ints

SCHEMA = 1
"""Version of the bytes below; other ones are extracted afresh or left out."""

COUNTS = 6
"""Rows of a series: events and exposure of the canary, of stable, and of stable's first half."""

_WARM, _OPENS, _ENDS = 1, 2, 4
_ENOUGH = 6
"""zlib's level: the next ones take twice as long for a hundredth of the size."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Ticks of one rollout on an even grid; tick 0 is the first one that counted as evidence.

    Arrays are little-endian bytes. Ticks that did not count are zero throughout, and have step -1.
    """

    schema: int = SCHEMA
    interval_s: float
    warmup_s: float
    alpha: float
    """These three are the policy's."""
    steps: int
    horizon: int
    """Ticks over which a regression may begin, see ``prior.horizon_of``."""
    ticks: int
    limits: dict[str, tuple[float, ...]]
    """By histogram signal, the limits (ms) of its gates."""
    edges: dict[str, tuple[float, ...]]
    """By histogram signal, every bucket edge (ms) that was counted at."""
    signals: tuple[str, ...]
    """The gates' signals, in the policy's order."""
    step: bytes
    marks: bytes
    series: dict[str, bytes]
    """By name (``domain.calibration.series_name``), :data:`COUNTS` rows of doubles."""

    def steps_by_tick(self) -> Ints:
        """Step index by tick."""
        return np.frombuffer(self.step, dtype="<i2").astype(np.int64)

    def marks_by_tick(self) -> tuple[Bools, Bools, Bools]:
        """By tick: is warm, opens its step, ends its step's warm-up (see ``History``)."""
        marks = np.frombuffer(self.marks, dtype="u1")
        return (marks & _WARM) > 0, (marks & _OPENS) > 0, (marks & _ENDS) > 0

    def counts(self, name: str) -> Floats:
        """A series, shape (:data:`COUNTS`, ticks)."""
        return np.frombuffer(self.series[name], dtype="<f8").reshape(COUNTS, self.ticks)


def mark(*, is_warm: bool, opens_step: bool, ends_warmup: bool) -> int:
    """The three marks of a tick in one number."""
    return _WARM * is_warm + _OPENS * opens_step + _ENDS * ends_warmup


def to_bytes(run: Run) -> bytes:
    """As it is stored."""
    return zlib.compress(msgspec.msgpack.encode(run), _ENOUGH)


def from_bytes(stored: bytes) -> Run:
    """As it was stored. Raises :class:`RecordError` for other bytes, and for those of another version."""
    try:
        run = msgspec.msgpack.decode(zlib.decompress(stored), type=Run)
    except (zlib.error, msgspec.DecodeError) as exc:
        raise RecordError(f"{len(stored)} bytes are no finished rollout's run: {exc}") from exc
    if run.schema != SCHEMA:
        raise RecordError(f"a run of version {run.schema} cannot be read; known is {SCHEMA}")
    return run
