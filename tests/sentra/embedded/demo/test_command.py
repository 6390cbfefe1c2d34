"""``sentra demo`` as a program: what it prints, keeps and leaves behind, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil  # type: ignore[import-untyped]  # it brings no types
import pytest

from domain.rollout import Phase
from scorers.replay import verify
from sentra.cli.exits import Exit
from sentra.embedded.demo.request_log import Request, read_requests
from sentra.embedded.running import find, lock
from store.archive import read_archive
from store.database import open_engine
from store.repository import Repository
from tests.sentra.embedded.demo.short import LAX, SHORT

pytestmark = [pytest.mark.server, pytest.mark.slow]

WITHIN_S = 120.0


@dataclass(frozen=True)
class Ended:
    """A demo that has ended."""

    folder: Path
    code: int
    out: str
    err: str
    left: list[str]
    """Processes that it started and that still run."""

    @property
    def result(self) -> dict[str, Any]:
        """What ``--json`` printed; that it is one object is checked by decoding all of it."""
        return msgspec.json.decode(self.out, type=dict[str, Any])

    @property
    def state(self) -> Path:
        return self.folder / "here" / ".sentra"

    def files_outside_the_state(self) -> list[Path]:
        """Whatever it left in the current folder, the home or the folder for temporary files."""
        return [path for path in self.folder.glob("*/*") if path != self.state and path.name != "policy.yaml"]


class Demo:
    """``sentra demo`` in a world of its own: current folder, home and temporary files."""

    def __init__(self, folder: Path, *arguments: str, policy: str = SHORT) -> None:
        self.folder = folder
        for name in ("here", "home", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "here" / "policy.yaml").write_text(policy)
        environment = os.environ | {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        command = [sys.executable, "-m", "sentra.cli.main", "demo", *arguments, "--policy", "policy.yaml"]
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self._process = subprocess.Popen(
                command, cwd=folder / "here", env=environment, stdout=out, stderr=err
            )
        self._children: set[psutil.Process] = set()

    def look(self) -> bool:
        """Note its children; whether it still runs."""
        try:
            self._children |= set(psutil.Process(self._process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return False
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def err(self) -> str:
        return (self.folder / "err").read_text()

    def ended(self) -> Ended:
        """Wait for its end."""
        until(lambda: not self.look(), "the demo ends")
        return Ended(
            folder=self.folder,
            code=self._process.wait(),
            out=(self.folder / "out").read_text(),
            err=self.err(),
            left=[str(child) for child in self._children if _runs(child)],
        )

    def kill(self) -> None:
        """What is left of it when a test failed; its children die with it."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


Start = Callable[..., Demo]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    demos: list[Demo] = []

    def begin(folder: Path, *arguments: str, policy: str = SHORT) -> Demo:
        demos.append(Demo(folder, *arguments, policy=policy))
        return demos[-1]

    yield begin
    for demo in demos:
        demo.kill()


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"within {WITHIN_S:g} s it did not come about that {what}")
        time.sleep(0.05)


def until_all(demos: Sequence[Demo], holds: Callable[[Demo], bool], what: str) -> None:
    until(lambda: not [demo for demo in demos if not (demo.look() and holds(demo))], what)


# --- two demos, at the same time, in different folders


@pytest.fixture(scope="module")
def ends(start: Start, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Ended]:
    """A healthy one that is kept, and a bad canary that a lax policy lets through."""
    kept = start(tmp_path_factory.mktemp("kept"), "--json", "--keep")
    lax = start(tmp_path_factory.mktemp("lax"), "--json", "--scenario", "errors", policy=LAX)
    until_all([kept, lax], lambda demo: demo.look(), "both run")
    return kept.ended(), lax.ended()


@pytest.fixture(scope="module")
def kept(ends: tuple[Ended, Ended]) -> Ended:
    return ends[0]


@pytest.fixture(scope="module")
def lax(ends: tuple[Ended, Ended]) -> Ended:
    return ends[1]


def rows_of(kept: Ended) -> list[Request]:
    return list(read_requests(kept.state / "demo" / kept.result["rollout_id"] / "requests.jsonl"))


def test_a_scenario_that_ends_as_it_should_exits_with_0(kept: Ended) -> None:
    assert kept.code == Exit.OK, kept.err
    assert kept.result["outcome"] == "promoted"
    assert kept.result["scenario"] == "healthy"


def test_a_scenario_that_ends_otherwise_exits_with_9(lax: Ended) -> None:
    assert lax.code == Exit.UNEXPECTED, lax.err
    assert lax.result["outcome"] == "promoted"
    assert lax.result["expected"] == ["rolled_back"]
    assert lax.result["failed"]["canary"] > 0
    assert lax.result["failed"]["stable"] == 0
    assert lax.result["fault_to_decision_s"] is None, "nothing was decided against the fault"


def test_the_object_has_every_promised_key(kept: Ended, lax: Ended) -> None:
    promised = {
        *("rollout_id", "scenario", "judge", "outcome", "reason", "seconds", "fault_to_decision_s"),
        *(
            "decision_to_effect_s",
            "requests",
            "failed",
            "shift_failures",
            "steps",
            "evaluations",
            "decisions",
        ),
    }
    for result in (kept.result, lax.result):
        assert promised <= set(result)
        assert {"stable", "canary"} <= set(result["requests"]) & set(result["failed"])
        assert [set(step) for step in result["steps"]] == [{"weight_pct", "seconds", "verdict"}] * 2


