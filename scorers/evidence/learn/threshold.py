"""From how much evidence on a rollout is severe: more than history's healthy rollouts ever gave.

Every rollout of the history is judged as a live one would be, and the largest evidence each reached says how
the rule behaves on this service. Three bounds on the threshold, of which the highest holds:

* ``log(1 / alpha)``, which suffices if the learnt laws are true (Ville's inequality);
* an exponential tail fitted above the largest fifth, carried on to ``alpha`` (heuristic: 200 rollouts have
  no 99.6 % quantile);
* the order statistic that holds for every rollout exchangeable with the history's, whatever the law
  (conformal).

References: Hill (1975); Vovk, Gammerman, Shafer (2005), *Algorithmic Learning in a Random World*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, log

import numpy as np

from domain.calibration import Law, Tier
from scorers.evidence.kernel import trajectories
from scorers.evidence.learn.history import History
from scorers.evidence.learn.schedule import groups, margins, start_weights
from scorers.evidence.learn.split import Split
from scorers.evidence.null import null_of
from scorers.evidence.types import Floats

SHARE_OF_ALPHA = {Tier.R2: 0.4, Tier.R1: 0.7, Tier.R0: 1.0}
"""What part of a policy's alpha a tier's threshold aims at; the rest is for laws that are a little wrong."""
_TAIL = 0.2
"""Largest share of the history that the tail is fitted to."""
_STEEPEST_TAIL = 1.0
"""Mean excess in nats that the tail has at least: that of evidence whose laws are true."""


def tier_alpha(tier: Tier, alpha: float) -> float:
    """The chance of a false roll-back that a tier's threshold aims at, for a policy's ``alpha``.

    >>> round(tier_alpha(Tier.R2, 0.01), 6)
    0.004
    """
    return SHARE_OF_ALPHA[tier] * alpha


def log_evidence(
    split: Split, law: Law, history: History, *, window_s: float, has_learnt_warmup: bool
) -> Floats:
    """log E of every rollout and tick for one series, as the live judge would have had it.

    ``has_learnt_warmup`` chooses the prior of a regression's start; the law alone says the margins.
    """
    null = null_of(law, history.interval_s)
    rho, is_bound = margins(history, law, window_s)
    weights = start_weights(history, has_learnt_warmup)
    log_e, tilt = np.zeros(rho.shape), np.zeros(rho.shape)
    for rows in groups(history):
        out, unused = log_e[rows], tilt[rows]
        counts = split.s_1[rows], split.n_1[rows], split.s_2[rows], split.n_2[rows]
        bins = np.tile(np.array(law.dispersion), (len(rows), 1))
        per_tick = rho[rows[0]], bins, weights[rows[0]], is_bound[rows[0]]
        trajectories(null.start, null.first, null.steps, null.wanders, *counts, *per_tick, out, unused)
        log_e[rows] = out
    return log_e


def largest_evidence(gates: Mapping[str, Sequence[str]], log_e: Mapping[str, Floats]) -> Floats:
    """Per rollout, the largest combined log E: the mean over gates of the mean over a gate's series.

    ``gates`` names each gate's series (a latency gate has one per bucket edge); ``log_e`` holds theirs.
    """
    by_gate = [log_mean_exp([log_e[name] for name in names]) for names in gates.values()]
    return np.asarray(log_mean_exp(by_gate).max(axis=1), dtype=np.float64)


def log_mean_exp(logs: Sequence[Floats]) -> Floats:
    """The log of the mean of e-values that are given by their logs."""
    return np.asarray(np.logaddexp.reduce(np.stack(logs), axis=0) - log(len(logs)), dtype=np.float64)


def threshold_of(largest: Floats, tier: Tier, alpha: float) -> float:
    """The threshold in nats, from the largest log E of each healthy run; ``log(1 / alpha)`` without any.

    Stable's halves (tier R1) are not exchangeable with a canary, so the order statistic is for R2 alone.
    """
    aim = tier_alpha(tier, alpha)
    bounds = [log(1.0 / aim)]
    if len(largest):
        bounds.append(_tail(largest, aim))
    rank = ceil((1.0 - alpha) * (len(largest) + 1))
    if tier is Tier.R2 and rank <= len(largest):
        bounds.append(float(np.sort(largest)[rank - 1]))
    return max(bounds)


def _tail(largest: Floats, aim: float) -> float:
    """Where the exponential tail above the 80 % quantile leaves a chance of ``aim``."""
    start = float(np.quantile(largest, 1.0 - _TAIL))
    above = largest[largest > start]
    scale = max(_STEEPEST_TAIL, float((above - start).mean()) if len(above) else 0.0)
    return start + scale * log(_TAIL / aim)
