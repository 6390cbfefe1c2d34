"""Many gates at once: rows of one layout are laid side by side and go through the compiled code together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scorers.evidence import gather
from scorers.evidence import layout as at
from scorers.evidence import observe as col
from scorers.evidence.bounds import GRID
from scorers.evidence.dispersion import clusterings, dispersions
from scorers.evidence.kernel import advance
from scorers.evidence.layout import Layout
from scorers.evidence.observe import observe_all
from scorers.evidence.regime import COLD_DISPERSION, Regime, regime_of
from scorers.evidence.types import Bools, Floats
from scorers.gate_row import GateRow

GUARD_NATS = float(np.log(20.0))
"""Evidence that stable's own halves differ from which history no longer counts."""
SLACK_S = 1e-6
"""A tick that begins this much before an earlier one ended does not overlap it: clocks are floats."""
DIGITS = 9
"""Decimals to which log e-values are rounded before anything is compared with them."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the numbers say about one gate."""

    row: GateRow
    regime: Regime
    memory: Floats
    """What the gate remembers after this tick."""
    said: Floats
    """See the columns of ``observe``."""
    log_e: float
    """Evidence against the canary, rounded."""
    ratio: float
    """How many times stable's rate the evidence believes the canary's to be."""
    margin: float


def weigh(rows: Sequence[GateRow]) -> list[Weighed]:
    """Every row's numbers, in order."""
    regimes = [regime_of(row.context, row.gate) for row in rows]
    alike: dict[Layout, list[int]] = defaultdict(list)
    for position, regime in enumerate(regimes):
        alike[regime.layout].append(position)
    answers: dict[int, Weighed] = {}
    for layout, positions in alike.items():
        batch = [(rows[position], regimes[position]) for position in positions]
        answers.update(zip(positions, _weigh_alike(layout, batch), strict=True))
    return [answers[position] for position in range(len(rows))]


def _weigh_alike(layout: Layout, batch: Sequence[tuple[GateRow, Regime]]) -> list[Weighed]:
    memory = np.stack([gather.remembered_by(row.state, regime) for row, regime in batch])
    givens = [gather.given_of(row, regime) for row, regime in batch]
    given = np.array([each[0] for each in givens], dtype=np.float64)
    margin = np.array([each[1] for each in givens], dtype=np.float64)
    is_bound = np.array([each[2] for each in givens], dtype=np.bool_)
    seen = [gather.counts_of(row, memory[i], regime) for i, (row, regime) in enumerate(batch)]
    counts = np.array([each[0] for each in seen], dtype=np.float64)
    halves = np.array([each[1] for each in seen], dtype=np.float64)
    counts[given[:, col.START] < memory[:, at.LAST_END] - SLACK_S] = 0.0  # refused: see ``observe``
    is_told = np.array([regime.tells_dispersion_live for _, regime in batch], dtype=np.bool_)
    phi = _dispersions(layout, batch, memory, counts, halves, is_told)
    given[:, col.SPLIT_DISPERSION] = phi[:, 0]
    given[:, col.DISPERSION] = _clusterings(layout, memory, is_told, given[:, col.DISPERSION].copy())
    said = np.zeros((len(batch), col.SAID))
    observe_all(memory, given, said, layout.limit_at, layout.ratios_at, GRID)
    log_e, tilt = _filter(layout, memory, counts, halves, phi, said, margin, is_bound)
    nats, tilts = _least(layout, batch, memory, log_e, tilt)
    memory[:, at.PEAK] = np.maximum(memory[:, at.PEAK], nats)
    return [
        Weighed(
            row,
            regime,
            memory[i],
            said[i],
            float(nats[i]),
            float(margin[i] * np.exp(tilts[i])),
            float(margin[i]),
        )
        for i, (row, regime) in enumerate(batch)
    ]


def _clusterings(layout: Layout, memory: Floats, is_told: Bools, known: Floats) -> Floats:
    """What events are worth against the limit, by row: as learnt, or as the live data tell."""
    for series in range(layout.series):
        clusterings(memory, layout.start_of(series), is_told, known)
    return known


