"""The leaderboard's command: its JSON, its tables and its picture, with judges whose figures are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench import leaderboard
from bench.judging.roster import LATENCY_RULES, RULES, Entry
from bench.judging.scenarios import REPORTING_SEEDS

RULE = "tests.bench.trivial_rules:At"
MAIN_KEYS = {
    "false_rollback_mean_pct",
    "false_rollback_worst_pct",
    "false_promotion_worst_pct",
    "missed_pct",
    "median_delay_s",
    "median_exposed_requests",
    "promote_healthy_s",
}
PER_RATE = MAIN_KEYS - {"false_rollback_mean_pct", "false_rollback_worst_pct", "false_promotion_worst_pct"}


@pytest.fixture
def trivial(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that never acts, one that acts at once, one that steps on evidence, and one not written yet."""
    promotion = "tests.bench.trivial_rules:HalfPromoted"
    judges = {
        "never": Entry(where=RULE, settings={"name": "never", "tick": -1}),
        "at_once": Entry(where=RULE, settings={"name": "at_once", "tick": 0}, quick_most=1),
        "stepping": Entry(where=RULE, settings={"name": "stepping", "tick": 1}, promotion=promotion),
        "planned": Entry(where="bench.judging.not_written_yet:Judge"),
        "named": Entry(where="tests.bench.trivial_rules:NotWrittenYet"),
    }
    monkeypatch.delenv("SENTRA_DATA", raising=False)
    for name, entry in judges.items():
        monkeypatch.setitem(RULES, name, entry)


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[str, str]:
    monkeypatch.setattr(sys, "argv", ["leaderboard", "--workers", "1", *words])
    leaderboard.main()
    said = capsys.readouterr()
    return said.out, said.err


def test_the_json_has_the_promised_keys_and_counts_right(
    trivial: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    picture = tmp_path / "folder" / "board.png"
    out, err = run(
        capsys, monkeypatch, "--json", "--quick", "--healthy", "4", "--regressed", "2",
        "--judges", "never", "at_once", "stepping", "planned", "named", "--picture", str(picture),
    )  # fmt: skip
    board = json.loads(out)
    assert set(board["judges"]) == {"never", "at_once", "stepping"}
    for judge in board["judges"].values():
        assert set(judge) >= MAIN_KEYS
        assert all(set(judge[key]) == {"10", "100", "1000"} for key in PER_RATE)
        assert len(judge["cells"]) == 63
    never, at_once, stepping = board["judges"].values()
    assert (never["false_rollback_mean_pct"], at_once["false_rollback_mean_pct"]) == (0, 100)
    assert never["missed_pct"] == {"10": 100, "100": 100, "1000": 100}
    assert at_once["missed_pct"]["10"] == pytest.approx(100 / 11), "it missed the late one"
    assert at_once["median_delay_s"]["100"] == 5
    assert never["median_delay_s"]["100"] == 1500
    assert never["promote_healthy_s"] == {"10": 1500, "100": 1500, "1000": 1500}
    assert (never["false_promotion_worst_pct"], at_once["false_promotion_worst_pct"]) == (100, 0)
    assert stepping["false_promotion_worst_pct"] == 50
    assert stepping["promote_healthy_s"]["1000"] == 300
    assert at_once["rollouts"] == {"healthy": 30, "regressed": 33}, "slow judges see fewer rollouts"
    assert never["rollouts"] == {"healthy": 120, "regressed": 66}
    assert board["seeds"] == list(REPORTING_SEEDS[:1])
    assert board["skipped"] == {
        "planned": "there is no module bench.judging.not_written_yet",
        "named": "there is no NotWrittenYet in tests.bench.trivial_rules",
    }
    assert board["real"]["nezha"].startswith("skipped")
    assert "skipped planned" in err and "at_once is slow: only 1 rollouts" in err
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_tables_name_every_judge_and_the_stress_suites(
    trivial: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, _ = run(
        capsys, monkeypatch, "--stress", "--healthy", "2", "--regressed", "1", "--seeds", "101",
        "--judges", "never", "at_once", "--picture", str(tmp_path / "board.png"),
    )  # fmt: skip
    for words in ("never", "at_once", "stress:", "wrong history:", "real traces, nezha: skipped"):
        assert words in out


def test_two_workers_find_what_one_finds(
    trivial: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = (
        "--json",
        "--healthy",
        "3",
        "--regressed",
        "2",
        "--seeds",
        "101",
        "202",
        "--judges",
        "argo_limit_3",
    )
    words += ("--picture", str(tmp_path / "board.png"))
    one, _ = run(capsys, monkeypatch, *words)
    two, _ = run(capsys, monkeypatch, *words, "--workers", "2")
    assert json.loads(one)["judges"] == json.loads(two)["judges"]
    assert json.loads(one)["is_tuned_on"] == [101]


def test_a_judge_that_fails_ends_the_run(
    trivial: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, "wrong", Entry(where=RULE, settings={"name": "wrong", "tick": 300}))
    with pytest.raises(ValueError, match="outside"):
        run(capsys, monkeypatch, "--healthy", "2", "--regressed", "1", "--judges", "wrong")


def test_unknown_judges_are_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="nonsense; known: evidence, evidence_stable_only, evidence_cold"):
        run(capsys, monkeypatch, "--judges", "nonsense")


def test_latency_judges_are_judges_of_the_table() -> None:
    assert set(LATENCY_RULES) <= set(RULES)
