"""A server that fails, lies or overflows: no data with a reason, never good news, and nobody else stops."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

import pytest

from domain.errors import SourceError, SourceRejected, SourceUnavailable
from domain.signal import Arm, Channel
from streams.pollers.base import target_of
from tests.streams.pollers.prometheus_api import Question, Reply, failure
from tests.streams.pollers.rollouts import gate, spec
from tests.streams.pollers.test_prometheus import NOON, TARGET, asking, numbers, only

OTHER = target_of(spec("r-2", service="cart"), Channel.METRICS)


async def test_a_server_that_is_down_is_said_to_be() -> None:
    async with asking(url="http://127.0.0.1:9") as it:
        with pytest.raises(SourceUnavailable, match="refused the connection"):
            await it.tick()


async def test_a_server_that_hangs_is_not_waited_for() -> None:
    async with asking(timeout="50ms") as it:
        it.server.hangs = True
        with pytest.raises(SourceUnavailable, match=r"did not answer within 0\.05 s"):
            await it.tick()


FAULTS: dict[str, tuple[Reply, str]] = {
    "overloaded": (failure(503, "timeout", "query timed out"), "status 503: query timed out"),
    "a log-in page": (Reply("<html>", headers={"Content-Type": "text/html"}), "answered text/html"),
    "in part": (
        Reply('{"status":"success","isPartial":true,"data":{"resultType":"matrix","result":[]}}'),
        "in part only",
    ),
    "with warnings": (
        Reply('{"status":"success","warnings":["store down"],"data":{"resultType":"matrix","result":[]}}'),
        "warning: store down",
    ),
    "another clock": (
        Reply("{}", headers={"Date": formatdate(NOON + 65, usegmt=True)}),
        "clock 55 s ahead of",
    ),
    "not ours": (failure(401, "", "who are you"), "does not authorise us"),
    "no numbers": (
        Reply(
            '{"status":"success","data":{"resultType":"matrix","result":['
            '{"metric":{"__name__":"hits","app":"checkout","version":"v2"},"values":[[1,"many"]]}]}}'
        ),
        "values that are no numbers",
    ),
}


@pytest.mark.parametrize("reply, words", FAULTS.values(), ids=FAULTS)
async def test_what_is_no_whole_answer_gives_no_data_and_the_next_one_makes_up_for_it(
    reply: Reply, words: str
) -> None:
    async with asking() as it:
        it.pod("v2", 100, at=NOON - 1)
        it.pod("v2", 101, at=NOON + 4)
        await it.tick()
        it.server.script = lambda question: reply if question.is_range else None
        it.pod("v2", 110, 4, at=NOON + 9)
        with pytest.raises(SourceError, match=words):
            await it.tick()
        it.server.script = lambda question: None
        # A query that was called wrong is left alone for a while; so is a server that fails again and again.
        fetched = await it.tick(13)
        assert numbers(only(fetched, "error_rate", Arm.CANARY)) == (4.0, 13.0)


async def test_a_chunk_that_fails_stops_no_other() -> None:
    async with asking(latency="") as it:
        for app in ("checkout", "cart"):
            it.pod("v2", 100, at=NOON - 1, app=app)
        it.targets = [TARGET]
        await it.tick()
        # The newcomer is asked for in a chunk of its own.
        it.targets = [TARGET, OTHER]
        it.server.script = lambda question: (
            failure(503, "timeout", "slow") if "cart" in question.query else None
        )
        for app in ("checkout", "cart"):
            it.pod("v2", 109, at=NOON + 9, app=app)
        fetched = await it.tick()
    assert numbers(only(fetched, "error_rate", Arm.CANARY)) == (0.0, 9.0)
    assert fetched.problems == {"r-2": "answered status 503: slow"}


async def test_an_answer_too_large_is_asked_for_in_parts() -> None:
    async with asking(latency="", max_series=6) as it:
        it.targets = [
            target_of(spec(f"r-{number}", service=f"s{number}"), Channel.METRICS) for number in range(8)
        ]
        for at in (NOON - 1, NOON + 4):
            for number in range(8):
                for pod in range(8 if number == 5 else 1):
                    it.pod("v2", at - NOON + 50, at=at, app=f"s{number}", instance=f"{number}-{pod}")
        fetched = await it.tick()
    # All but the one whose series exploded.
    assert {each.rollout_id for each in fetched.samples} == {f"r-{n}" for n in range(8)} - {"r-5"}
    assert {each.exposure for each in fetched.samples} == {5.0}
    assert fetched.problems == {"r-5": "answered 8 series, more than max_series (6)"}


async def test_a_body_without_end_is_not_read_to_its_end() -> None:
    async with asking(max_bytes=2_000) as it:
        for number in range(50):
            it.pod("v2", 1, instance=str(number))
        with pytest.raises(SourceRejected, match=r"answered more than max_bytes \(2000\)"):
            await it.tick()


async def test_too_many_questions_are_answered_by_patience() -> None:
    async with asking() as it:
        it.server.script = lambda question: failure(429, "", "slow down", retry_after="12")
        with pytest.raises(SourceUnavailable, match="too many questions"):
            await it.tick()
        asked = len(it.server.questions)
        for left in (7, 2):
            with pytest.raises(SourceUnavailable, match=f"too many questions; is asked again in {left} s"):
                await it.tick()
        assert len(it.server.questions) == asked
        it.server.script = lambda question: None
        it.pod("v2", 1)
        await it.tick()
        assert len(it.server.questions) > asked


async def test_a_server_in_trouble_is_asked_ever_more_rarely_and_one_question_at_a_time() -> None:
    async with asking(latency="") as it:
        it.targets = [
            target_of(spec(f"r-{number}", service=f"service-{number}"), Channel.METRICS)
            for number in range(1000)
        ]
        it.server.script = lambda question: failure(500, "internal", "broken")
        for _ in range(60):
            with pytest.raises(SourceUnavailable, match="broken"):
                await it.tick()
        # Five minutes of ticks: four questions at first, then single ones, 5, 10, 20, 40, 60 s apart.
        assert 8 <= len(it.server.questions) <= 16
        it.server.script = lambda question: None
        await it.tick(12)
        assert len([each for each in it.server.questions[-4:] if each.is_range]) == 4


async def test_a_wrong_query_costs_its_own_signal_and_is_not_sent_again_at_once() -> None:
    signals = {"custom:x": {"events": 'wrong{zone="a"}', "exposure": 'wrong{zone="b"}'}}

    def script(question: Question) -> Reply | None:
        return failure(400, "bad_data", "no such thing") if "wrong" in question.query else None

    bad = target_of(spec("r-4", gates=(gate("custom:x"),)), Channel.METRICS)
    async with asking(signals=signals) as it:
        it.targets = [TARGET, bad]
        it.server.script = script
        for at in range(-1, 30, 5):
            it.pod("v2", 100 + at, at=NOON + at)
        for _ in range(3):
            fetched = await it.tick()
            assert numbers(only(fetched, "error_rate", Arm.CANARY)) == (0.0, 5.0)
            assert fetched.problems == {"r-4": "answered status 400: no such thing"}
        assert len([each for each in it.server.questions if "wrong" in each.query]) == 2
        await it.tick(13)
        assert len([each for each in it.server.questions if "wrong" in each.query]) == 4


async def test_a_series_that_comes_twice_counts_once_or_not_at_all() -> None:
    twice = (
        '{{"status":"success","data":{{"resultType":"matrix","result":['
        '{{"metric":{{"__name__":"hits","app":"checkout","version":"v2","instance":"a"}},"values":{one}}},'
        '{{"metric":{{"version":"v2","__name__":"hits","app":"checkout","instance":"a"}},"values":{other}}}]}}}}'
    )
    rows = f'[[{NOON - 1},"10"],[{NOON + 4},"15"]]'
    async with asking(latency="") as it:
        it.server.script = lambda question: Reply(twice.format(one=rows, other=rows))
        fetched = await it.tick()
        assert numbers(only(fetched, "error_rate", Arm.CANARY)) == (0.0, 5.0)
    async with asking(latency="") as it:
        it.server.script = lambda question: Reply(twice.format(one=rows, other=rows.replace("15", "19")))
        with pytest.raises(
            SourceRejected, match=r"twice with different samples: name the label .* dedup_labels"
        ):
            await it.tick()


async def test_a_server_that_stops_in_the_middle_of_an_answer_gives_no_data() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with server, asking(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as it:
        with pytest.raises(SourceUnavailable, match="broke off: RemoteProtocolError"):
            await it.tick()