def _dispersions(
    layout: Layout,
    batch: Sequence[tuple[GateRow, Regime]],
    memory: Floats,
    counts: Floats,
    halves: Floats,
    is_told: Bools,
) -> Floats:
    """Of the events of this tick, by row and series."""
    bins = np.array([regime.law.dispersion for _, regime in batch], dtype=np.float64)
    phi = np.ones((len(batch), layout.series))
    for series in range(layout.series):
        told = np.ascontiguousarray(phi[:, series])
        dispersions(
            memory,
            layout.start_of(series),
            np.ascontiguousarray(counts[:, series]),
            np.ascontiguousarray(halves[:, series]),
            bins,
            is_told,
            COLD_DISPERSION,
            told,
        )
        phi[:, series] = told
    return phi


def _filter(
    layout: Layout,
    memory: Floats,
    counts: Floats,
    halves: Floats,
    phi: Floats,
    said: Floats,
    margin: Floats,
    is_bound: Bools,
) -> tuple[Floats, Floats]:
    """Every filter one tick on: log E and the log ratio it believes in, by row, series and null."""
    rows = len(memory)
    log_e = np.zeros((rows, layout.series, len(layout.nulls)))
    tilt = np.zeros_like(log_e)
    is_live = said[:, col.LIVE] > 0.0
    wanders = memory[:, at.TICKS] > 1.0
    weight, spent = np.ascontiguousarray(said[:, col.WEIGHT]), np.ascontiguousarray(memory[:, at.SPENT])
    even, never = np.ones(rows), np.zeros(rows, dtype=np.bool_)
    for series in range(layout.series):
        for index, null in enumerate(layout.nulls):
            data, rho, bound = np.ascontiguousarray(counts[:, series]), margin, is_bound
            if layout.guards and index in (1, 2):
                data, rho, bound = _of_halves(halves[:, series], swap=index == 2), even, never
            nats, believed = np.zeros(rows), np.zeros(rows)
            advance(
                memory,
                layout.filter_at(series, index),
                null.half,
                null.first,
                null.steps,
                wanders & null.wanders,
                data,
                rho,
                np.ascontiguousarray(phi[:, series]),
                weight,
                spent,
                bound,
                is_live,
                nats,
                believed,
            )
            log_e[:, series, index], tilt[:, series, index] = nats, believed
    return log_e, tilt


def _of_halves(halves: Floats, *, swap: bool) -> Floats:
    """One half as the canary of the other; nothing where stable is not split."""
    split = np.where(halves[:, 1:2] > 0.0, halves, 0.0)
    return np.ascontiguousarray(split[:, (2, 3, 0, 1)] if swap else split)


def _least(
    layout: Layout, batch: Sequence[tuple[GateRow, Regime]], memory: Floats, log_e: Floats, tilt: Floats
) -> tuple[Floats, Floats]:
    """Per row the evidence that counts: averaged over series, the least of the nulls that may hold."""
    averaged = _log_mean(log_e)
    nats, tilts = np.zeros(len(batch)), np.zeros(len(batch))
    for i, (_, regime) in enumerate(batch):
        nulls = tuple(range(len(layout.nulls)))
        if regime.has_guard:
            halves = max(averaged[i, 1], averaged[i, 2]) + np.log(
                0.5 * (1.0 + np.exp(-abs(averaged[i, 1] - averaged[i, 2])))
            )
            memory[i, at.GUARD] = max(memory[i, at.GUARD], float(halves >= GUARD_NATS))
            nulls = (0, 3, 4, 5) if memory[i, at.GUARD] else (0,)
        least = min(nulls, key=lambda null: (averaged[i, null], null))
        nats[i] = round(float(averaged[i, least]), DIGITS)
        tilts[i] = tilt[i, int(np.argmax(log_e[i, :, least])), least]
    return nats, tilts


def _log_mean(log_e: Floats) -> Floats:
    """log of the mean e-value over series, in a fixed order."""
    best = log_e.max(axis=1)
    total = np.zeros_like(best)
    for series in range(log_e.shape[1]):
        total += np.exp(log_e[:, series] - best)
    return np.asarray(best + np.log(total / log_e.shape[1]))
