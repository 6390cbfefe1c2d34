"""The demo's scenarios: what happens, when, and how it should end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from domain.errors import ConfigError
from domain.policy import JudgeName, Policy, Strategy
from domain.rollout import Phase
from sentra.embedded.demo.behaviour import HEALTHY, Fault
from sentra.embedded.demo.policies import PLANS, Pace
from sentra.embedded.demo.stage import Stage

FLAKY_RATIO = 0.115
"""Of a tick with forty canary requests four or five: a tenth or a little more also after rounding down, and
below the severe limit in a window of three ticks."""

USUAL_ERRORS = Fault(error_ratio=0.005, unlogged_ratio=0.7)
"""A service at half its error limit. Were every failure logged, its log errors would be *at* their limit."""
SUBTLE_ERRORS = Fault(error_ratio=0.02, unlogged_ratio=0.7)
NOISE = Fault(error_ratio=0.001, burst=2, slow_ratio=0.01)
"""A tenth of the error limit, in pairs, and a fifth of the latency limit."""
SHARED_ERRORS = Fault(error_ratio=0.03)
PREVIEW_RPS = 100.0
"""A proof of 0.5 % takes over a thousand requests: at 40 a second half a minute, at 100 twelve seconds."""
SUBTLE_RPS = 800.0
"""At 400 a second one in ten takes two and a half minutes to be found, at 800 a minute and a half."""

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


async def shared(stage: Stage) -> None:
    await stage.until_in_force(step=1)
    await stage.both_do(SHARED_ERRORS)


async def subtle(stage: Stage) -> None:
    await stage.both_usually(USUAL_ERRORS)
    await stage.canary_does(SUBTLE_ERRORS)


async def aa(stage: Stage) -> None:
    """The same noise in both, as it always was: no fault begins."""
    await stage.both_usually(NOISE)


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
    rps: float | None = None
    """Requests per second where the story needs other than the judge's usual number."""
    strategy: Strategy = Strategy.CANARY
    by_threshold: tuple[Phase, ...] = ()
    """How else it may end under the threshold judge, which calls a breach severe without a look at stable."""

    def expects(self, judge: JudgeName) -> tuple[Phase, ...]:
        """How it may end under ``judge``."""
        return self.expected + (self.by_threshold if judge is JudgeName.THRESHOLD else ())

    def usual_rps(self, judge: JudgeName, pace: Pace) -> float:
        """Requests per second where the user asks for no other number."""
        return self.rps or PLANS[pace, judge].rps


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
            preview_rps=PREVIEW_RPS,
            strategy=Strategy.BLUE_GREEN,
        ),
        Scenario(
            name="shared",
            tells="from step 2 on 3 % of both versions' answers are 5xx",
            expected=(Phase.PAUSED,),
            within_s=60,
            script=shared,
            by_threshold=(Phase.ROLLED_BACK,),
        ),
        Scenario(
            name="subtle",
            tells="2 % of the canary's answers are 5xx, 0.5 % of stable's as always",
            expected=(Phase.ROLLED_BACK,),
            within_s=150,
            script=subtle,
            from_the_start=True,
            rps=SUBTLE_RPS,
        ),
        Scenario(
            name="aa",
            tells="two equal versions: a few errors in bursts, a few slow answers",
            expected=(Phase.PROMOTED,),
            within_s=90,
            script=aa,
            from_the_start=True,
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
    needed = {"late": 3, "crash": 2, "silent": 2, "flaky": 2, "shared": 2}.get(scenario.name, 1)
    if len(policy.weights_bp) < needed:
        return f"{scenario.name} plays in step {needed}, the policy has {len(policy.weights_bp)} steps"
    return ""
