"""A rollout's file holds all of it, and says so when it does not."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from domain.errors import StoreError, StoreUnavailable
from domain.records import Evaluation, TickInput
from domain.rollout import Phase
from store.archive import archive_rollout, read_archive, write_archive
from store.database import open_engine
from store.errors import UnknownRollout
from store.repository import Repository
from tests.store.examples import T0, evaluation, spec, start, started

PLAIN = TickInput(start=T0, end=T0 + 5, now=T0 + 0.1 + 0.2)


def records() -> list[Evaluation]:
    return [started(spec()), *(evaluation(seq, given=PLAIN) for seq in range(2, 50))]


def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "deep" / "r1.jsonl", spec(), records())
    archived = read_archive(path)
    assert archived.spec == spec()
    assert [msgspec.msgpack.encode(each) for each in archived.evaluations] == [
        msgspec.msgpack.encode(each) for each in records()
    ]
    assert [each.name for each in path.parent.iterdir()] == ["r1.jsonl"]


def test_the_first_line_tells_a_person_what_it_is(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "r1.jsonl", spec(), records())
    header = json.loads(path.read_text().splitlines()[0])
    assert {key: header[key] for key in ("format", "version", "schema", "rollout_id", "evaluations")} == {
        "format": "sentra-rollout",
        "version": 1,
        "schema": 1,
        "rollout_id": "r1",
        "evaluations": 49,
    }


def test_a_stored_rollout_is_archived_until_it_is_pruned(sqlite_url: str, tmp_path: Path) -> None:
    engine = open_engine(sqlite_url)
    repository = Repository(engine)
    repository.start_rollout(spec(), start(spec()))
    told = [*records(), evaluation(50, given=PLAIN, phase=Phase.PROMOTED)]
    repository.append(told)
    assert list(read_archive(archive_rollout(repository, "r1", tmp_path)).evaluations) == told
    repository.prune(T0 + 1000, now=T0 + 1000)
    with pytest.raises(StoreError, match="were pruned"):
        archive_rollout(repository, "r1", tmp_path)
    with pytest.raises(UnknownRollout):
        archive_rollout(repository, "r2", tmp_path)
    engine.dispose()


def test_a_record_that_would_come_back_changed_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="record 7 of rollout r1 holds a number that JSON cannot say"):
        write_archive(tmp_path / "r1.jsonl", spec(), [evaluation(7)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda lines: lines[:-1], "is cut short: it holds 48 of 49 records"),
        (lambda lines: [*lines[:-1], lines[-1][:40]], "line 50 of the archive"),
        (
            lambda lines: [lines[0].replace('"version":1', '"version":2'), *lines[1:]],
            "has version 2 and schema 1",
        ),
        (lambda lines: ["{}", *lines[1:]], "is no archive of a rollout"),
        (lambda lines: [], "line 1 of the archive"),
    ],
)
def test_a_damaged_file_says_what_is_wrong(tmp_path: Path, damage, complaint: str) -> None:  # type: ignore[no-untyped-def] # lambdas
    path = write_archive(tmp_path / "r1.jsonl", spec(), records())
    path.write_text("\n".join(damage(path.read_text().splitlines())))
    with pytest.raises(StoreError, match=complaint):
        read_archive(path)


def test_a_missing_file_and_an_unwritable_place_are_errors_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        read_archive(tmp_path / "nothing.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        write_archive(tmp_path / "file" / "r1.jsonl", spec(), records())
