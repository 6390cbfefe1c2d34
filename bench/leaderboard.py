"""Who rolls back what, and how soon: judges scored on simulated and on real rollouts.

    python -m bench.leaderboard [--quick] [--stress] [--json] [--judges ...] [--seeds ...] [--picture PATH]

Any :class:`~bench.judging.cells.Rule` can be listed in :data:`~bench.judging.roster.RULES`. Seeds are fixed
in :mod:`bench.judging.scenarios`; none of those reported was used for tuning. The same arguments give the
same figures on any number of cores.

Place: tasks (a family of cells, a suite, a track of real traces) go to worker processes, their results to
:mod:`bench.judging.figures` and :mod:`bench.judging.report`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.judging.figures import Judged, judge_figures
from bench.judging.nezha import data_folder
from bench.judging.nezha_cells import DIVISIONS
from bench.judging.nezha_figures import Seen, real_json
from bench.judging.picture import draw
from bench.judging.report import judge_json, print_tables, suite_json
from bench.judging.roster import FIXED_SCHEDULE, LATENCY_RULES, RULES, missing
from bench.judging.scenarios import HEALTHY, RATES, REPORTING_SEEDS, TUNING_SEEDS
from bench.judging.tasks import FULL, QUICK, Size, Task, traces, work
from domain.clock import SystemClock

PICTURE = Path("build/leaderboard.png")
"""Not tracked."""
WIDTH = 150
"""Columns of the tables where there is no terminal."""


def main() -> None:
    """Read the command line, score, print."""
    asked = _parser().parse_args()
    unknown = [name for name in asked.judges or () if name not in RULES | LATENCY_RULES]
    if unknown:
        raise SystemExit(f"no judge is named {', '.join(unknown)}; known: {', '.join(RULES)}")
    board = score(
        judges=asked.judges or tuple(RULES),
        seeds=asked.seeds or (REPORTING_SEEDS[:1] if asked.quick else REPORTING_SEEDS),
        size=_size(asked),
        is_quick=asked.quick,
        with_stress=asked.stress,
        workers=asked.workers,
    )
    draw(board["judges"], asked.picture)
    say(f"picture: {asked.picture}")
    if asked.json:
        print(json.dumps(board))
    else:
        console = Console()
        print_tables(board, console if console.is_terminal else Console(width=WIDTH))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.leaderboard", description="Judges scored on rollouts.")
    parser.add_argument("--quick", action="store_true", help="one seed, fewer rollouts: under 90 s")
    parser.add_argument("--stress", action="store_true", help="also out-of-family and wrong-history suites")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--judges", nargs="+", metavar="NAME", help=f"of {', '.join(RULES)}")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help=f"instead of {REPORTING_SEEDS}")
    parser.add_argument("--healthy", type=int, help="rollouts per healthy cell and seed")
    parser.add_argument("--regressed", type=int, help="rollouts per regressed cell and seed")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="1: in this process")
    parser.add_argument("--picture", type=Path, default=PICTURE, help=f"where to; {PICTURE} if not given")
    return parser


def _size(asked: argparse.Namespace) -> Size:
    usual = QUICK if asked.quick else FULL
    return replace(
        usual, healthy=asked.healthy or usual.healthy, regressed=asked.regressed or usual.regressed
    )


def score(
    *,
    judges: Sequence[str],
    seeds: Sequence[int],
    size: Size,
    is_quick: bool = False,
    with_stress: bool = False,
    workers: int = 1,
) -> dict[str, Any]:
    """The whole leaderboard; keys as :mod:`bench.judging.report` says."""
    began = SystemClock().now()
    skipped = dict(_not_there(judges))
    present = tuple(name for name in judges if name not in skipped)
    of_latency = tuple(
        name for name in judges if name in LATENCY_RULES and f"{name} on latencies" not in skipped
    )
    for name, reason in skipped.items():
        say(f"skipped {name}: {reason}")
    _say_caps(present, is_quick)
    make = partial(Task, size=size, is_quick=is_quick)
    tasks = [task for seed in seeds for task in _simulated(make, seed, present, with_stress)]
    traces_folder = data_folder()
    if traces_folder is not None and of_latency:
        tasks = [*_real(make, seeds[0], of_latency), *tasks]
    results = list(_worked(tasks, workers)) if tasks else []
    board = {
        "judges": _judges_json(present, [each for each in results if isinstance(each, Judged)]),
        "real": _real_track(traces_folder, of_latency, [each for each in results if isinstance(each, Seen)]),
        "seeds": list(seeds),
        "is_tuned_on": sorted(set(seeds) & set(TUNING_SEEDS)),
        "rollouts_per_cell": {"healthy": size.healthy, "regressed": size.regressed},
        "skipped": skipped,
        "seconds": round(SystemClock().now() - began, 1),
    }
    say(f"done in {board['seconds']} s")
    return board


def _not_there(judges: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Parts that do not exist yet, and why."""
    for name in judges:
        wanted = {name: RULES[name].where, f"promotions of {name}": RULES[name].promotion}
        if name in LATENCY_RULES:
            wanted[f"{name} on latencies"] = LATENCY_RULES[name].where
        for part, where in wanted.items():
            reason = None if where == FIXED_SCHEDULE else missing(where)
            if reason is not None:
                yield part, reason


