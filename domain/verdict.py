"""What the evidence says. Five outcomes that never merge, and a score that explains itself.

An exception is none of them: it means that we are broken.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import msgspec


class Verdict(Enum):
    """What the evidence says about a gate, or about a whole tick."""

    PASS = "PASS"
    INCONCLUSIVE = "INCONCLUSIVE"
    NO_DATA = "NO_DATA"
    FAIL = "FAIL"
    SEVERE = "SEVERE"

    @property
    def gravity(self) -> int:
        """Position in ``SEVERE > FAIL > NO_DATA > INCONCLUSIVE > PASS``; larger is worse."""
        return _GRAVITY[self]


_GRAVITY = {verdict: rank for rank, verdict in enumerate(Verdict)}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The gravest of ``verdicts``; ``NO_DATA`` when there are none, since nothing was seen.

    >>> worst([Verdict.PASS, Verdict.FAIL, Verdict.NO_DATA])
    <Verdict.FAIL: 'FAIL'>
    """
    return max(verdicts, key=lambda verdict: verdict.gravity, default=Verdict.NO_DATA)


class Evidence(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What the sequential tests add to a score. Evidence is in nats (natural logarithms of e-values), rounded
    to 1e-9; an e-value of 100 would be seen by chance once in a hundred healthy rollouts, however often one
    looks."""

    log_e_fail: float = 0.0
    """Against "the canary is as good as stable", at this tick."""
    log_e_rollout: float = 0.0
    """The same for all gates of the rollout together; what :attr:`threshold` is for."""
    log_e_pass: float = 0.0
    """Against "the canary breaks the limit", in this step."""
    log_e_slo: float = 0.0
    """Against "the canary keeps the limit", over the whole rollout."""
    threshold: float = 0.0
    """``log_e_rollout`` from which the rollout is severe."""
    margin: float = 1.0
    """How many times stable's rate counted as healthy in this tick."""
    claim: float = 1.0
    """What passing proves in this step: less than this many times the limit."""
    ratio: float | None = None
    """Canary's rate over stable's in this step; ``None`` without events on stable."""
    ratio_low: float | None = None
    ratio_high: float | None = None
    """95 % bounds of the ratio that hold however often one looks; ``None``: no bound on that side."""
    anytime_p: float = 1.0
    """Chance that a healthy rollout's gate ever shows this much: 1 / (largest e-value so far)."""
    damaged: float = 0.0
    """Share of the step's ticks that brought no whole numbers for both arms."""
    tier: str = ""


class Score(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A gate's answer for one tick.

    ``*_point`` are shares in the sliding window (bad events / exposure), ``None`` without exposure; for a
    quantile gate the share slower than the limit, to be compared with ``limit`` = 1 - quantile.
    ``reason`` is one sentence that a person on call understands.
    """

    gate: int
    signal: str
    verdict: Verdict
    reason: str
    required: bool = True
    shared: bool = False
    """The comparator breaches the same limit: the environment's fault, not the canary's."""
    limit: float = 0.0
    severe: float = 1.0
    canary_point: float | None = None
    stable_point: float | None = None
    canary_events: float = 0.0
    canary_exposure: float = 0.0
    stable_events: float = 0.0
    stable_exposure: float = 0.0
    window_s: float = 0.0
    point_holds: bool = False
    """The window's point value keeps the limit on at least ``min_samples``."""
    samples_needed: float = 0.0
    """Further canary samples before this gate can say more; 0 when it already does."""
    eta_s: float | None = None
    """Seconds until then at the present traffic; ``None`` when unknown."""
    quantile_ms: float | None = None
    """For a quantile gate, the canary's quantile read off its buckets, for people; never compared."""
    evidence: Evidence | None = None


def combine(scores: Iterable[Score]) -> Verdict:
    """A tick's verdict: the worst gate, where optional gates may fail but never block.

    An optional gate's ``NO_DATA`` or ``INCONCLUSIVE`` counts as silence.
    """
    heard = [
        score.verdict
        for score in scores
        if score.required or score.verdict not in (Verdict.NO_DATA, Verdict.INCONCLUSIVE)
    ]
    return worst(heard)
