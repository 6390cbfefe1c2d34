"""Flagger's loop: a check per interval, failures added up over the whole rollout.

``Flagger`` is the exact rule, tick by tick: readiness, hooks and mirroring are taken as given.
``FlaggerRule`` is what it makes of the error gate when traffic follows the leaderboard's fixed steps: checks
fail and add up as Flagger's do, but a failed one does not hold the weight.

Source: fluxcd/flagger, ``pkg/controller/scheduler.go`` and ``scheduler_metrics.go``; restated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from bench.judging.cells import SLO, Cell, Ints
from bench.judging.intervals import first_true, gathered, ratios, ticks_in


class Phase(Enum):
    PROGRESSING = "Progressing"
    PROMOTING = "Promoting"
    FINALISING = "Finalising"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(slots=True, kw_only=True)
class Flagger:
    """One canary. ``tick`` once per interval; the first tick comes as the analysis starts."""

    step_weight: int
    max_weight: int
    threshold: int
    weight: int = 0
    failed_checks: int = 0
    phase: Phase = Phase.PROGRESSING

    @property
    def asks(self) -> bool:
        """Whether the next tick looks at the metrics."""
        return self.phase is Phase.PROGRESSING and self.failed_checks < self.threshold and self.weight > 0

    def tick(self, check_holds: bool) -> None:
        """One interval passes. ``check_holds``: all metrics inside their ranges, if anybody asks."""
        match self.phase:
            case Phase.PROGRESSING:
                self._progress(check_holds)
            case Phase.PROMOTING:
                self.phase, self.weight = Phase.FINALISING, 0
            case Phase.FINALISING:
                self.phase = Phase.SUCCEEDED
            case Phase.SUCCEEDED | Phase.FAILED:
                pass

    def _progress(self, check_holds: bool) -> None:
        # Compared before anything is checked, so the check that reaches the threshold rolls nothing back yet.
        if self.failed_checks >= self.threshold:
            self.phase, self.weight, self.failed_checks = Phase.FAILED, 0, 0
        elif self.asks and not check_holds:
            self.failed_checks += 1
        elif self.weight < self.max_weight:
            self.weight = min(self.weight + self.step_weight, 100)
        else:
            self.phase = Phase.PROMOTING


@dataclass(frozen=True, slots=True, kw_only=True)
class FlaggerRule:
    """``thresholdRange: {max: SLO}`` on the error ratio of the last interval; no value is a failed check.

    Tick 0 sets the first weight, so check k ends interval k; the roll-back comes one interval after the check
    that reaches ``threshold``, and never when the rollout ends before that.
    """

    name: str
    threshold: int
    interval_s: float = 60.0
    limit: float = SLO

    def first_rollback(self, cell: Cell) -> Ints:
        ticks = ticks_in(self.interval_s)
        live = cell.live
        share = ratios(gathered(live.canary_s, ticks), gathered(live.canary_n, ticks))
        failed = np.cumsum(~(share <= self.limit), axis=1, dtype=np.int64)
        reached = failed >= self.threshold
        late = np.zeros_like(reached)
        late[:, 1:] = reached[:, :-1]
        return first_true(late, ticks)
