"""kill -9 of the proxy itself: its split survives in the file, its counters begin anew."""

from __future__ import annotations

import pytest

from domain.records import TickInput
from domain.rollout import Phase
from domain.signal import Quality
from sentra.embedded.stack import Stack
from tests.integration.loop import CLOCK, Loop, Measured, until

pytestmark = [pytest.mark.server, pytest.mark.slow]

DOWN_S = 2.0


async def test_a_healthy_rollout_is_promoted_although_envoy_is_killed_on_the_way(
    loop: tuple[Loop, Stack], measured: Measured
) -> None:
    made, _ = loop
    rollout = made.start()
    await made.until_in_force(rollout, step=1)

    envoy = made.plane.envoy
    assert envoy.child is not None
    weight = made.routes.versions[-1].canary_bp
    envoy.child.kill()
    killed = CLOCK.now()
    await until(lambda: CLOCK.now() - killed >= DOWN_S, "the proxy has been down for a while")
    envoy.start(keep_routes=True)
    await envoy.wait_until_ready()
    assert made.routes.versions[-1].canary_bp in (weight, 10_000), "the split outlived the proxy"
    assert await envoy.routes_version() == made.routes.versions[-1].version
    measured("Envoy killed -> ready again (2 s on purpose)", CLOCK.now() - killed)

    await made.until_phase(rollout, Phase.PROMOTED)
    await made.assert_replays(rollout)
    made.assert_seq_without_holes(rollout)
    ticks = [each.input for each in made.log.evaluations_after(killed) if isinstance(each.input, TickInput)]
    assert any(tick.problems for tick in ticks), "that nobody answered was said"
    noticed = [s for tick in ticks for s in tick.signals if s.quality & int(Quality.RESET)]
    assert noticed, "that the counters began anew was noticed"
    assert all(
        each.verdict is None or each.verdict.value != "SEVERE" for each in made.log.evaluations(rollout)
    )
