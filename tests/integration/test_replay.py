"""Finished rollouts judged again: from the database, the archive and the topic, alone and in batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from domain.records import Evaluation, RestartInput, TickInput
from domain.rollout import Phase, RolloutFold
from domain.verdict import Verdict
from scorers.fold import fold_ticks
from scorers.replay import refold, verify
from store.archive import archive_rollout, read_archive
from tests.integration.feeding import Feeder
from tests.integration.loop import Measured, processes

pytestmark = [pytest.mark.server, pytest.mark.slow]

GOOD, BAD, RESTARTED = "roll-good", "roll-bad", "roll-restarted"
WORKER = "judge,record,relay"


async def test_stored_rollouts_replay_bit_for_bit_from_wherever_they_are_stored(
    tmp_path: Path, measured: Measured
) -> None:
    async with (
        processes(tmp_path, WORKER, with_traffic=False) as (made, parts),
        Feeder(made) as feeder,
    ):
        feeder.start(GOOD, BAD, pass_count=4)
        await made.until_in_force(BAD, step=0)
        feeder.bad[BAD] = 60.0
        assert await made.until_phase(GOOD, Phase.PROMOTED, Phase.ROLLED_BACK) is Phase.PROMOTED
        await made.until_phase(BAD, Phase.ROLLED_BACK)

        feeder.start(RESTARTED, pass_count=4)
        await made.until_in_force(RESTARTED, step=0)
        killed = parts.kill(WORKER)
        await parts.start(WORKER)
        measured("judge and recorder killed -> next evaluation", await made.until_judged_after(killed))
        await made.until_phase(RESTARTED, Phase.PROMOTED)

        everything = {}
        for rollout in (GOOD, BAD, RESTARTED):
            stored = await made.until_stored(rollout)
            archived = read_archive(
                archive_rollout(made.repository, rollout, tmp_path / "archive")
            ).evaluations
            on_topic = made.log.evaluations(rollout)
            assert len(stored) > 5
            assert verify(stored) == []
            assert verify(archived) == []
            assert verify(on_topic) == []
            assert _bytes(stored) == _bytes(archived) == _bytes(on_topic), "three copies of the same"
            everything[rollout] = stored
        assert any(isinstance(each.input, RestartInput) for each in everything[RESTARTED])
        assert not made.log.dead

    assert _judged_together(list(everything.values())) == [_bytes(each) for each in everything.values()]
    judged = next(at for at, each in enumerate(everything[BAD]) if each.verdict is Verdict.SEVERE)
    tampered = list(everything[BAD])
    tampered[judged] = msgspec.structs.replace(tampered[judged], verdict=Verdict.PASS)
    assert [each.field for each in verify(tampered)] == ["verdict"], "a changed record is found out"


def _bytes(evaluations: Sequence[Evaluation]) -> list[bytes]:
    return [msgspec.msgpack.encode(each) for each in evaluations]


def _judged_together(histories: list[list[Evaluation]]) -> list[list[bytes]]:
    """Fold several histories side by side, the ticks that come together in one batch."""
    folds: list[RolloutFold | None] = [None] * len(histories)
    replayed: list[list[bytes]] = [[] for _ in histories]
    for at in range(max(map(len, histories))):
        ticking = []
        for number, history in enumerate(histories):
            if at >= len(history):
                continue
            before, given = folds[number], history[at].input
            if before is not None and isinstance(given, TickInput):
                ticking.append((number, before, given))
                continue
            folded = refold(before, history[at])
            folds[number] = folded.fold
            replayed[number].append(msgspec.msgpack.encode(folded.evaluation))
        results = fold_ticks([before for _, before, _ in ticking], [tick for *_, tick in ticking])
        for (number, *_), folded in zip(ticking, results, strict=True):
            folds[number] = folded.fold
            replayed[number].append(msgspec.msgpack.encode(folded.evaluation))
    return replayed
