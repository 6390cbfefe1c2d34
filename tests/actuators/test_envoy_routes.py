"""The routes document: what is read out of it and what is left alone when it is written."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from actuators.base import Fence
from actuators.envoy_routes import Change, Names, Routes, next_version, parse, rewrite, says, strangers
from domain.errors import TargetNotFound
from domain.policy import MatchRule

NAMES = Names(configuration="sentra", stable="shop_v1", canary="shop_v2")
OURS = Fence(owner="a", epoch=3)


def document(**route: Any) -> dict[str, Any]:
    """Routes as another team may keep them."""
    split = {"match": {"prefix": "/"}, "route": route or {"cluster": "shop_v1", "timeout": "3s"}}
    health = {"match": {"path": "/healthz"}, "direct_response": {"status": 204}}
    configuration = {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "sentra",
        "virtual_hosts": [{"name": "shop", "domains": ["*"], "routes": [health, split]}],
    }
    return {"version_info": "0.0", "resources": [configuration]}


def parsed(raw: dict[str, Any], names: Names = NAMES) -> Routes:
    return parse(json.dumps(raw).encode(), names)


def change(bp: int, match: MatchRule | None = None, *, dropped: str = "") -> Change:
    weights = {"shop_v1": 10_000 - bp, "shop_v2": bp}
    return Change(
        weights={name: weight for name, weight in weights.items() if name != dropped},
        dropped=frozenset({dropped} if dropped else ()),
        match=match or MatchRule(),
        fence=OURS,
        op_id="op",
    )


def rewritten(raw: dict[str, Any], what: Change) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(rewrite(parsed(raw), NAMES, what))
    return result


def routes_of(raw: dict[str, Any]) -> list[dict[str, Any]]:
    routes: list[dict[str, Any]] = raw["resources"][0]["virtual_hosts"][0]["routes"]
    return routes


def weighted(*entries: tuple[str, int], **more: Any) -> dict[str, Any]:
    clusters = [{"name": name, "weight": weight} for name, weight in entries]
    return {"weighted_clusters": {"clusters": clusters, **more}}


def test_a_route_to_one_cluster_becomes_a_split_that_keeps_its_options() -> None:
    route = routes_of(rewritten(document(), change(500)))[1]["route"]
    assert route["timeout"] == "3s"
    assert "cluster" not in route
    assert route["weighted_clusters"]["clusters"] == [
        {"name": "shop_v1", "weight": 9_500},
        {"name": "shop_v2", "weight": 500},
    ]


def test_weights_of_any_sum_are_read_as_basis_points() -> None:
    routes = parsed(document(**weighted(("shop_v1", 3), ("shop_v2", 1))))
    assert routes.canary_bp(NAMES) == 2_500


def test_entries_and_totals_keep_what_else_they_carry() -> None:
    raw = document(**weighted(("shop_v1", 100), ("shop_v2", 0), total_weight=100))
    extra = {"request_headers_to_add": [{"header": {"key": "x-arm", "value": "é"}}]}
    routes_of(raw)[1]["route"]["weighted_clusters"]["clusters"][0] |= extra
    split = routes_of(rewritten(raw, change(1)))[1]["route"]["weighted_clusters"]
    assert split["total_weight"] == 10_000
    assert split["clusters"][0] == {"name": "shop_v1", "weight": 9_999, **extra}


def test_what_is_not_ours_survives_every_write_in_its_order() -> None:
    raw = document(**weighted(("shop_v1", 1)))
    raw["resources"][0]["metadata"] = {"filter_metadata": {"shop": {"cost": 1.25}}}
    raw["later"] = {"b": 1, "a": [None, True, 0.1, 12345678901234567890]}
    before = json.dumps(strangers(raw))
    for what in (change(500, MatchRule(headers={"x": "y"})), change(0), change(10_000, dropped="shop_v1")):
        raw = rewritten(raw, what)
        assert json.dumps(strangers(raw)) == before


def test_a_third_cluster_with_traffic_is_somebody_elses_doing() -> None:
    routes = parsed(document(**weighted(("shop_v1", 8), ("shop_v2", 1), ("other", 1))))
    assert routes.canary_bp(NAMES) is None
    assert "another cluster has traffic" in routes.foreign(NAMES)


def test_an_edit_of_weights_we_wrote_is_noticed_even_if_the_version_stayed() -> None:
    raw = rewritten(document(), change(500))
    before = parsed(raw)
    assert before.foreign(NAMES) == ""
    routes_of(raw)[1]["route"]["weighted_clusters"]["clusters"][1]["weight"] = 5_000
    after = parsed(raw)
    assert "changed" in after.foreign(NAMES)
    assert after.version == before.version
    assert after.token != before.token


def test_the_same_change_again_says_nothing_new() -> None:
    raw = rewritten(document(), change(500, MatchRule(cookies={"c": "1"})))
    assert says(parsed(raw), NAMES, change(500, MatchRule(cookies={"c": "1"})))
    assert not says(parsed(raw), NAMES, change(500, MatchRule(cookies={"c": "2"})))
    assert not says(parsed(raw), NAMES, change(501, MatchRule(cookies={"c": "1"})))
    assert not says(parsed(document()), NAMES, change(0))


def test_the_preview_route_comes_before_the_split_and_not_before_the_others() -> None:
    match = MatchRule(headers={"x-canary": "always"}, path="/beta")
    routes = routes_of(rewritten(document(), change(0, match)))
    assert [route.get("name") for route in routes] == [None, "sentra-match", None]
    preview = routes[1]
    assert preview["match"]["prefix"] == "/beta"
    assert preview["match"]["headers"] == [{"name": "x-canary", "string_match": {"exact": "always"}}]
    assert preview["route"] == {"cluster": "shop_v2", "timeout": "3s"}


@pytest.mark.parametrize(
    ("cookie", "is_taken"),
    [
        ("beta=on", True),
        ("a=1; beta=on", True),
        ("a=1;beta=on; b=2", True),
        ("xbeta=on", False),
        ("beta=only", False),
        ("a=beta=on", False),
        ("beta=off; other=on", False),
    ],
)
def test_a_cookie_is_matched_whole(cookie: str, is_taken: bool) -> None:
    raw = rewritten(document(), change(0, MatchRule(cookies={"beta": "on"})))
    condition = routes_of(raw)[1]["match"]["headers"][0]
    pattern = condition["string_match"]["safe_regex"]["regex"]
    assert bool(re.fullmatch(pattern, cookie)) is is_taken


def test_two_routes_to_the_same_clusters_have_to_be_told_apart() -> None:
    raw = document(**weighted(("shop_v1", 1)))
    routes_of(raw).append({"name": "api", "match": {"prefix": "/api"}, "route": weighted(("shop_v1", 1))})
    with pytest.raises(TargetNotFound, match="weighted_route"):
        parsed(raw)
    names = Names(configuration="sentra", stable="shop_v1", canary="shop_v2", weighted_route="api")
    assert parsed(raw, names).weights == {"shop_v1": 10_000}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"resources": []}',
        b'{"resources": [{"name": "other"}]}',
        b'{"resources": 3}',
        b"\xff",
    ],
)
def test_a_file_that_is_something_else_is_refused_in_a_sentence(text: bytes) -> None:
    with pytest.raises(TargetNotFound, match="routes file"):
        parse(text, NAMES)


@pytest.mark.parametrize(
    ("held", "epoch", "following"),
    [("0.0", 1, "1.1"), ("1.9", 1, "1.10"), ("1.9", 4, "4.1"), ("blue", 2, "2.1")],
)
def test_versions_count_up_within_an_epoch(held: str, epoch: int, following: str) -> None:
    assert next_version(held, epoch) == following


def test_a_version_of_ours_fences_even_where_our_note_was_lost() -> None:
    raw = rewritten(document(), change(500))
    del raw["resources"][0]["metadata"]
    assert parsed(raw).fence == Fence(owner="", epoch=3)
