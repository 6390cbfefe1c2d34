"""The demo's scenarios: what happens, when, and how it should end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from domain.errors import ConfigError
from domain.policy import Policy, Strategy
from domain.rollout import Phase
from sentra.embedded.demo.behaviour import HEALTHY, Fault
from sentra.embedded.demo.stage import Stage

FLAKY_RATIO = 0.115
"""Four or five of the forty canary requests of a tick: a tenth or a little more also after rounding down, and
below the severe limit in a window of three ticks."""

Script = Callable[[Stage], Coroutine[None, None, None]]


async def nothing(stage: Stage) -> None:
    """The canary is as good as stable."""


async def errors(stage: Stage) -> None:
    await stage.canary_does(Fault(error_ratio=0.08))


async def latency(stage: Stage) -> None:
    await stage.until_in_force(step=0)
    await stage.canary_does(Fault(latency_p95_ms=900.0))


async def late(stage: Stage) -> None:
    await stage.until_in_force(step=2)
    await stage.canary_does(Fault(error_ratio=0.10))


async def crash(stage: Stage) -> None:
    await stage.until_in_force(step=1)
    await stage.pause(stage.random.uniform(0.2, 4.0))
    stage.kill_canary()


async def silent(stage: Stage) -> None:
    await stage.until_in_force(step=1)
    await stage.pause(stage.random.uniform(0.2, 4.0))
    stage.stop_telemetry()


async def flaky(stage: Stage) -> None:
    """One bad tick, the third of the step: its window is no longer small, and the step not yet done."""
    await stage.until_passes(step=1, passes=1)
    await stage.until_next_tick()
    await stage.canary_does(Fault(error_ratio=FLAKY_RATIO, evenly=True))
    await stage.until_next_tick()
    await stage.canary_does(HEALTHY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One story."""

    name: str
    tells: str
    """What happens, in a few words."""
    expected: tuple[Phase, ...]
    """How it may end. ``PAUSED`` is an end when nothing else is going to happen."""
    within_s: float
    """How long it may take at quick pace."""
    script: Script = field(default=nothing)
    from_the_start: bool = False
    """The script is done before the rollout begins."""
    preview_rps: float = 0.0
    """Traffic that asks for the canary by header, whatever the weight."""
    strategy: Strategy = Strategy.CANARY


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="healthy",
            tells="the canary is as good as stable",
            expected=(Phase.PROMOTED,),
            within_s=60,
        ),
        Scenario(
            name="errors",
            tells="8 % of the canary's answers are 5xx",
            expected=(Phase.ROLLED_BACK,),
            within_s=45,
            script=errors,
            from_the_start=True,
        ),
        Scenario(
            name="latency",
            tells="the canary's p95 goes to 900 ms",
            expected=(Phase.ROLLED_BACK,),
            within_s=60,
            script=latency,
        ),
        Scenario(
            name="late",
            tells="healthy until the third step, then 10 % errors",
            expected=(Phase.ROLLED_BACK,),
            within_s=60,
            script=late,
        ),
        Scenario(
            name="crash",
            tells="the canary process dies in step 2",
            expected=(Phase.ROLLED_BACK,),
            within_s=45,
            script=crash,
        ),
        Scenario(
            name="silent",
            tells="telemetry stops in step 2, traffic goes on",
            expected=(Phase.PAUSED,),
            within_s=60,
            script=silent,
        ),
        Scenario(
            name="flaky",
            tells="about 11 % of the canary's answers in one tick of step 2 are 5xx",
            expected=(Phase.PROMOTED,),
            within_s=75,
            script=flaky,
        ),
        Scenario(
            name="blue-green",
            tells="a preview judged at 0 %, the switch, the bake",
            expected=(Phase.PROMOTED,),
            within_s=60,
            preview_rps=40.0,
            strategy=Strategy.BLUE_GREEN,
        ),
    )
}


def scenario_named(name: str) -> Scenario:
    """The scenario of that name; :class:`ConfigError` with the known ones otherwise."""
    if name not in SCENARIOS:
        raise ConfigError(f"there is no scenario {name!r}; known are {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


def suits(scenario: Scenario, policy: Policy) -> str:
    """Why a policy cannot play a scenario, or empty text."""
    needed = {"late": 3, "crash": 2, "silent": 2, "flaky": 2}.get(scenario.name, 1)
    if len(policy.weights_bp) < needed:
        return f"{scenario.name} plays in step {needed}, the policy has {len(policy.weights_bp)} steps"
    return ""
