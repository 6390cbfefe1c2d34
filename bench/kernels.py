"""Speed of the evidence kernels, beside scipy's Mann-Whitney test and a plain Python loop, in one run.

``python -m bench.kernels [--gates 1000] [--seconds 1.0] [--json]``. One core. An evaluation is one gate at
one tick: canary and stable counts in, evidence out. The product's kernels judge all gates in one call;
scipy and the loop take gates one by one, which is what judges without a vectorised kernel do.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import mannwhitneyu

from bench._gate_rows import rows_of
from domain.calibration import Law
from scorers.evidence.effects import RATIOS, REACH, WORSE, WORSE_PRIOR
from scorers.evidence.judge import judge
from scorers.evidence.kernel import WIDTH, advance, begin
from scorers.evidence.null import null_of
from scorers.evidence.types import Floats

TICK_S = 5.0
TICKS = 20
"""Different ticks that are judged in turn; with one tick alone the branch predictor would know the
answers."""
LAWS = {
    "plain kernel (tau 0)": Law(),
    "lattice, versions differ for good (tau 0.25)": Law(tau=0.25),
    "lattice, wandering (tau 0.20, 100 s)": Law(tau=0.2, memory_s=100.0),
    "lattice, wandering (tau 0.37, 100 s)": Law(tau=0.37, memory_s=100.0),
}


@dataclass(frozen=True, slots=True)
class Speed:
    """One row of the table."""

    what: str
    microseconds: float
    """Per evaluation."""
    evaluations_per_s: float
    ms_per_1000_gates: float


def ticks_of(gates: int, seed: int = 5) -> list[Floats]:
    """Counts ``s_c, n_c, s_b, n_b`` of busy gates: 25 canary and 475 stable requests a tick, 2 % bad."""
    rng = np.random.default_rng(seed)
    n_c, n_b = rng.poisson(25, (TICKS, gates)), rng.poisson(475, (TICKS, gates))
    counts = [rng.binomial(n_c, 0.02), n_c, rng.binomial(n_b, 0.02), n_b]
    return [np.stack([each[tick] for each in counts], axis=1).astype(float) for tick in range(TICKS)]


def kernel_pass(law: Law, gates: int) -> Callable[[], int]:
    """All gates through one filter for :data:`TICKS` ticks; how many evaluations that were."""
    null = null_of(law, TICK_S)
    memory = np.zeros((gates, null.points * WIDTH))
    for row in memory:
        begin(row, 0, null.start)
    even, live, bound = np.ones(gates), np.ones(gates, np.bool_), np.zeros(gates, np.bool_)
    wanders = np.full(gates, null.wanders)
    log_e, tilt = np.zeros(gates), np.zeros(gates)
    ticks = ticks_of(gates)

    def judged() -> int:
        for counts in ticks:
            advance(
                memory,
                0,
                null.half,
                null.first,
                null.steps,
                wanders,
                counts,
                even,
                even,
                1e-4 * even,
                0.5 * even,
                bound,
                live,
                log_e,
                tilt,
            )
        return gates * len(ticks)

    return judged


def python_pass(gates: int) -> Callable[[], int]:
    """The plain kernel as a loop over plain floats: the same formulas, nothing compiled."""
    ratios = [float(RATIOS[REACH + int(step)]) for step in WORSE]
    logs, prior = [math.log(ratio) for ratio in ratios], [float(each) for each in WORSE_PRIOR]
    ticks = [[tuple(row) for row in counts.tolist()] for counts in ticks_of(gates)]
    beliefs = [[0.0] * len(ratios) for _ in range(gates)]

    def judged() -> int:
        for counts in ticks:
            for belief, (s_c, n_c, s_b, n_b) in zip(beliefs, counts, strict=True):
                share, events = n_c / (n_c + n_b), s_c + s_b
                for k, ratio in enumerate(ratios):
                    gain = s_c * logs[k] - events * math.log1p(share * (ratio - 1.0))
                    belief[k] = min(1e40, (belief[k] + 1e-4 * prior[k]) * math.exp(gain))
                math.log(sum(belief) + 0.5)
        return gates * len(ticks)

    return judged


def mann_whitney_pass(gates: int) -> Callable[[], int]:
    """scipy on sixty points of either arm per gate, as a judge of five minutes of 5 s points does."""
    rng = np.random.default_rng(7)
    some = min(gates, 200)
    arms = [(rng.normal(size=60), rng.normal(size=60)) for _ in range(some)]

    def judged() -> int:
        for canary, stable in arms:
            mannwhitneyu(canary, stable, alternative="two-sided")
        return some

    return judged


def judge_pass(gates: int) -> Callable[[], int]:
    """The whole judge: rows in, evidence, verdicts, sentences and new states out; no history (three
    nulls)."""
    rollouts = rows_of(gates)

    def judged() -> int:
        judge(rollouts)
        return gates

    return judged


def measured(what: str, judged: Callable[[], int], seconds: float) -> Speed:
    """Best of as many passes as fit in ``seconds``, after one to warm up."""
    judged()
    best, until = math.inf, perf_counter() + seconds
    while perf_counter() < until or best == math.inf:
        began = perf_counter()
        count = judged()
        best = min(best, (perf_counter() - began) / count)
    return Speed(what, best * 1e6, 1.0 / best, best * 1e6)


def figures(gates: int, seconds: float) -> dict[str, Speed]:
    """Every row, by what it measures."""
    passes = {what: kernel_pass(law, gates) for what, law in LAWS.items()}
    passes["whole judge, no history"] = judge_pass(gates)
    passes["plain kernel, Python loop"] = python_pass(gates)
    passes["scipy Mann-Whitney, 60 v 60"] = mann_whitney_pass(gates)
    return {what: measured(what, judged, seconds) for what, judged in passes.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="bench.kernels", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--gates", type=int, default=1000, help="gates judged together (default 1000)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time to spend on each row (default 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    found = figures(options.gates, options.seconds)
    plain = next(iter(found.values()))
    if options.json:
        rows = [
            asdict(speed) | {"ratio_to_plain": speed.microseconds / plain.microseconds}
            for speed in found.values()
        ]
        json.dump({"gates": options.gates, "rows": rows}, sys.stdout, indent=2)
        print()
        return
    table = Table(title=f"{options.gates:,} gates, one core")
    for column in ("", "µs each", "evaluations/s", "ms per 1,000 gates", "times the plain kernel"):
        table.add_column(column, justify="left" if not column else "right")
    for speed in found.values():
        table.add_row(
            speed.what,
            f"{speed.microseconds:.2f}",
            f"{speed.evaluations_per_s:,.0f}",
            f"{speed.ms_per_1000_gates:.2f}",
            f"{speed.microseconds / plain.microseconds:,.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
