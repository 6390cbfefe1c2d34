"""All gates of a rollout together: one e-value, and which gate is to blame.

The weighted mean of e-values is an e-value whatever the gates have to do with one another, so the rollout's
chance of a false roll-back is that of one test, however many gates it has. A gate is to blame when it would
also convict in the company of any number of the quietest others (closed testing), which keeps the chance of
blaming an innocent gate at the same level.

References: Vovk, Wang (2021), *E-values: calibration, combination and applications*.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log


def log_mean(log_es: Sequence[float]) -> float:
    """log of the mean of e-values given as logs, added up in order.

    >>> round(log_mean([log(1.0), log(3.0)]) - log(2.0), 12)
    0.0
    """
    best = max(log_es)
    return best + log(sum(exp(each - best) for each in log_es) / len(log_es))


def blamed(log_es: Sequence[float], threshold: float) -> list[int]:
    """Positions of the gates to blame; the loudest one when none can be named with certainty."""
    certain = [gate for gate in range(len(log_es)) if _convicts(log_es, gate, threshold)]
    return certain or [max(range(len(log_es)), key=lambda gate: (log_es[gate], -gate))]


def _convicts(log_es: Sequence[float], gate: int, threshold: float) -> bool:
    others = sorted([*log_es[:gate], *log_es[gate + 1 :]])
    return all(log_mean([log_es[gate], *others[:count]]) >= threshold for count in range(len(others) + 1))