def _say_caps(present: Sequence[str], is_quick: bool) -> None:
    for name in present:
        most = RULES[name].quick_most if is_quick else RULES[name].full_most
        if most is not None:
            say(f"{name} is slow: only {most} rollouts per cell and seed")


def _simulated(make: Any, seed: int, judges: tuple[str, ...], with_stress: bool) -> Iterator[Task]:
    for rps in sorted(RATES, reverse=True) if judges else ():
        if with_stress:
            yield make(track="wrong_history", seed=seed, judges=judges, rps=rps)
            yield make(track="stress", seed=seed, judges=judges, rps=rps)
        for kind in HEALTHY:
            yield make(track="family", seed=seed, judges=judges, rps=rps, kind=kind.name)


def _real(make: Any, seed: int, judges: tuple[str, ...]) -> Iterator[Task]:
    for division in DIVISIONS:
        yield make(track="divisions", seed=seed, judges=judges, kind=division)
    yield make(track="faults", seed=seed, judges=judges)


def _worked(tasks: Sequence[Task], workers: int) -> Iterator[Judged | Seen]:
    """Results of all tasks in the tasks' order, so that figures do not depend on who was faster."""
    if workers <= 1:
        for number, task in enumerate(tasks, start=1):
            yield from work(task)
            say(f"{number}/{len(tasks)} {task}")
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # workers inherit it: as many processes as cores, one thread each
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=workers, mp_context=spawning) as pool:
        futures = {pool.submit(work, task): task for task in tasks}
        for number, future in enumerate(as_completed(futures), start=1):
            if future.exception() is not None:
                pool.shutdown(cancel_futures=True)
            future.result()
            say(f"{number}/{len(tasks)} {futures[future]}")
        for future in futures:
            yield from future.result()


def _judges_json(names: Sequence[str], results: Sequence[Judged]) -> dict[str, Any]:
    main = judge_figures(each for each in results if each.suite == "family")
    judges = {name: judge_json(main[name]) for name in names if name in main}
    for suite in ("stress", "wrong_history"):
        for name, figures in judge_figures(each for each in results if each.suite == suite).items():
            judges[name][suite] = suite_json(figures)
    return judges


def _real_track(folder: Path | None, judges: Sequence[str], results: Sequence[Seen]) -> dict[str, Any]:
    if folder is None:
        return {"nezha": "skipped: SENTRA_DATA names no folder with nezha/rca_data in it"}
    if not judges:
        return {"nezha": "skipped: no judge of latencies was asked for or found"}
    return {"nezha": real_json(traces(), results)}


def say(what: str) -> None:
    """Progress, apart from the result."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
