"""Several judges share eight partitions: one dies, one is frozen and comes back."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from domain.records import TickInput
from domain.rollout import Phase
from scorers.replay import verify
from streams.agents.judge import SLEPT_S
from tests.integration.feeding import Feeder
from tests.integration.loop import CLOCK, Loop, Measured, processes, until

pytestmark = [pytest.mark.server, pytest.mark.slow]

ROLLOUTS = [f"roll-{number}" for number in range(12)]
JUDGES = ("judge#1", "judge#2", "judge#3")


def owners(made: Loop, since: float) -> dict[str, set[str]]:
    """By rollout, who has judged ticks of it since a moment, among ruling owners."""
    found: dict[str, set[str]] = {rollout: set() for rollout in ROLLOUTS}
    for frame in made.log.ruling_frames():
        if frame.published_at > since:
            for each in frame.evaluations:
                if isinstance(each.input, TickInput):
                    found[each.rollout_id].add(frame.owner)
    return found


def are_all_judged(made: Loop, since: float) -> bool:
    return all(owners(made, since).values())


async def until_spread(made: Loop, feeder: Feeder, workers: int) -> None:
    """Until every rollout is judged and so many workers take part."""

    def is_spread() -> bool:
        found = owners(made, CLOCK.now() - 4.0)
        return all(found.values()) and len(set().union(*found.values())) == workers

    await until(is_spread, f"{workers} workers judge all rollouts")


async def test_every_rollout_is_judged_once_and_goes_on_elsewhere_when_its_worker_dies(
    tmp_path: Path, measured: Measured
) -> None:
    async with (
        processes(tmp_path, *JUDGES, "relay", partitions=8, with_traffic=False) as (made, parts),
        Feeder(made) as feeder,
    ):
        feeder.start(*ROLLOUTS)
        await until_spread(made, feeder, 3)
        settled = CLOCK.now()
        await until(lambda: CLOCK.now() - settled > 2.0, "some ticks pass")
        assert all(len(each) == 1 for each in owners(made, settled).values()), "one judge each"

        victim = f":{parts.children[JUDGES[0]].pid}"
        theirs = [rollout for rollout, by in owners(made, settled).items() if next(iter(by)).endswith(victim)]
        assert theirs, "it judged some"
        killed = parts.kill(JUDGES[0])

        def are_taken_over() -> bool:
            found = owners(made, killed)
            return all(
                found[rollout] and not any(by.endswith(victim) for by in found[rollout]) for rollout in theirs
            )

        await until(are_taken_over, "the dead one's rollouts are judged elsewhere")
        measured("one of three judges killed -> all its rollouts judged again", CLOCK.now() - killed)
        for rollout in ROLLOUTS:
            made.assert_seq_without_holes(rollout)
            assert verify(made.log.evaluations(rollout)) == []
            ends = [e.input.end for e in made.log.evaluations(rollout) if isinstance(e.input, TickInput)]
            assert ends == sorted(set(ends)), "no tick is judged twice"


async def test_what_a_frozen_judge_writes_after_it_was_replaced_changes_nothing(
    tmp_path: Path, measured: Measured
) -> None:
    async with (
        processes(tmp_path, *JUDGES[:2], "record", "relay", partitions=8, with_traffic=False) as (
            made,
            parts,
        ),
        Feeder(made) as feeder,
    ):
        feeder.start(*ROLLOUTS)
        await until_spread(made, feeder, 2)
        parts.freeze(JUDGES[0])
        frozen = CLOCK.now()
        still = f":{parts.children[JUDGES[0]].pid}"
        try:
            await until(lambda: are_all_judged(made, frozen + 1.0), "the other one takes over")
            measured("judge frozen -> all its rollouts judged elsewhere", CLOCK.now() - frozen)
            # So long that it notices having slept, and folds that before it hears of its replacement.
            await until(lambda: CLOCK.now() - frozen > SLEPT_S + 2.0, "it slept")
        finally:
            thawed = CLOCK.now()
            parts.thaw(JUDGES[0])

        def deposed() -> list[str]:
            ruling = {id(frame) for frame in made.log.ruling_frames()}
            return [
                frame.owner
                for frame in made.log.frames
                if frame.published_at > thawed and id(frame) not in ruling
            ]

        await until(
            lambda: any(each.endswith(still) for each in deposed()), "it writes as if nothing had been", 20.0
        )
        await until_spread(made, feeder, 2)
        feeder.bad = defaultdict(lambda: 100.0)  # the end of them all
        await until(
            lambda: all(made.phase(rollout) is Phase.ROLLED_BACK for rollout in ROLLOUTS),
            "all are rolled back",
        )
        for rollout in ROLLOUTS:
            made.assert_seq_without_holes(rollout)
            stored = await made.assert_replays(rollout)
            assert stored == made.log.evaluations(rollout), "the database holds what the ruling owners wrote"
            assert made.repository.last_fold(rollout) == stored[-1].fold
