"""The Envoy adapter on a real Envoy: what requests experience, and what happens when Envoy says no."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actuators import envoy_file
from actuators.base import Fence, Served, ShiftRequest, Split, TrafficAdapter, is_in_force
from actuators.checks import LADDER
from actuators.envoy import EnvoyAdapter
from domain.decision import Order
from domain.errors import ActuationError, Conflict, Outcome, TargetNotFound, Transient, VerifyFailed
from domain.policy import MatchRule
from tests.actuators.lossy import LossyAdapter
from tests.actuators.stack import Stack, running_stack, until_served

pytestmark = pytest.mark.server

RPS = 500.0
OURS = Fence(owner="a", epoch=1)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path) as running:
        yield running


def to(bp: int, *, kind: Order = Order.SHIFT, match: MatchRule | None = None) -> ShiftRequest:
    split = Split(stable="v1", canary="v2", canary_bp=bp)
    return ShiftRequest(op_id=f"{kind}{bp}", kind=kind, split=split, fence=OURS, match=match or MatchRule())


def splits_as_asked(served: Served, bp: int) -> bool:
    share, count = bp / 10_000, served.stable + served.canary
    return abs(served.canary / count - share) <= 3 * math.sqrt(share * (1 - share) / count) + 1 / count


async def in_force(adapter: TrafficAdapter, request: ShiftRequest) -> bool:
    return is_in_force(await adapter.observe(), request, adapter.capabilities())


async def test_the_whole_ladder_fails_no_request_and_splits_as_asked(stack: Stack) -> None:
    async with stack.adapter() as adapter, stack.users(RPS):
        await until_served(adapter, 50)
        for bp in (*LADDER, 0):
            await adapter.apply(to(bp))
            assert await in_force(adapter, to(bp))
            await until_served(adapter, 10)  # those that were on their way when the weights changed
            # Three sigmas are exceeded once in 370 steps by chance; twice in a row says something.
            if not splits_as_asked(await until_served(adapter, 700), bp):
                again = await until_served(adapter, 2_000)
                assert splits_as_asked(again, bp), (bp, again)
    requests = stack.requests()
    assert len(requests) > 4_900
    assert [request for request in requests if request.failed] == []


async def test_an_adapter_that_loses_requests_is_caught_by_the_same_count(stack: Stack) -> None:
    async with stack.adapter() as adapter, stack.users(200.0):
        await until_served(adapter, 50)
        lossy = LossyAdapter(adapter, stack.proxy.routes_path, dead_cluster="demo_dead")
        await lossy.apply(to(500))
        await until_served(adapter, 50)
        assert await in_force(adapter, to(500))
    assert any(request.failed for request in stack.requests())


async def test_a_restarted_envoy_serves_the_split_that_was_in_force(stack: Stack) -> None:
    async with stack.adapter() as adapter:
        await adapter.apply(to(3_500))
        await stack.proxy.stop()
        with pytest.raises(Transient):
            await adapter.observe()
        stack.proxy.start(keep_routes=True)
        await stack.proxy.wait_until_ready()
        assert await in_force(adapter, to(3_500))
        assert await stack.proxy.routes_version() == "1.1"


@pytest.mark.parametrize(
    ("match", "headers"),
    [
        (MatchRule(headers={"x-canary": "always"}), {"x-canary": "always"}),
        (MatchRule(cookies={"beta": "on"}), {"cookie": "a=1; beta=on"}),
    ],
)
async def test_chosen_requests_see_the_canary_at_no_weight_and_not_after_a_restore(
    stack: Stack, match: MatchRule, headers: dict[str, str]
) -> None:
    async with stack.adapter() as adapter:
        await adapter.apply(to(0, match=match))
        assert {await stack.ask(**headers) for _ in range(5)} == {"v2"}
        assert {await stack.ask() for _ in range(5)} == {"v1"}
        await adapter.apply(to(0, kind=Order.RESTORE))
        assert {await stack.ask(**headers) for _ in range(5)} == {"v1"}


async def test_routes_that_envoy_refuses_are_put_back(stack: Stack) -> None:
    """Another team's broken route is in the file, unseen so far; our write would bring it before Envoy."""
    path = stack.proxy.routes_path
    document = json.loads(path.read_text())
    broken = {"match": {"prefix": "/x"}, "route": {"cluster": "nowhere"}}
    document["resources"][0]["virtual_hosts"][0]["routes"].insert(0, broken)
    path.write_text(json.dumps(document))  # written in place: no rename, so Envoy does not look
    before = path.read_bytes()
    async with stack.adapter() as adapter:
        with pytest.raises(VerifyFailed, match=r"refused the routes 1\.1; the former ones") as error:
            await adapter.apply(to(500))
        assert error.value.outcome is Outcome.NOT_APPLIED
        assert not error.value.retryable
    assert path.read_bytes() == before
    assert await stack.ask() == "v1"


