"""The laws of one series: of a canary against stable, and of one half of stable against the other."""

from __future__ import annotations

import msgspec
import numpy as np

from domain.calibration import Law
from scorers.evidence.learn.dispersion import clustering, dispersion_by_bin
from scorers.evidence.learn.history import History, Series
from scorers.evidence.learn.schedule import margins
from scorers.evidence.learn.split import Split, canary_against_stable, half_against_half
from scorers.evidence.learn.wander import learnt_wander, of_canary
from scorers.evidence.learn.warmup import learnt_margins


def law_of_rollouts(history: History, name: str, window_s: float) -> Law:
    """How canaries that turned out healthy differed from stable."""
    split = canary_against_stable(history.series[name])
    law = Law(
        dispersion=dispersion_by_bin(_even_split(history.series[name])),
        clustering=clustering(_even_split(history.series[name])),
        warmup_margin=learnt_margins(split, history, window_s),
        has_learnt_warmup=True,
    )
    rho, _ = margins(history, law, window_s)
    tau, memory_s = learnt_wander(split, rho, law.dispersion, history.interval_s)
    return msgspec.structs.replace(law, tau=tau, memory_s=memory_s)


def law_of_halves(history: History, name: str) -> Law:
    """How stable's halves differ from one another. Neither warms up: every margin is one, and known to be."""
    split = half_against_half(history.series[name])
    dispersion = dispersion_by_bin(split)
    tau, memory_s = learnt_wander(split, np.ones(split.n_1.shape), dispersion, history.interval_s)
    return Law(
        tau=tau,
        memory_s=memory_s,
        dispersion=dispersion,
        clustering=clustering(split),
        warmup_margin=((1.0,), (1.0,)),
        has_learnt_warmup=True,
    )


def law_from_halves(law: Law, halves_factor: float) -> Law:
    """What the halves' law says of a canary: it wanders wider, and how it warms up is not known."""
    tau, memory_s = of_canary((law.tau, law.memory_s), halves_factor)
    return Law(tau=tau, memory_s=memory_s, dispersion=law.dispersion, clustering=law.clustering)


def _even_split(series: Series) -> Split:
    """Stable's halves; where stable is never split, canaries: slow differences are taken out."""
    halves = half_against_half(series)
    return halves if halves.runs else canary_against_stable(series)
