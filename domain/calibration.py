"""What was learnt of a service: how its healthy versions differ from one another, and how sure one can be.

A calibration is made from finished healthy rollouts (tier R2) or from one half of the stable replicas against
the other (R1); a service nobody knows yet has none (R0). It is frozen into a rollout's judging context, so a
replay sees what the judge saw.
"""

from __future__ import annotations

from enum import Enum

import msgspec

DISPERSION_BINS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Upper ends of the bins of events per tick for which dispersion is learnt; a ninth bin has no end."""

UNLEARNT_MARGIN = 5.0
"""Warm-up margin where none was learnt: a fresh version may show five times the events of a warm one."""

WARMUP_BLOCK_S = 10.0
"""Seconds after a weight change that share one learnt warm-up margin; a cold start fades within a few."""


class Tier(Enum):
    """What is known of a service when a rollout starts."""

    R2 = "R2"
    """Finished healthy rollouts."""
    R1 = "R1"
    """Stable replicas against stable replicas only: nothing about how new versions start."""
    R0 = "R0"
    """Nothing."""

    @property
    def meaning(self) -> str:
        """For people."""
        return _MEANINGS[self]


_MEANINGS = {
    Tier.R2: "learnt from finished healthy rollouts of this service",
    Tier.R1: "learnt from stable replicas against each other",
    Tier.R0: "nothing learnt about this service yet",
}


class Law(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a healthy version's event rate wanders around stable's, for one kind of event.

    The log ratio of the two rates follows a stationary AR(1) process; counts are more dispersed than
    independent requests would make them. Defaults describe the ideal service.
    """

    tau: float = 0.0
    """Standard deviation of the log ratio."""
    memory_s: float | None = None
    """Correlation time of the log ratio in seconds; ``None`` is for ever: an effect of the version itself."""
    dispersion: tuple[float, ...] = (1.0,) * (len(DISPERSION_BINS) + 1)
    """Variance of the split relative to independent requests, by :data:`DISPERSION_BINS`; at least 1."""
    clustering: float = 1.0
    """How many events come together on average, weighted by events: what one is worth against a limit."""
    warmup_margin: tuple[tuple[float, ...], tuple[float, ...]] = ((UNLEARNT_MARGIN,), (UNLEARNT_MARGIN,))
    """How many times stable's rate a healthy version may show while it warms up, by block of
    :data:`WARMUP_BLOCK_S` since the weight change: in the first step, in later steps. The last block's
    holds until the warm-up is over. Neither is empty."""
    has_learnt_warmup: bool = False
    """Whether the margins above were learnt; only then do they say something about the early ticks."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What judging may take as known about one service in one environment."""

    tier: Tier
    interval_s: float
    """Tick length of the history; dispersion and correlation hold for it alone."""
    warmup_s: float = 0.0
    laws: dict[str, Law] = {}
    """By series: ``error_rate``, or ``latency_ms>250`` for the requests slower than a bucket edge."""
    halves: dict[str, Law] = {}
    """The same for one half of stable against the other: what the live guard holds them to."""
    edges: dict[str, tuple[float, ...]] = {}
    """By histogram signal, the bucket edges (ms) nearest to stable's p50, p75, p90, p95 and p99."""
    threshold: float | None = None
    """Nats above which a rollout's combined evidence is severe; ``None`` where the history has none to
    say."""
    alpha: float = 0.01
    """The chance of a false roll-back that ``threshold`` was learnt for."""
    rates: dict[str, float] = {}
    """By series, stable's share of events: what a plan expects of a healthy canary."""
    rps: float | None = None
    """Requests per second of both arms together, typical of the history."""
    runs: int = 0
    """Rollouts it was learnt from."""
    first_rollout: str = ""
    last_rollout: str = ""
    learnt_at: float = 0.0


def series_name(signal: str, edge: float | None = None) -> str:
    """The name of a series of counts: a signal, or a histogram's requests slower than an edge.

    >>> series_name("latency_ms", 250.0)
    'latency_ms>250'
    """
    return signal if edge is None else f"{signal}>{edge:g}"
