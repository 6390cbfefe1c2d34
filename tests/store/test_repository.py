"""What is stored comes back, once, bit for bit; and what people ask about follows from it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from sqlalchemy import Engine, func, select

from domain.decision import ActionOutcome, Answer, Cause, CommandKind, DecisionKind, Order
from domain.records import Command, CommandInput, IncidentRecord
from domain.rollout import Phase
from domain.verdict import Verdict
from store.batch import Batch
from store.database import open_engine, reading
from store.errors import AlreadyActive, Duplicate, UnknownRollout
from store.models import AuditEntry, CommandRow, Deployment, EvaluationRow, PolicyVersion
from store.outbox import COMMANDS_TOPIC, Outbox, Promise
from store.repository import Repository
from streams.codec import decode, encode, event_headers
from tests.store.examples import (
    T0,
    command,
    decided,
    evaluation,
    fold,
    frame,
    incident,
    policy,
    public,
    report,
    score,
    spec,
    start,
    started,
    verified,
)


@pytest.fixture
def repository(engine: Engine) -> Repository:
    return Repository(engine)


def begin(repository: Repository, rollout_id: str = "r1", service: str = "checkout") -> None:
    of = spec(rollout_id, service)
    repository.start_rollout(of, start(of))


def count(engine: Engine, table: type) -> int:
    with reading(engine) as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


# --- starting


def test_a_started_rollout_is_stored_with_its_command_and_the_promise_to_publish_it(engine: Engine) -> None:
    repository, of = Repository(engine), spec()
    extra = Promise(topic="sentra.rollouts.v1", key="r1", value=b"\x00\xff", headers={"ce-id": "1"})
    assert repository.start_rollout(of, start(of), [extra])
    stored = repository.get_rollout("r1")
    assert stored is not None
    assert stored.spec == of
    assert (stored.phase, stored.seq, stored.is_active, stored.created_at) == (Phase.QUEUED, 0, True, T0)
    assert [step.weight_bp for step in repository.steps_of("r1")] == [500, 2000, 10_000]
    first, second = Outbox(engine).pending()
    assert (first.topic, first.key) == (COMMANDS_TOPIC, "r1")
    assert msgspec.json.decode(first.value, type=Command) == start(of)
    assert (second.topic, second.value, second.headers) == ("sentra.rollouts.v1", b"\x00\xff", {"ce-id": "1"})


def test_a_promised_command_is_what_readers_of_the_log_expect(engine: Engine) -> None:
    of = spec()
    Repository(engine).start_rollout(of, start(of))
    (promised,) = Outbox(engine).pending()
    assert decode(Command, promised.value) == start(of)
    assert promised.value == encode(start(of))
    assert {name: text.encode() for name, text in promised.headers.items()} == event_headers(start(of))


def test_the_same_start_twice_is_one_rollout_and_one_promise(engine: Engine) -> None:
    repository, of = Repository(engine), spec()
    assert repository.start_rollout(of, start(of))
    assert not repository.start_rollout(of, start(of))
    assert len(Outbox(engine).pending()) == 1
    assert count(engine, Deployment) == count(engine, CommandRow) == count(engine, AuditEntry) == 1


def test_a_second_rollout_of_a_service_in_an_environment_is_refused(engine: Engine) -> None:
    repository = Repository(engine)
    begin(repository)
    other = spec("r2", target="elsewhere")
    with pytest.raises(AlreadyActive, match=r"service checkout in prod-eu is held by rollout r1") as caught:
        repository.start_rollout(other, start(other))
    assert caught.value.rollout_id == "r1"
    assert count(engine, CommandRow) == 1
    elsewhere = spec("r3", target="elsewhere", environment="prod-us")
    assert repository.start_rollout(elsewhere, start(elsewhere))


def test_a_second_rollout_of_a_target_is_refused(repository: Repository) -> None:
    begin(repository)
    other = spec("r2", service="other", target="checkout")
    with pytest.raises(AlreadyActive, match=r"traffic of memory:name=checkout,namespace=shop is held by"):
        repository.start_rollout(other, start(other))


@pytest.mark.parametrize("way", ["evaluation", "record"])
def test_a_rollout_that_ended_lets_go(repository: Repository, way: str) -> None:
    begin(repository)
    if way == "evaluation":
        repository.append([evaluation(9, phase=Phase.ROLLED_BACK)])
    else:
        repository.save_rollout(public(spec(), 9, Phase.ROLLED_BACK))
    ended = repository.get_rollout("r1")
    assert ended is not None
    assert (ended.outcome, ended.is_active) == (Phase.ROLLED_BACK, False)
    assert ended.completed_at is not None
    begin(repository, "r2")
    assert [each.spec.rollout_id for each in repository.active_rollouts()] == ["r2"]


def test_an_id_is_used_once(repository: Repository) -> None:
    begin(repository)
    repository.append([evaluation(1, phase=Phase.ABORTED)])
    with pytest.raises(Duplicate, match="the rollout id r1 was used before"):
        repository.start_rollout(spec(), start(spec(), "another"))


def test_of_many_starts_at_once_one_wins(engine: Engine) -> None:
    gate = threading.Barrier(4)

    def attempt(number: int) -> bool:
        of = spec(f"r{number}")
        gate.wait()
        try:
            return Repository(engine).start_rollout(of, start(of))
        except AlreadyActive:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(attempt, range(4))) == [False, False, False, True]
    assert len(Repository(engine).active_rollouts()) == 1
    assert len(Outbox(engine).pending()) == 1


def test_policy_versions_are_stored_once(engine: Engine) -> None:
    repository = Repository(engine)
    for rollout_id in ("r1", "r2"):
        begin(repository, rollout_id)
        repository.append([evaluation(1, rollout_id, phase=Phase.PROMOTED)])
    assert count(engine, PolicyVersion) == 1


# --- commands


def test_a_command_waits_for_its_answer(engine: Engine) -> None:
    repository = Repository(engine)
    begin(repository)
    asked = command(CommandKind.PAUSE)
    assert repository.add_command(asked)
    assert not repository.add_command(asked)
    assert repository.answer_of("c1") is None
    answer = Answer(command_id="c1", accepted=False, reason="finalising", possible=("retry",))
    repository.append([evaluation(2, given=CommandInput(now=T0, command=asked), answer=answer)])
    assert repository.answer_of("c1") == answer
    assert len(Outbox(engine).pending()) == 2


def test_a_command_for_nobody_is_refused(repository: Repository) -> None:
    with pytest.raises(UnknownRollout, match="there is no rollout r1"):
        repository.add_command(command(CommandKind.PAUSE))


def test_a_command_that_came_by_the_log_is_stored_with_its_answer(repository: Repository) -> None:
    begin(repository)
    answer = Answer(command_id="c9", accepted=True, reason="paused")
    asked = command(CommandKind.PAUSE, command_id="c9")
    repository.append([evaluation(2, given=CommandInput(now=T0, command=asked), answer=answer)])
    assert repository.answer_of("c9") == answer


# --- records


def test_records_come_back_bit_for_bit_and_in_order(repository: Repository) -> None:
    begin(repository)
    told = [started(spec()), *(evaluation(seq) for seq in range(2, 700)), verified(700, 500)]
    assert repository.append(told[::-1]) == 700
    assert repository.evaluations_of("r1") == told
    assert repository.evaluations_of("r1", 698) == told[698:]
    assert repository.evaluations_of("r1", 1, limit=2) == told[1:3]
    assert [msgspec.msgpack.encode(each) for each in repository.evaluations_of("r1")] == [
        msgspec.msgpack.encode(each) for each in told
    ]


def test_records_told_twice_are_stored_once(engine: Engine) -> None:
    repository = Repository(engine)
    begin(repository)
    told = [
        started(spec()),
        evaluation(
            2, incidents=(incident(),), decision=decided(2, DecisionKind.PAUSE), kind=DecisionKind.PAUSE
        ),
    ]
    assert repository.append([*told, *told]) == 2
    assert repository.append([*told, evaluation(3)]) == 1
    repository.append_incidents(
        [incident(), IncidentRecord(incident=incident(), service="s", environment="e")]
    )
    assert count(engine, EvaluationRow) == 3
    assert repository.incidents_of("r1") == [incident()]
    with reading(engine) as connection:
        audited = connection.scalars(select(AuditEntry.action).order_by(AuditEntry.id)).all()
    assert audited == ["start", "PAUSE"]


def test_frames_of_a_deposed_owner_are_dropped(repository: Repository) -> None:
    begin(repository)
    first = repository.append_frames([frame(evaluation(1), epoch=3), frame(evaluation(2), epoch=4)])
    assert (first.evaluations, first.fenced) == (2, 0)
    late = repository.append_frames([frame(evaluation(3, phase=Phase.PROMOTED), epoch=3)])
    assert (late.evaluations, late.fenced) == (0, 1)
    mixed = repository.append_frames(
        [
            frame(evaluation(3), epoch=5),
            frame(evaluation(4), epoch=4),
            frame(evaluation(9), epoch=1, partition=2),
        ]
    )
    assert (mixed.evaluations, mixed.fenced) == (2, 1)
    assert [each.seq for each in repository.evaluations_of("r1")] == [1, 2, 3, 9]


def test_a_rollout_is_restored_from_its_last_state_and_what_followed(repository: Repository) -> None:
    begin(repository)
    assert repository.restore("r1") is None
    assert repository.last_fold("r1") is None
    repository.append([started(spec()), evaluation(2), evaluation(3, fold=fold(spec(), 3)), evaluation(4)])
    restored = repository.restore("r1")
    assert restored == (fold(spec(), 3), [evaluation(4)])
    assert repository.last_fold("r1") == fold(spec(), 3)


def test_a_rollout_this_database_never_saw_is_adopted_from_the_log(repository: Repository) -> None:
    repository.append([started(spec()), evaluation(2)])
    stored = repository.get_rollout("r1")
    assert stored is not None
    assert (stored.spec, stored.seq, stored.phase) == (spec(), 2, Phase.ANALYSING)
    answer = repository.answer_of("start-r1")
    assert answer is not None
    assert answer.accepted


def test_records_without_a_known_rollout_are_kept(repository: Repository) -> None:
    assert repository.append([evaluation(7, "r9")]) == 1
    assert repository.evaluations_of("r9") == [evaluation(7, "r9")]
    assert repository.get_rollout("r9") is None


# --- what follows from them


def test_the_row_of_a_rollout_follows_its_records(repository: Repository) -> None:
    begin(repository)
    advance = decided(3)
    note = decided(
        5, DecisionKind.PAUSE, order=Order.NONE, cause=Cause.FAIL, reason="2 % errors", generation=9
    )
    repository.append(
        [
            started(spec()),
            verified(2, 500, phase=Phase.WARMING),
            evaluation(3, decision=advance, kind=DecisionKind.ADVANCE, phase=Phase.SHIFTING, step_index=1),
            verified(4, 2000, phase=Phase.WARMING, step_index=1),
            evaluation(
                5,
                decision=note,
                kind=DecisionKind.PAUSE,
                phase=Phase.PAUSED,
                step_index=1,
                verdict=Verdict.FAIL,
            ),
        ]
    )
    stored = repository.get_rollout("r1")
    assert stored is not None
    assert (stored.phase, stored.seq, stored.step_index) == (Phase.PAUSED, 5, 1)
    assert (stored.ordered_bp, stored.verified_bp, stored.generation) == (2000, 2000, 2)
    assert (stored.verdict, stored.reason, stored.started_at) == (Verdict.FAIL, "2 % errors", T0 + 1)
    first, second, third = repository.steps_of("r1")
    assert (first.status, first.began_at, first.ended_at) == ("done", T0 + 2, evaluation(5).input.now)
    assert (second.status, second.decision, second.scores) == ("paused", "PAUSE", (score(),))
    assert (third.status, third.began_at) == ("pending", None)


def test_all_steps_of_a_promoted_rollout_are_done(repository: Repository) -> None:
    begin(repository)
    repository.append([evaluation(1, phase=Phase.PROMOTED, step_index=2)])
    assert [step.status for step in repository.steps_of("r1")] == ["done", "done", "done"]


def test_an_older_record_changes_no_newer_row(repository: Repository) -> None:
    begin(repository)
    repository.save_rollout(public(spec(), 8))
    repository.append([evaluation(6, phase=Phase.PAUSED)])
    repository.save_rollout(public(spec(), 7, Phase.PAUSED))
    stored = repository.get_rollout("r1")
    assert stored is not None
    assert (stored.seq, stored.phase, stored.public) == (8, Phase.ANALYSING, public(spec(), 8))


def test_a_changed_policy_is_a_new_version(engine: Engine) -> None:
    repository = Repository(engine)
    begin(repository)
    before = fold(spec(), 4)
    stricter = policy(pass_count=5)
    context = msgspec.structs.replace(before.context, policy=stricter, changes=1)
    repository.append([evaluation(4, fold=msgspec.structs.replace(before, context=context))])
    with reading(engine) as connection:
        current = connection.scalar(
            select(PolicyVersion.version).join(Deployment, Deployment.policy_id == PolicyVersion.id)
        )
    assert current == stricter.version


def test_reports_of_actuators_are_kept_word_for_word(repository: Repository) -> None:
    drift = report(outcome=ActionOutcome.DRIFT, observed_bp=777)
    repository.append_actions([report(), drift, report()])
    repository.append_actions([drift])
    assert repository.actions_of("r1") == [report(), drift]


def test_lists_go_back_in_time_page_by_page(repository: Repository) -> None:
    for number in range(5):
        begin(repository, f"r{number}", f"s{number}")
    repository.append([evaluation(1, "r3", phase=Phase.FAILED)])
    first = repository.list_rollouts(limit=2)
    second = repository.list_rollouts(limit=2, before=first[-1].cursor)
    assert [each.spec.rollout_id for each in first + second] == ["r4", "r3", "r2", "r1"]
    assert [
        each.spec.rollout_id for each in repository.list_rollouts(service="s2", environment="prod-eu")
    ] == ["r2"]
    assert repository.list_rollouts(environment="nowhere") == []
    assert [each.spec.rollout_id for each in repository.list_rollouts(phases=[Phase.FAILED])] == ["r3"]
    assert len(repository.list_rollouts(is_active=True)) == 4


def test_incidents_are_listed_newest_first(repository: Repository) -> None:
    begin(repository)
    repository.append_incidents(
        [incident(1), incident(2, "a"), incident(2, "b"), incident(9, rollout_id="r7")]
    )
    assert [each.detail for each in repository.incidents_of("r1", limit=2)] == ["b", "a"]
    assert [each.rollout_id for each in repository.incidents_of(since=T0 + 5)] == ["r7"]


def test_facts_are_remembered(repository: Repository) -> None:
    assert repository.fact("broker_epoch") is None
    repository.set_fact("broker_epoch", "b1")
    repository.set_fact("broker_epoch", "b1")
    repository.set_fact("broker_epoch", "b2")
    assert repository.fact("broker_epoch") == "b2"


# --- housekeeping


def test_pruning_keeps_what_is_not_finished_and_what_people_decided(engine: Engine) -> None:
    repository = Repository(engine)
    for rollout_id, last in (("old", Phase.PROMOTED), ("running", Phase.ANALYSING), ("new", Phase.ABORTED)):
        begin(repository, rollout_id, rollout_id)
        ends = evaluation(
            1000 if rollout_id == "new" else 2,
            rollout_id,
            phase=last,
            decision=decided(2, rollout_id=rollout_id),
            incidents=(incident(2, rollout_id=rollout_id),),
        )
        repository.append([started(spec(rollout_id, rollout_id)), ends])
    outbox = Outbox(engine)
    outbox.mark_published([each.id for each in outbox.pending()], at=T0 + 3)
    pruned = repository.prune(T0 + 100, now=T0 + 200)
    assert (pruned.rollouts, pruned.evaluations, pruned.promises) == (1, 2, 2)
    assert repository.evaluations_of("old") == []
    assert len(repository.evaluations_of("running")) == len(repository.evaluations_of("new")) == 2
    assert len(repository.incidents_of("old")) == 1
    gone = repository.get_rollout("old")
    assert gone is not None
    assert gone.pruned_at == T0 + 200
    started_by, decided_by = repository.audit_of("old")
    assert (started_by.actor, started_by.action, started_by.reference) == ("ann", "start", "start-old")
    assert (decided_by.actor, decided_by.action, decided_by.scores) == ("sentra", "ADVANCE", (score(),))
    assert repository.prune(T0 + 100, now=T0 + 300).rollouts == 0


def test_promises_are_kept_once_marked(engine: Engine) -> None:
    repository, outbox = Repository(engine), Outbox(engine)
    for number in range(3):
        begin(repository, f"r{number}", f"s{number}")
    first, second, third = outbox.pending()
    assert [first.key, second.key, third.key] == ["r0", "r1", "r2"]
    outbox.mark_published([second.id], at=T0)
    outbox.mark_published([], at=T0)
    assert [each.key for each in outbox.pending()] == ["r0", "r2"]
    assert [each.key for each in outbox.pending(1)] == ["r0"]


def test_what_only_a_lost_log_had_is_promised_again(engine: Engine) -> None:
    repository, outbox = Repository(engine), Outbox(engine)
    assert outbox.follow_log("log-1") == 0
    begin(repository, "folded", "s1")
    begin(repository, "lost", "s2")
    outbox.mark_published([each.id for each in outbox.pending()], at=T0)
    answer = Answer(command_id="start-folded", accepted=True, reason="starting")
    repository.append([evaluation(1, rollout_id="folded", answer=answer)])
    assert outbox.follow_log("log-1") == 0
    assert outbox.pending() == []
    assert outbox.follow_log("log-2") == 1
    assert [each.key for each in outbox.pending()] == ["lost"]


# --- many writers


def test_eight_writers_at_once_lose_nothing(url: str) -> None:
    engine = open_engine(url)
    repository = Repository(engine)
    for number in range(8):
        begin(repository, f"r{number}", f"s{number}")

    def write(number: int) -> None:
        mine = Repository(engine)
        for seq in range(1, 41):
            mine.write(
                Batch(
                    evaluations=(evaluation(seq, f"r{number}"), evaluation(seq, "shared")),
                    incidents=(incident(seq, "shared"),),
                )
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    for number in range(8):
        assert [each.seq for each in repository.evaluations_of(f"r{number}")] == list(range(1, 41))
    assert [each.seq for each in repository.evaluations_of("shared")] == list(range(1, 41))
    assert len(repository.incidents_of()) == 40
    engine.dispose()
