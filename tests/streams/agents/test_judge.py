"""The judge agent on a log in memory: what it writes, in which order, and what its death costs."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from domain.decision import CommandKind, IncidentKind
from domain.records import IncidentRecord, SampleFrame, TickInput
from domain.rollout import Phase
from domain.signal import Arm, Channel
from domain.verdict import Verdict
from scorers.replay import replay, verify
from streams.agents.judge import JudgeAgent
from streams.agents.recovery import from_log
from streams.bus import Outgoing
from streams.codec import decode
from streams.topics import COMMANDS, EVALUATIONS, INCIDENTS, LOGS, METRICS
from tests.streams.judging import T0, World, command, frame, policy, spec


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_the_write_ahead_frame_comes_before_everything_that_follows_from_it(world: World) -> None:
    judge = await world.judge()
    started = await judge.handle(world.ask(command("r-1", CommandKind.START, spec())))
    assert [each.topic for each in started[0]] == [EVALUATIONS.name]
    assert all(each.topic != EVALUATIONS.name for batch in started[1:] for each in batch)
    assert {each.topic for batch in started[1:] for each in batch} >= {"sentra.decisions.v1"}


async def test_a_decision_that_was_only_written_ahead_is_published_by_the_next_owner(world: World) -> None:
    judge = await world.judge()
    handled = await judge.handle(world.ask(command("r-1", CommandKind.START, spec())))
    await world.publish(handled, batches=1)
    assert not world.decisions(), "it died before saying it"

    heir = await world.judge()
    (decided,) = {each.decision.decision_id: each for each in world.decisions()}.values()
    written = world.evaluations()[0].decision
    assert written is not None
    assert decided.decision == written
    await world.catch_up(heir)
    assert [each.seq for each in world.evaluations()] == [1, 2], "the start and the restart, nothing twice"


async def test_an_input_of_which_nothing_was_written_is_folded_by_the_next_owner(world: World) -> None:
    judge = await world.judge()
    await judge.handle(world.ask(command("r-1", CommandKind.START, spec())))

    heir = await world.judge()
    await world.catch_up(heir)
    assert [each.phase for each in world.evaluations()] == [Phase.STARTING]


async def test_recovery_from_checkpoint_and_log_equals_the_uninterrupted_state(world: World) -> None:
    judge = await world.judge()
    await world.begin(judge, spec(rules=policy(pass_count=12)))
    for second in range(1, 45):
        world.clock.advance(1.0)
        world.report(frame(["r-1"], T0 + second, bad=5.0 if second == 30 else 0.0))
        await world.catch_up(judge)
        for decided in world.decisions()[-1:]:
            world.obey(decided)
        await world.catch_up(judge)
        uninterrupted = [each.fold for each in replay(world.evaluations())][-1]
        recovered = await from_log(world.bus, 0)
        assert recovered.folds["r-1"] == uninterrupted
    assert len(world.evaluations()) > 20, "a checkpoint of the way lies in between"


async def test_what_a_deposed_owner_still_writes_is_left_out(world: World) -> None:
    old = await world.judge()
    await world.begin(old, spec())
    heir = await world.judge()
    world.clock.advance(1.0)
    sent = world.report(frame(["r-1"], T0 + 1, bad=150.0))
    # The old owner was frozen while the heir took over; it wakes, and writes what it thinks.
    await world.publish(await old.handle(sent))
    before = world.evaluations()
    assert all(each.verdict is None for each in before)

    recovered = await from_log(world.bus, 0)
    assert recovered.folds["r-1"] == [each.fold for each in replay(before)][-1]
    await world.deliver(heir, METRICS.name)
    after = world.evaluations()
    assert [each.seq for each in after] == list(range(1, len(after) + 1))
    assert verify(after) == []


async def test_a_checkpoint_of_a_deposed_owner_is_left_out_though_it_is_the_newest(world: World) -> None:
    old = await world.judge()
    await world.begin(old, spec(rules=policy(pass_count=500)))
    await world.tick(old)
    heir = await world.judge()
    # The old owner was frozen. It wakes twice, folds that it slept and what it had fetched, and checkpoints.
    for asleep_until in (60.0, 120.0):
        world.clock.advance(60.0)
        for second in range(1, 6):
            stale = world.report(frame(["r-1"], T0 + asleep_until + second, bad=2.0))
            await world.publish(await old.handle(stale))
    world.ask(command("r-1", CommandKind.PAUSE))
    await world.deliver(heir, COMMANDS.name)

    await world.judge()
    evaluations = world.evaluations()
    assert [each.seq for each in evaluations] == list(range(1, len(evaluations) + 1))
    assert evaluations[-1].phase is Phase.PAUSED
    assert verify(evaluations) == []


async def test_silence_becomes_ticks_without_data(world: World) -> None:
    judge = await world.judge()
    await world.begin(judge, spec())
    world.clock.advance(1.0)
    world.report(frame(["r-1"], T0 + 1))
    await world.catch_up(judge)
    for _ in range(10):
        await world.tick(judge)

    silent = [each for each in world.evaluations() if each.verdict is Verdict.NO_DATA]
    assert len(silent) >= 5
    ends = [each.input.end for each in silent if isinstance(each.input, TickInput)]
    assert ends == sorted(set(ends)), "each second of silence is one tick"
    lost = [decode(IncidentRecord, each.value).incident for each in world.bus.records(INCIDENTS.name)]
    assert [each.kind for each in lost].count(IncidentKind.LOST_SOURCE) == 1, "its onset is told once"
    assert verify(world.evaluations()) == []


async def test_a_source_that_comes_back_ends_the_silence(world: World) -> None:
    judge = await world.judge()
    await world.begin(judge, spec())
    for _ in range(6):
        await world.tick(judge)
    world.report(frame(["r-1"], world.clock.now()))
    await world.catch_up(judge)
    assert world.evaluations()[-1].verdict is Verdict.PASS


async def test_a_pending_frame_is_read_again_after_a_death(world: World) -> None:
    judge = await world.judge()
    await world.begin(judge, spec(rules=policy(logs=True)))
    world.clock.advance(1.0)
    world.report(frame(["r-1"], T0 + 1, n=70.0))
    await world.catch_up(judge)  # the tick waits for the log source
    await world.tick(judge, 0.2)
    world.ask(command("r-1", CommandKind.PAUSE))
    await world.catch_up(judge)  # something else is folded, and says up to where inputs are contained

    heir = await world.judge()
    assert world.position[METRICS.name] == 0, "the frame is not contained yet"
    assert world.position[COMMANDS.name] == 2, "both commands are"
    world.report(frame(["r-1"], T0 + 1, channel=Channel.LOGS, n=70.0))
    await world.catch_up(heir)
    (tick,) = [each.input for each in world.evaluations() if isinstance(each.input, TickInput)]
    assert {each.signal for each in tick.signals} == {"error_rate", "log_error_ratio"}


@pytest.mark.parametrize("seed", range(12))
async def test_however_often_judges_die_each_sample_counts_once(world: World, seed: int) -> None:
    random = Random(seed)
    specs = [spec("r-1", policy(logs=True, pass_count=500)), spec("r-2", policy(pass_count=500))]
    judge = await world.judge()
    await world.begin(judge, *specs)
    held_back: list[SampleFrame] = []
    for second in range(1, 40):
        world.clock.advance(1.0)
        world.report(frame(["r-1", "r-2"], T0 + second, n=50.0 + second))
        logs = [*held_back, frame(["r-1"], T0 + second, channel=Channel.LOGS, n=50.0 + second)]
        held_back = [logs.pop()] if random.random() < 0.3 else []  # so that ticks are pending now and then
        for each in logs:
            world.report(each)
        if random.random() < 0.4:
            judge = await _killed_with_a_record_in_hand(world, judge, random)
        await world.catch_up(judge)
        await world.publish(await judge.tick(world.clock.now()))

    for rollout in ("r-1", "r-2"):
        evaluations = world.evaluations(rollout)
        assert [each.seq for each in evaluations] == list(range(1, len(evaluations) + 1))
        assert verify(evaluations) == []
        ticks = [each.input for each in evaluations if isinstance(each.input, TickInput)]
        counted = [
            (each.start, each.exposure)
            for tick in ticks
            for each in tick.signals
            if each.signal == "error_rate" and each.arm is Arm.CANARY
        ]
        sent = [(T0 + second - 1.0, 50.0 + second) for second in range(1, 40)]
        assert counted in (sent, sent[:-1]), "no sample is lost and none counts twice"


async def _killed_with_a_record_in_hand(world: World, judge: JudgeAgent, random: Random) -> JudgeAgent:
    """Die after none, one or all of the batches of a record; the heir takes over."""
    topic = random.choice([METRICS.name, LOGS.name])
    waiting = world.bus.records(topic, start=world.position[topic])
    if waiting:
        handled = await judge.handle(waiting[0])
        await world.publish(handled, batches=random.choice([0, 1, None]))
    return await world.judge()


async def test_a_repeated_start_changes_nothing(world: World) -> None:
    judge = await world.judge()
    world.ask(command("r-1", CommandKind.START, spec()))
    world.ask(command("r-1", CommandKind.START, spec()))
    await world.catch_up(judge)
    assert [each.seq for each in world.evaluations()] == [1]


async def test_an_owner_that_slept_folds_one_restart_before_anything_else(world: World) -> None:
    judge = await world.judge()
    await world.begin(judge, spec())
    await world.tick(judge)
    folded = len(world.evaluations())
    world.clock.advance(60.0)
    world.report(frame(["r-1"], world.clock.now()))
    await world.catch_up(judge)
    await world.tick(judge)
    kinds = [each.input.__struct_config__.tag for each in world.evaluations()[folded:]]
    assert kinds[0] == "restart"
    assert kinds.count("restart") == 1


async def test_a_rollout_known_only_to_the_database_is_restored_on_an_empty_log(world: World) -> None:
    judge = await world.judge()
    wanted = spec()
    world.repository.start_rollout(wanted, command("r-1", CommandKind.START, wanted))
    await world.begin(judge, wanted)
    world.repository.append_frames(world.frames())
    before = len(world.evaluations())

    world.bus = type(world.bus)()  # the embedded broker kept nothing
    await world.judge()
    (restarted,) = world.evaluations()
    assert restarted.seq == before + 1
    assert restarted.input.__struct_config__.tag == "restart"


async def test_bytes_that_are_no_frame_raise_and_change_nothing(world: World) -> None:
    judge = await world.judge()
    await world.begin(judge, spec())
    poison = world.bus.append(Outgoing(topic=METRICS.name, partition=0, value=b"\xffnot a frame"))
    folded = world.evaluations()
    with pytest.raises(Exception, match="not a SampleFrame"):
        await judge.handle(poison)
    assert world.evaluations() == folded
