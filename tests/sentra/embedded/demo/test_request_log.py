"""What is written is what is read, and the totals add up."""

from __future__ import annotations

from pathlib import Path

from sentra.embedded.demo.request_log import Request, line_of, read_requests, summarise

ROWS = [
    Request(100.0, 100.001, 100.021, 200, "v1", False),
    Request(100.1, 100.101, 100.141, 200, "v2", True),
    Request(100.2, 100.2, 100.21, 503, "v2", False),
    Request(100.3, 100.3, 100.3, 0, "", False),
    Request(100.4, 100.4, 105.4, -1, "", False),
]


def test_rows_come_back_as_they_went(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(line_of(row) + "\n" for row in ROWS))
    assert list(read_requests(path)) == ROWS


def test_a_row_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(line_of(ROWS[0]) + "\n" + line_of(ROWS[1])[:-1])
    assert list(read_requests(path)) == ROWS[:1]


def test_the_totals_add_up() -> None:
    total = summarise(ROWS)
    assert (total.requests, total.failed, total.resets, total.timeouts) == (5, 3, 1, 1)
    assert total.by_version == {"v1": 1, "v2": 2, "": 2}
    assert total.failed_by_version == {"v2": 1, "": 2}
    assert (total.seconds, total.rps) == (0.4, 10.0)
    assert (total.p50_ms, total.p99_ms) == (20.0, 40.0)


def test_nothing_gives_zeros() -> None:
    total = summarise([])
    assert (total.requests, total.rps, total.p99_ms) == (0, 0.0, 0.0)
