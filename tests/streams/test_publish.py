"""Evaluation frames: everything once and in order, and never larger than a broker takes."""

from __future__ import annotations

from bench import _fleet as fleet
from domain.records import Command, EvaluationFrame
from scorers.fold import Folded
from streams.agents import publish
from streams.agents.partition import Partition
from streams.agents.publish import FRAME_BYTES, Ownership
from streams.codec import decode

OWN = Ownership(partition=0, owner="test", epoch=1, broker_epoch="b")


def started(count: int) -> list[Folded]:
    """First folds of many rollouts: each carries its whole state."""
    partition = Partition()
    commands = [decode(Command, fleet.start_command(number, 0.0).value or b"") for number in range(count)]
    return [folded for command in commands for folded in partition.command(command, 0.0).folded]


def test_frames_full_of_states_stay_below_what_a_broker_takes() -> None:
    folded = started(450)
    written = publish.write_ahead(OWN, folded, {"topic": 7}, 0.0)
    assert all(len(each.value or b"") <= FRAME_BYTES for each in written)
    frames = [decode(EvaluationFrame, each.value or b"") for each in written]
    told = [evaluation for frame in frames for evaluation in frame.evaluations]
    assert told == [each.evaluation for each in folded]


def test_only_the_last_frame_says_that_the_inputs_are_contained() -> None:
    frames = [
        decode(EvaluationFrame, each.value or b"")
        for each in publish.write_ahead(OWN, started(450), {"topic": 7}, 0.0)
    ]
    assert len(frames) > 3, "the states alone need more than the 200 evaluations a frame may have"
    assert [frame.resume for frame in frames] == [{}] * (len(frames) - 1) + [{"topic": 7}]


def test_an_empty_frame_marks_a_new_owner() -> None:
    [mark] = publish.write_ahead(OWN, [], {}, 5.0)
    frame = decode(EvaluationFrame, mark.value or b"")
    assert (frame.evaluations, frame.owner_epoch, frame.published_at) == ((), 1, 5.0)
