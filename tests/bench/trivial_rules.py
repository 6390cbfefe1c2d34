"""Judges whose leaderboard figures can be told without a computer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.judging.cells import Cell, Ints
from bench.judging.figures import Promotions
from bench.judging.nezha_cells import LatencyCell


@dataclass(frozen=True, slots=True)
class At:
    """Rolls every rollout back at one tick; -1 for never."""

    name: str
    tick: int

    def first_rollback(self, cell: Cell | LatencyCell) -> Ints:
        return np.full(cell.live.rollouts, self.tick)


class HalfPromoted:
    """Promotes every other rollout after 300 s and holds the rest until 4500 s."""

    def run(self, cell: Cell) -> Promotions:
        promoted = np.arange(cell.live.rollouts) % 2
        return Promotions(promoted=promoted, seconds=np.where(promoted == 1, 300.0, 4500.0))
