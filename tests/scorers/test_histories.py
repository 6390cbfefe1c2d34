"""Recorded rollouts are concluded today as they were then."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from domain.decision import DecisionKind
from domain.rollout import Phase
from scorers.replay import verify
from store.archive import Archived, read_archive

HISTORIES = Path(__file__).parent.parent / "histories"
ENDS = {
    "errors.evidence": (Phase.ROLLED_BACK, DecisionKind.ROLL_BACK),
    "errors.threshold": (Phase.ROLLED_BACK, DecisionKind.ROLL_BACK),
    "flaky.threshold": (Phase.PROMOTED, DecisionKind.PROMOTE),
    "shared.evidence": (Phase.ABORTED, DecisionKind.ROLL_BACK),
}
"""How each ended: the demo aborts what it leaves paused."""


def history(name: str, folder: Path) -> Archived:
    """A recorded rollout, unpacked into ``folder`` to be read."""
    unpacked = folder / f"{name}.jsonl"
    unpacked.write_bytes(gzip.decompress((HISTORIES / f"{name}.jsonl.gz").read_bytes()))
    return read_archive(unpacked)


def test_every_recorded_rollout_is_tested() -> None:
    assert {path.name.removesuffix(".jsonl.gz") for path in HISTORIES.glob("*.gz")} == set(ENDS)


@pytest.mark.parametrize("name", ENDS)
def test_a_recorded_rollout_is_concluded_as_it_was(name: str, tmp_path: Path) -> None:
    """Beliefs (``fold``) may differ in their last bits where a machine's exp and log do; conclusions not."""
    recorded = history(name, tmp_path)
    assert len(recorded.evaluations) > 10
    assert [each for each in verify(recorded.evaluations) if each.field != "fold"] == []
    decisions = [each.decision.kind for each in recorded.evaluations if each.decision is not None]
    assert (recorded.evaluations[-1].phase, decisions[-1]) == ENDS[name]
