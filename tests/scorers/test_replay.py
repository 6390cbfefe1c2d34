"""Stored histories replay to the last bit, and a tampered one is found."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from domain.errors import RecordError
from domain.records import Evaluation, TickInput
from domain.verdict import Verdict
from scorers.fold import fold, is_over
from scorers.replay import replay, verify
from tests.scorers.situations import T0, spec
from tests.scorers.telemetry import begun, errors, quick, tick, verified


def stored() -> list[Evaluation]:
    """A rollout to its end, as it comes back from the store."""
    folded = begun(spec(quick(pass_count=2)))
    kept, now, current = [folded.evaluation], T0, folded.fold
    while not is_over(current):
        assert len(kept) < 100, "it does not end"
        now += 5.0
        given = verified(current, now) if current.state.in_flight else tick(now, errors(now, 1.0, 150.0))
        folded = fold(current, given)
        kept.append(folded.evaluation)
        current = folded.fold
    return [msgspec.msgpack.decode(msgspec.msgpack.encode(each), type=Evaluation) for each in kept]


def test_a_stored_history_replays_without_a_difference() -> None:
    kept = stored()
    assert len(kept) > 8
    assert verify(kept) == []
    assert [each.evaluation for each in replay(kept)] == kept


def test_a_history_stored_as_json_replays_as_well() -> None:
    kept = [msgspec.json.decode(msgspec.json.encode(each), type=Evaluation) for each in stored()]
    assert verify(kept) == []


def test_a_replay_may_begin_at_any_record_that_holds_the_state() -> None:
    kept = stored()
    states = [folded.fold for folded in replay(kept)]
    for start in (1, 4, len(kept) - 1):
        assert verify(kept[start:], states[start - 1]) == []


def test_a_tampered_score_is_found_where_it_is() -> None:
    kept = stored()
    at = next(position for position, each in enumerate(kept) if each.scores)
    (score,) = kept[at].scores
    kept[at] = replace(kept[at], scores=(replace(score, canary_events=score.canary_events + 1e-9),))
    (found,) = verify(kept)
    assert (found.seq, found.field) == (kept[at].seq, "scores")
    assert str(kept[at].seq) in str(found)


@pytest.mark.parametrize(
    "field", ["verdict", "kind", "decision", "phase", "incidents", "context", "kernel_version"]
)
def test_whatever_is_tampered_with_is_found(field: str) -> None:
    kept = stored()
    at = next(position for position, each in enumerate(kept) if each.decision and each.scores)
    lies = {
        "verdict": Verdict.FAIL,
        "kind": kept[0].kind.HOLD,
        "decision": None,
        "phase": kept[-1].phase,
        "incidents": kept[at].incidents * 2 or None,
        "context": "0" * 16,
        "kernel_version": "0",
    }
    kept[at] = replace(kept[at], **{field: lies[field]})
    assert field in {each.field for each in verify(kept)}


def test_tampered_inputs_show_in_what_follows_from_them() -> None:
    kept = stored()
    at = next(position for position, each in enumerate(kept) if each.scores)
    was = kept[at].input
    assert isinstance(was, TickInput)
    kept[at] = replace(kept[at], input=replace(was, signals=errors(was.end, 50.0, 150.0)))
    found = {each.field for each in verify(kept) if each.seq == kept[at].seq}
    assert {"scores", "verdict"} <= found


def test_a_missing_record_is_found() -> None:
    kept = stored()
    del kept[4]
    assert "seq" in {each.field for each in verify(kept)}


def test_a_history_without_its_beginning_is_refused() -> None:
    with pytest.raises(RecordError, match="not where the rollout begins"):
        verify(stored()[1:])
    assert verify([]) == []
