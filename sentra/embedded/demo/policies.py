"""The demo's policies, as files a user could have written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from msgspec.structs import replace

from domain.policy import JudgeName, Policy, Strategy, check
from domain.policy_text import parse_policy
from sentra.cli.policy import read_policy

SERVICE = "demo"
ENVIRONMENT = "local"
METRICS, LOGS = "envoy", "service-logs"
"""Names of the demo's telemetry sources."""


class Pace(StrEnum):
    """How fast time passes in the demo."""

    QUICK = "quick"
    REAL = "real"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a judge needs to decide within the time that a pace allows."""

    steps: tuple[int, ...]
    """Percentage points added at each step of a canary."""
    rps: float
    """Requests per second of both arms together."""
    warmup: str
    max_step_time: str


_BY_POINT = Plan(steps=(5, 15, 20, 30, 30), rps=200.0, warmup="3s", max_step_time="30s")
_BY_EVIDENCE = Plan(steps=(20, 20, 30, 30), rps=400.0, warmup="1s", max_step_time="60s")
"""Proofs need requests: at 5 % of 200 a second the first step alone would take a minute. All steps but the
last leave stable enough traffic to be compared with. The warm-up is one tick, for the demo's service has
nothing to warm: the margin for cold starts lasts ten times as long after every weight change, and with 3 s a
regression that begins in the third step would be found 15 s later."""
_IN_PRODUCTION = Plan(steps=(5, 15, 20, 30, 30), rps=200.0, warmup="30s", max_step_time="15m")

PLANS = {
    (Pace.QUICK, JudgeName.THRESHOLD): _BY_POINT,
    (Pace.QUICK, JudgeName.EVIDENCE): _BY_EVIDENCE,
    (Pace.REAL, JudgeName.THRESHOLD): _IN_PRODUCTION,
    (Pace.REAL, JudgeName.EVIDENCE): _IN_PRODUCTION,
}

_TIMES = {
    Pace.QUICK: """\
interval: 1s
window: 5s
pass_count: 3
min_step_time: 5s
pause_timeout: 8s
keep_stable_for: 5s
min_samples: 30
min_events: 3
on_no_data: {hold: 5s, then: pause}
""",
    Pace.REAL: """\
interval: 5s
window: 60s
pass_count: 3
min_step_time: 60s
pause_timeout: 10m
keep_stable_for: 2m
on_no_data: {hold: 60s, then: pause}
""",
}
_GATES = """\
gates:
  - {signal: error_rate, slo: "<= 1%", severe: ">= 5%"}
  - {signal: latency_ms, quantile: 0.95, slo: "<= 400", severe: ">= 800"}
  - {signal: log_error_ratio, slo: "<= 0.5%", severe: ">= 5%"}
"""


def policy_text(pace: Pace, strategy: Strategy, target: dict[str, str], judge: JudgeName) -> str:
    """The demo's policy as YAML."""
    plan = PLANS[pace, judge]
    where = "".join(f"    {key}: {value!r}\n" for key, value in target.items())
    return (
        f"service: {SERVICE}\nenvironment: {ENVIRONMENT}\n{_way(strategy, plan)}"
        f"warmup: {plan.warmup}\nmax_step_time: {plan.max_step_time}\n{_TIMES[pace]}"
        f"judge: {judge.value}\n{_GATES}"
        f"telemetry: {{metrics: {METRICS}, logs: {LOGS}}}\n"
        f"traffic:\n  adapter: envoy\n  target:\n{where}"
    )


def _way(strategy: Strategy, plan: Plan) -> str:
    if strategy is Strategy.BLUE_GREEN:
        seen_by = "match: {headers: {x-canary: always}}   # who sees the preview before the switch\n"
        return f"strategy: blue_green\nweights: [0, 100]\n{seen_by}"
    return f"strategy: canary\nsteps: {list(plan.steps)}\n"


def borrowed_policy(path: Path, target: dict[str, str], judge: JudgeName | None) -> Policy:
    """A user's own policy, pointed at the demo's service, telemetry and proxy."""
    theirs = read_policy(path)
    mine = parse_policy(policy_text(Pace.QUICK, Strategy.CANARY, target, theirs.judge))
    return check(
        replace(
            theirs,
            service=mine.service,
            environment=mine.environment,
            telemetry=mine.telemetry,
            traffic=mine.traffic,
            judge=judge or theirs.judge,
        )
    )