def test_requests_and_failures_are_those_the_users_saw(kept: Ended) -> None:
    rows, result = rows_of(kept), kept.result
    assert sum(result["requests"].values()) == len(rows) > 0
    assert result["requests"]["stable"] == sum(row.version == "v1" for row in rows)
    assert result["requests"]["canary"] == sum(row.version == "v2" for row in rows)
    assert sum(result["failed"].values()) == sum(row.failed for row in rows)


def test_no_request_is_lost_by_shifting(kept: Ended, lax: Ended) -> None:
    assert kept.result["shift_failures"] == lax.result["shift_failures"] == 0


def test_steps_and_delays_fit_into_the_whole(kept: Ended) -> None:
    result = kept.result
    assert [step["weight_pct"] for step in result["steps"]] == [50.0, 100.0]
    assert [step["verdict"] for step in result["steps"]] == ["PASS", "PASS"]
    spent = result["ready_s"] + sum(step["seconds"] for step in result["steps"])
    assert 0 < spent < result["seconds"]
    assert 0 < result["decision_to_effect_s"] < result["seconds"]
    assert result["fault_to_decision_s"] is None


def test_a_kept_demo_leaves_files_and_nothing_that_runs(kept: Ended) -> None:
    assert kept.left == []
    assert find(kept.state) is None
    demo = kept.state / "demo" / kept.result["rollout_id"]
    assert (demo / "policy.yaml").read_text() == SHORT
    assert (kept.state / "logs" / "worker.log").exists()
    assert kept.files_outside_the_state() == []


def test_the_kept_archive_replays_bit_for_bit(kept: Ended) -> None:
    archived = read_archive(kept.state / "archive" / f"{kept.result['rollout_id']}.jsonl")
    assert len(archived.evaluations) == kept.result["evaluations"]
    assert verify(archived.evaluations) == []


def test_the_kept_database_knows_the_rollout_and_its_end(kept: Ended) -> None:
    engine = open_engine(f"sqlite:///{kept.state / 'sentra.db'}")
    try:
        repository = Repository(engine)
        stored = repository.get_rollout(kept.result["rollout_id"])
        assert stored is not None
        assert (stored.is_active, stored.phase) == (False, Phase.PROMOTED)
        assert len(repository.evaluations_of(stored.spec.rollout_id)) == kept.result["evaluations"]
    finally:
        engine.dispose()


def test_a_demo_that_is_not_kept_leaves_nothing_anywhere(lax: Ended) -> None:
    assert lax.left == []
    assert not lax.state.exists()
    assert lax.files_outside_the_state() == []


# --- other ends


def test_a_signal_ends_it_cleanly_and_the_folder_is_good_for_the_next(start: Start, tmp_path: Path) -> None:
    signals = {"int": signal.SIGINT, "term": signal.SIGTERM}
    demos = {name: start(tmp_path / name, "--keep") for name in signals}
    until_all(list(demos.values()), lambda demo: "in force: 50 %" in demo.err(), "traffic has moved")
    for name, number in signals.items():
        demos[name].signal(number)
    for demo in demos.values():
        ended = demo.ended()
        assert ended.code == Exit.ERROR
        assert ended.err.splitlines()[-1] == "interrupted"
        assert "Traceback" not in ended.err
        assert ended.left == []
        assert ended.files_outside_the_state() == []
    again = start(tmp_path / "int", "--keep", "--json").ended()
    assert again.result["outcome"] == "promoted", again.err
    assert sum(again.result["requests"].values()) == len(rows_of(again)), "not the former one's as well"


def test_a_policy_that_the_scenario_cannot_play_is_one_sentence(start: Start, tmp_path: Path) -> None:
    ended = start(tmp_path, "--json", "--scenario", "late").ended()
    assert ended.code == Exit.ERROR
    assert ended.out == ""
    assert ended.err.splitlines() == ["error late plays in step 3, the policy has 2 steps"]
    assert ended.left == []
    assert ended.files_outside_the_state() == []


def test_a_folder_where_a_stack_runs_is_said_to_be_taken(start: Start, tmp_path: Path) -> None:
    with lock(tmp_path / "here" / ".sentra"):
        ended = start(tmp_path, "--json", "--keep").ended()
    assert ended.code == Exit.ERROR
    (sentence,) = ended.err.splitlines()
    assert "another sentra runs in" in sentence
    assert f"(pid {os.getpid()})" in sentence
    assert ended.left == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--scenario", "chaos"), "there is no scenario 'chaos'; known are healthy"),
        (("--judge", "oracle"), "there is no judge 'oracle'; known are threshold, evidence"),
        (("--json", "-s", "healthy", "-s", "errors"), "takes one --scenario"),
    ],
)
def test_what_cannot_be_played_is_said_before_anything_starts(
    start: Start, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    ended = start(tmp_path, *arguments).ended()
    assert ended.code == Exit.ERROR
    assert sentence in ended.err
    assert ended.left == []