async def test_a_file_that_envoy_has_not_taken_up_is_not_in_force(stack: Stack) -> None:
    async with stack.adapter() as adapter:
        await adapter.apply(to(500))
        document = json.loads(stack.proxy.routes_path.read_text())
        document["version_info"] = "1.2"
        stack.proxy.routes_path.write_text(json.dumps(document))
        assert not await in_force(adapter, to(500))
        receipt = await adapter.apply(to(500))
        assert receipt.token_after.startswith("1.3:")
        assert await in_force(adapter, to(500))


async def test_traffic_goes_down_without_the_admin_page(stack: Stack) -> None:
    async with stack.adapter() as adapter:
        await adapter.apply(to(5_000))
    binding = stack.binding
    blind = EnvoyAdapter(
        type(binding)(
            service="demo", stable="v1", canary="v2", target={**binding.target, "admin": "http://127.0.0.1:9"}
        )
    )
    try:
        with pytest.raises(Transient, match="does not answer"):
            await blind.apply(to(1_500))
        await blind.apply(to(0, kind=Order.RESTORE))
    finally:
        await blind.aclose()
    async with stack.adapter() as adapter, asyncio.timeout(10):
        while not await in_force(adapter, to(0, kind=Order.RESTORE)):
            await asyncio.sleep(0.01)


async def test_a_target_that_is_not_there_is_said_so(stack: Stack) -> None:
    async with stack.adapter() as adapter:
        stack.proxy.routes_path.unlink()
        with pytest.raises(TargetNotFound, match=r"there is no file .*routes\.json"):
            await adapter.observe()
        assert "there is no file" in (await adapter.preflight())[0]


async def test_preflight_names_weights_that_the_runtime_overrides(stack: Stack) -> None:
    document = json.loads(stack.proxy.routes_path.read_text())
    route = document["resources"][0]["virtual_hosts"][0]["routes"][0]
    route["route"]["weighted_clusters"]["runtime_key_prefix"] = "routing.shop"
    envoy_file.replace(stack.proxy.routes_path, json.dumps(document).encode())
    async with stack.adapter() as adapter:
        assert any("runtime_key_prefix 'routing.shop'" in problem for problem in await adapter.preflight())


async def test_whoever_holds_the_folders_lock_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envoy_file, "LOCK_WITHIN_S", 0.05)
    with (
        envoy_file.locked(tmp_path),
        pytest.raises(Conflict, match="another controller holds the lock"),
        envoy_file.locked(tmp_path),
    ):
        raise AssertionError("two locks at once")
    with envoy_file.locked(tmp_path):
        pass


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    envoy_file.replace(path, b"old")
    held = os.open(path, os.O_RDONLY)
    try:
        envoy_file.replace(path, b"a much longer new text")
        assert os.read(held, 100) == b"old"
    finally:
        os.close(held)
    assert envoy_file.read(path) == b"a much longer new text"
    assert [each.name for each in tmp_path.iterdir()] == ["routes.json"]


async def test_a_folder_that_may_not_be_written_to_is_an_actuation_error(tmp_path: Path) -> None:
    with pytest.raises(ActuationError):
        envoy_file.replace(tmp_path / "missing" / "routes.json", b"{}")
