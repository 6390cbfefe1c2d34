"""What is counted of OTLP, tick by tick: everything once, and what is strange is flagged."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.clock import ManualClock
from domain.signal import Arm, Channel, Quality, Sample
from streams.pollers.base import Fetched, target_of
from streams.pollers.otlp import read_tick
from streams.pollers.otlp_config import OtlpMapping
from streams.pollers.otlp_count import Taken
from streams.pollers.otlp_intake import Intake
from tests.streams.pollers.otlp_requests import (
    CUMULATIVE,
    DELTA,
    JSON,
    NAME,
    PROTOBUF,
    RESOURCE,
    json_of,
    logs,
    metrics,
    nanos,
    pairs,
    point,
    spans,
)
from tests.streams.pollers.rollouts import GATES, gate, spec

NOON = 1_700_000_000.0
TICK = 1.0
GATES_OF = {
    Channel.METRICS: GATES,
    Channel.LOGS: (gate("log_error_ratio"),),
    Channel.TRACES: (gate("trace_error_ratio"),),
}


class Scene:
    """An intake with one source; its clock stands ``at`` seconds after noon, when it began to listen."""

    def __init__(self, channel: Channel = Channel.METRICS, born: float = 0.0, **options: Any) -> None:
        given = {"kind": "otlp", "carries": channel.value, **options}
        self.mapping = OtlpMapping.read("otlp", given)
        self.clock = ManualClock(NOON + born)
        self.intake = Intake(self.mapping, self.clock.now())
        self.channel = channel
        self.target = target_of(spec(gates=GATES_OF[channel], logs="otlp"), channel)
        self.end = NOON + born
        self.fetch()

    def send(self, request: Any, *, at: float | None = None, media: str = PROTOBUF) -> Taken:
        if at is not None:
            self.clock.advance(NOON + at - self.clock.now())
        body = json_of(request) if media == JSON else request.SerializeToString()
        return self.intake.take(self.channel, body, media, self.clock.now())

    def fetch(self) -> Fetched:
        now = self.clock.now()
        return read_tick("otlp", self.mapping, self.intake, [self.target], self.end, TICK, now)

    def tick(self, ticks: int = 1) -> list[Sample]:
        """The samples of the next tick."""
        self.end += TICK * ticks
        self.clock.advance(max(0.0, self.end - self.clock.now()))
        fetched = self.fetch()
        self.problems = fetched.problems
        return list(fetched.samples)

    def ratio(self, ticks: int = 1) -> tuple[float, float, Quality]:
        """Failures, requests and quality of the canary in the next tick, over all replicas."""
        rows = [each for each in self.tick(ticks) if each.arm is Arm.CANARY and not each.edges]
        quality = Quality.WHOLE
        for each in rows:
            quality |= Quality(each.quality)
        return sum(each.events for each in rows), sum(each.exposure for each in rows), quality


def moment(after: float) -> float:
    return NOON + after


def delta(start: float, time: float, *counts: int, **given: Any) -> Any:
    return metrics(point(moment(start), moment(time), counts, **given), temporality=DELTA)


def cumulative(start: float, time: float, *counts: int, **given: Any) -> Any:
    return metrics(point(moment(start), moment(time), counts, **given), temporality=CUMULATIVE)


WHOLE, FIRST, RESET, PARTIAL, SPANS = (
    Quality.WHOLE,
    Quality.FIRST,
    Quality.RESET,
    Quality.PARTIAL,
    Quality.SPANS,
)


@pytest.mark.parametrize("media", [PROTOBUF, JSON])
def test_requests_and_latencies_come_of_one_histogram(media: str) -> None:
    scene = Scene(histogram="full")
    good, bad = (
        point(moment(0), moment(0.5), (70, 20, 3, 2)),
        point(moment(0), moment(0.5), (0, 0, 5, 0), code=503),
    )
    assert scene.send(metrics(good, bad), at=0.6, media=media).remark == ""
    rows = {each.signal: each for each in scene.tick() if each.arm is Arm.CANARY}
    assert (rows["error_rate"].events, rows["error_rate"].exposure) == (5.0, 100.0)
    latency = rows["latency_ms"]
    assert (latency.edges, latency.counts, latency.exposure) == ((100.0, 250.0, 500.0), (70, 90, 98), 100)
    assert (latency.start, latency.end, latency.quality) == (NOON, NOON + 1, 0)
    assert latency.age_s == pytest.approx(0.5)


@pytest.mark.parametrize(
    "name, unit, attributes, failed",
    [
        (NAME, "s", {"http.response.status_code": 500}, True),
        (NAME, "s", {"http.response.status_code": "599"}, True),
        (NAME, "s", {"http.response.status_code": 404, "error.type": "404"}, False),
        (NAME, "s", {"error.type": "timeout"}, True),
        (NAME, "s", {}, False),
        ("http.server.duration", "ms", {"http.status_code": 502}, True),
        ("rpc.server.duration", "ms", {"rpc.grpc.status_code": 14}, True),
        ("rpc.server.duration", "ms", {"rpc.grpc.status_code": 5}, False),
        ("rpc.server.call.duration", "s", {"rpc.response.status_code": "UNAVAILABLE"}, True),
        ("rpc.server.call.duration", "s", {"rpc.response.status_code": "NOT_FOUND"}, False),
    ],
)
def test_conventions_say_what_failed(name: str, unit: str, attributes: dict[str, Any], failed: bool) -> None:
    scene = Scene(histogram="full")
    one = {**point(moment(0), moment(0.5), (1, 0, 0, 0)), "attributes": pairs(attributes)}
    scene.send(metrics(one, name=name, unit=unit), at=0.6)
    rows = {each.signal: each for each in scene.tick() if each.arm is Arm.CANARY}
    assert (rows["error_rate"].events, rows["error_rate"].exposure) == (float(failed), 1.0)
    assert rows["latency_ms"].edges == ((100.0, 250.0, 500.0) if unit == "s" else (0.1, 0.25, 0.5))


def test_two_conventions_at_once_count_each_request_once() -> None:
    scene = Scene()
    both = metrics(point(moment(0), moment(0.5), (9, 0, 0, 0)), name="http.server.duration", unit="ms")
    both.MergeFrom(metrics(point(moment(0), moment(0.5), (9, 0, 0, 0))))
    scene.send(both, at=0.6)
    assert scene.ratio() == (0.0, 9.0, WHOLE)


def test_a_metric_of_ones_own_says_what_failed() -> None:
    own = {"requests": "shop.duration", "error_attribute": "outcome", "error_values": "failed|lost"}
    scene = Scene(**own)
    scene.send(
        metrics(point(moment(0), moment(0.5), (4, 0, 0, 0), outcome="lost"), name="shop.duration"), at=0.6
    )
    scene.send(delta(0, 0.5, 7, 0, 0, 0))
    assert scene.ratio() == (4.0, 4.0, WHOLE)


def test_what_arrives_up_to_the_end_is_in_the_tick_and_nothing_is_in_two() -> None:
    scene = Scene()
    scene.send(delta(0, 0.9, 10, 0, 0, 0), at=0.999)
    scene.send(delta(0.9, 1.0, 5, 0, 0, 0), at=1.0)
    assert scene.ratio() == (0.0, 10.0, WHOLE)
    assert scene.ratio() == (0.0, 5.0, WHOLE)
    assert scene.ratio()[1] == 0.0


def test_a_delta_sent_again_counts_once_and_the_sender_is_told() -> None:
    scene = Scene()
    scene.send(delta(0, 0.4, 10, 0, 0, 0), at=0.5)
    assert "sent again" in scene.send(delta(0, 0.4, 10, 0, 0, 0)).remark
    other_batch = delta(0, 0.4, 10, 0, 0, 0)
    other_batch.MergeFrom(delta(0, 0.4, 3, 0, 0, 0, code=500))
    told = scene.send(other_batch)
    assert (told.rejected, "counts once" in told.remark) == (0, True)
    assert scene.ratio() == (3.0, 13.0, WHOLE)


def test_deltas_out_of_order_are_all_counted() -> None:
    scene = Scene()
    scene.send(delta(0.2, 0.4, 10, 0, 0, 0), at=0.5)
    scene.send(delta(0, 0.2, 5, 0, 0, 0))
    scene.send(delta(0, 0.2, 5, 0, 0, 0, code=500), at=0.6)
    assert scene.ratio() == (5.0, 20.0, WHOLE)


def test_a_delta_from_long_before_its_tick_says_so() -> None:
    scene = Scene()
    scene.send(delta(0, 0.9, 1, 0, 0, 0), at=0.95)
    scene.tick(1)
    scene.send(delta(0.9, 9.9, 50, 0, 0, 0), at=9.95)
    scene.tick(8)
    [ratio, *_] = [each for each in scene.tick() if each.arm is Arm.CANARY]
    assert (ratio.start, ratio.end, ratio.exposure) == (NOON, NOON + 10, 50.0)
    assert ratio.quality == SPANS


def test_a_cumulative_series_counts_what_its_last_point_did_not_hold() -> None:
    scene = Scene(born=10.0)
    scene.send(cumulative(-99, 10.4, 500, 0, 0, 0), at=10.5)
    assert scene.ratio() == (0.0, 0.0, FIRST)
    scene.send(cumulative(-99, 11.4, 520, 5, 0, 0), at=11.5)
    assert scene.ratio() == (0.0, 25.0, WHOLE)


def test_a_first_failure_of_a_known_process_counts_whole() -> None:
    scene = Scene(born=10.0)
    scene.send(cumulative(-99, 10.4, 500, 0, 0, 0), at=10.5)
    scene.ratio()
    both = cumulative(-99, 11.4, 500, 0, 0, 0)
    both.MergeFrom(cumulative(-99, 11.4, 37, 0, 0, 0, code=500))
    scene.send(both, at=11.5)
    assert scene.ratio() == (37.0, 37.0, WHOLE)


def test_a_first_collection_in_two_requests_is_still_the_first() -> None:
    scene = Scene(born=10.0)
    scene.send(cumulative(-99, 10.4, 500, 0, 0, 0), at=10.5)
    scene.send(cumulative(-99, 10.4, 300, 0, 0, 0, code=500), at=10.6)
    assert scene.ratio() == (0.0, 0.0, FIRST)
    scene.send(cumulative(-99, 11.4, 301, 0, 0, 0, code=500), at=11.5)
    assert scene.ratio() == (1.0, 1.0, WHOLE)


def test_a_process_that_began_after_we_did_counts_from_its_beginning() -> None:
    scene = Scene()
    scene.send(cumulative(0.1, 0.8, 12, 0, 0, 0), at=0.9)
    assert scene.ratio() == (0.0, 12.0, WHOLE)


def test_a_restart_is_told_by_its_start_and_flagged() -> None:
    scene = Scene()
    scene.send(cumulative(0.1, 0.8, 12, 0, 0, 0), at=0.9)
    scene.ratio()
    # More than before: the value alone would not tell that it began anew.
    scene.send(cumulative(1.2, 1.8, 20, 0, 0, 0), at=1.9)
    assert scene.ratio() == (0.0, 20.0, RESET)


def test_a_count_that_falls_without_a_new_start_is_a_reset_too() -> None:
    scene = Scene()
    scene.send(cumulative(0.1, 0.8, 12, 0, 0, 0), at=0.9)
    scene.ratio()
    scene.send(cumulative(0.1, 1.8, 4, 0, 0, 0), at=1.9)
    assert scene.ratio() == (0.0, 4.0, RESET)


def test_a_point_without_a_known_start_is_a_first_reading() -> None:
    scene = Scene()
    scene.send(cumulative(0.8, 0.8, 900, 0, 0, 0), at=0.9)
    assert scene.ratio() == (0.0, 0.0, FIRST)
    scene.send(cumulative(0.8, 1.8, 905, 0, 0, 0), at=1.9)
    assert scene.ratio() == (0.0, 5.0, WHOLE)


def test_cumulative_points_out_of_order_count_once() -> None:
    scene = Scene()
    scene.send(cumulative(0.1, 0.2, 5, 0, 0, 0), at=0.3)
    scene.send(cumulative(0.1, 0.6, 12, 0, 0, 0), at=0.7)
    late = scene.send(cumulative(0.1, 0.4, 9, 0, 0, 0), at=0.8)
    assert "successor" in late.remark
    assert scene.ratio() == (0.0, 12.0, WHOLE)


def test_instances_without_names_do_not_undo_each_other() -> None:
    scene = Scene()
    for one, other, at in ((5, 100, 0.3), (8, 110, 0.6), (9, 130, 0.9)):
        scene.send(cumulative(0.1, at, one, 0, 0, 0), at=at)
        scene.send(cumulative(0.2, at, other, 0, 0, 0), at=at)
    assert scene.ratio()[:2] == (0.0, 139.0)


def test_an_older_instance_of_the_same_name_is_a_first_reading() -> None:
    scene = Scene(born=10.0)
    scene.send(cumulative(-50, 10.2, 500, 0, 0, 0), at=10.3)
    scene.send(cumulative(-90, 10.4, 900, 0, 0, 0), at=10.5)
    assert scene.ratio() == (0.0, 0.0, FIRST)
    scene.send(cumulative(-50, 11.2, 501, 0, 0, 0), at=11.3)
    scene.send(cumulative(-90, 11.4, 902, 0, 0, 0), at=11.5)
    assert scene.ratio() == (0.0, 3.0, WHOLE)


@given(st.randoms(use_true_random=False), st.sampled_from([DELTA, CUMULATIVE]))
@settings(deadline=None, max_examples=60)
def test_whatever_order_exports_arrive_in_each_event_is_counted_once(
    rng: random.Random, temporality: int
) -> None:
    """Several series and restarts; exports split, repeated, and (deltas) shuffled."""
    scene = Scene()
    requests, expected = [], [0, 0]
    start = 0.01
    for _life in range(rng.randint(1, 3)):
        totals = {200: 0, 500: 0}
        since = start
        for _export in range(rng.randint(1, 5)):
            time = since + 0.05
            fresh = {code: rng.randint(0, 9) for code in totals}
            expected[0] += fresh[500]
            expected[1] += fresh[200] + fresh[500]
            for code in totals:
                totals[code] += fresh[code]
                counts = (fresh if temporality == DELTA else totals)[code]
                began = since if temporality == DELTA else start
                one = point(moment(began), moment(time), (counts, 0, 0, 0), code=code)
                requests.append(metrics(one, temporality=temporality))
            since = time
        start = since + 0.01
    again = [each for each in requests if rng.random() < 0.3]
    if temporality == DELTA:
        requests += again
        rng.shuffle(requests)
    else:
        requests = [each for one in requests for each in [one] * rng.randint(1, 2)]
    for each in requests:
        scene.send(each, at=0.95 if rng.random() < 0.5 else scene.clock.now() - NOON)
    events, exposure, _ = scene.ratio(2)
    assert [events, exposure] == expected


def test_log_records_are_bad_from_severity_error_on() -> None:
    scene = Scene(Channel.LOGS)
    scene.send(logs(*((moment(0.1), severity) for severity in (1, 9, 16, 17, 21, 24))), at=0.5)
    scene.send(logs((moment(0.2), 0), (moment(0.2), 0), text="Error"))
    scene.send(logs((0.0, 17)))  # without a time
    assert scene.ratio() == (6.0, 9.0, WHOLE)


def test_spans_count_of_servers_and_consumers_only() -> None:
    scene = Scene(Channel.TRACES)
    given = [(moment(0.1), kind, code) for kind in range(6) for code in (0, 1, 2)]
    scene.send(spans(*given), at=0.5)
    assert scene.ratio() == (2.0, 6.0, WHOLE)


def test_an_idle_version_that_is_there_counted_nothing_and_says_how_old_that_is() -> None:
    scene = Scene()
    scene.send(delta(0, 0.5, 4, 0, 0, 0), at=0.6)
    scene.tick()
    runtime = metrics({"time_unix_nano": nanos(moment(3.7))}, name="process.threads", kind="gauge")
    scene.send(runtime, at=3.8)
    scene.tick(2)
    [row] = [each for each in scene.tick() if each.signal == "error_rate"]
    assert (row.arm, row.exposure, row.quality) == (Arm.CANARY, 0.0, 0)
    assert row.age_s == pytest.approx(0.3)


def test_a_version_that_falls_silent_grows_old_and_is_then_missing() -> None:
    scene = Scene()
    scene.send(delta(0, 0.5, 4, 0, 0, 0), at=0.6)
    scene.tick()
    ages = [[each.age_s for each in scene.tick(10) if each.signal == "error_rate"] for _ in range(8)]
    assert ages[0] == [pytest.approx(10.5)]
    assert ages[-1] == []
    assert scene.problems["r-1"].startswith(
        "nothing came of service.name='checkout' with service.version='v1'"
    )


def _at(instance: str) -> dict[str, Any]:
    return {**RESOURCE, "service.instance.id": instance}


def _delta_of(instance: str, start: float, time: float, count: int) -> Any:
    return metrics(point(moment(start), moment(time), (count, 0, 0, 0)), resource=_at(instance))


def _by_replica(rows: Sequence[Sample]) -> dict[str, tuple[float, int]]:
    return {each.replica: (each.exposure, each.quality) for each in rows if each.signal == "error_rate"}


def test_instances_are_replicas_and_one_that_is_silent_leaves_the_arm_partial_until_it_is_gone() -> None:
    scene = Scene()
    scene.send(_delta_of("a", 0, 0.5, 4), at=0.6)
    scene.send(_delta_of("b", 0, 0.5, 6), at=0.7)
    assert _by_replica(scene.tick()) == {"a": (4.0, 0), "b": (6.0, 0)}
    scene.send(_delta_of("a", 0.5, 1.5, 3), at=1.6)
    assert _by_replica(scene.tick()) == {"a": (3.0, 0), "b": (0.0, 0)}
    found = {}
    for end in range(3, 75):
        scene.send(_delta_of("a", end - 1.5, end - 0.5, 1), at=end - 0.4)
        found[end] = _by_replica(scene.tick())
    assert found[10] == {"a": (1.0, int(PARTIAL))}
    assert found[74] == {"a": (1.0, 0)}


def test_without_replicas_instances_are_added_up() -> None:
    scene = Scene(replicas=False)
    scene.send(_delta_of("a", 0, 0.5, 4), at=0.6)
    scene.send(_delta_of("b", 0, 0.5, 6), at=0.7)
    assert _by_replica(scene.tick()) == {"": (10.0, 0)}


def test_a_wrong_environment_is_not_the_rollouts() -> None:
    scene = Scene()
    elsewhere = {**RESOURCE, "deployment.environment.name": "staging"}
    scene.send(metrics(point(moment(0), moment(0.5), (4, 0, 0, 0)), resource=elsewhere), at=0.6)
    assert scene.tick() == []
    assert "v2 (staging)" in scene.problems["r-1"]
    at_home = {**RESOURCE, "deployment.environment": "prod"}
    scene.send(metrics(point(moment(1), moment(1.5), (4, 0, 0, 0)), resource=at_home), at=1.6)
    assert scene.ratio() == (0.0, 4.0, WHOLE)


def test_an_unknown_service_is_nobodys_and_harms_nobody() -> None:
    scene = Scene()
    assert (
        scene.send(
            metrics(point(moment(0), moment(0.5), (4, 0, 0, 0)), resource={"service.name": "x"}), at=0.6
        ).rejected
        == 1
    )
    other = {"service.name": "cart", "service.version": "v2"}
    assert scene.send(metrics(point(moment(0), moment(0.5), (4, 0, 0, 0)), resource=other)).rejected == 0
    assert scene.tick() == []
    assert scene.problems["r-1"].endswith("services heard were cart")


def test_too_many_series_are_refused_and_flagged_and_other_services_go_on() -> None:
    scene = Scene(max_series=10)
    exploding = [point(moment(0), moment(0.5), (1, 0, 0, 0), path=str(number)) for number in range(25)]
    taken = scene.send(metrics(*exploding), at=0.6)
    assert (taken.rejected, taken.remark) == (15, "checkout sends more than 10 series of requests")
    assert scene.ratio() == (0.0, 10.0, PARTIAL)
    other = {"service.name": "cart", "service.version": "v2"}
    assert (
        scene.send(metrics(point(moment(1), moment(1.5), (1, 0, 0, 0)), resource=other), at=1.6).rejected == 0
    )


def test_a_clock_that_is_ahead_is_flagged_and_cannot_make_old_data_young() -> None:
    scene = Scene()
    scene.send(delta(60, 61, 4, 0, 0, 0), at=0.6)
    assert scene.ratio() == (0.0, 4.0, Quality.INEXACT)
    [row] = [each for each in scene.tick(30) if each.signal == "error_rate"]
    assert row.age_s == pytest.approx(30.4)


def test_a_clock_that_is_an_hour_behind_is_refused_and_the_arm_is_partial() -> None:
    scene = Scene()
    scene.send(delta(0, 0.4, 4, 0, 0, 0), at=0.5)
    taken = scene.send(delta(-3601, -3600, 9, 0, 0, 0), at=0.6)
    assert (taken.rejected, taken.remark.startswith("what is older than 600 s")) == (1, True)
    assert scene.ratio() == (0.0, 4.0, PARTIAL)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"count": 5}, "has a count of 5, its buckets add up to 4"),
        ({"bucket_counts": [4]}, "has 1 bucket_counts for 3 explicit_bounds"),
        ({"explicit_bounds": [0.5, 0.25, 0.1]}, "do not ascend"),
        ({"time_unix_nano": 0}, "has no time_unix_nano"),
        ({"start_time_unix_nano": nanos(NOON + 9)}, "begins after it ends"),
    ],
)
def test_an_impossible_point_is_refused_alone_and_in_words(change: dict[str, Any], words: str) -> None:
    scene = Scene()
    broken = {**point(moment(0), moment(0.5), (4, 0, 0, 0)), **change}
    taken = scene.send(metrics(broken, point(moment(0), moment(0.5), (7, 0, 0, 0))), at=0.6)
    assert (taken.rejected, words in taken.remark) == (1, True)
    assert scene.ratio()[1] == 7.0


def test_a_metric_of_another_kind_or_unit_is_refused_in_words() -> None:
    scene = Scene()
    one = point(moment(0), moment(0.5), (1, 0, 0, 0))
    number = {"time_unix_nano": nanos(moment(0.5))}
    assert "must be a histogram, not a sum" in scene.send(metrics(number, kind="sum"), at=0.6).remark
    assert "has the unit 'furlong'" in scene.send(metrics(one, unit="furlong")).remark
    assert "neither delta nor cumulative" in scene.send(metrics(one, temporality=0)).remark
    assert scene.tick() == []


def test_latencies_without_buckets_are_missing_not_fast() -> None:
    scene = Scene()
    bare = {**point(moment(0), moment(0.5), ()), "count": 9, "explicit_bounds": []}
    scene.send(metrics(bare), at=0.6)
    rows = [each for each in scene.tick() if each.arm is Arm.CANARY]
    assert [(each.signal, each.exposure) for each in rows] == [("error_rate", 9.0)]


def test_lost_records_leave_every_arm_of_the_tick_partial() -> None:
    scene = Scene()
    scene.send(delta(0, 0.5, 4, 0, 0, 0), at=0.6)
    scene.intake.lose(Channel.METRICS)
    assert scene.ratio() == (0.0, 4.0, PARTIAL)
    assert scene.ratio()[2] == WHOLE
