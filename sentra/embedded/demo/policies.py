"""The demo's policies, as files a user could have written."""

from __future__ import annotations

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


_TIMES = {
    Pace.QUICK: """\
warmup: 3s
interval: 1s
window: 5s
pass_count: 3
min_step_time: 5s
max_step_time: 30s
pause_timeout: 8s
keep_stable_for: 5s
min_samples: 30
min_events: 3
on_no_data: {hold: 5s, then: pause}
""",
    Pace.REAL: """\
warmup: 30s
interval: 5s
window: 60s
pass_count: 3
min_step_time: 60s
max_step_time: 15m
pause_timeout: 10m
keep_stable_for: 2m
on_no_data: {hold: 60s, then: pause}
""",
}
_WAYS = {
    Strategy.CANARY: "strategy: canary\nsteps: [5, 15, 20, 30, 30]\n",
    Strategy.BLUE_GREEN: (
        "strategy: blue_green\nweights: [0, 100]\n"
        "match: {headers: {x-canary: always}}   # who sees the preview before the switch\n"
    ),
}
_GATES = """\
judge: threshold
gates:
  - {signal: error_rate, slo: "<= 1%", severe: ">= 5%"}
  - {signal: latency_ms, quantile: 0.95, slo: "<= 400", severe: ">= 800"}
  - {signal: log_error_ratio, slo: "<= 0.5%", severe: ">= 5%"}
"""


def policy_text(pace: Pace, strategy: Strategy, target: dict[str, str]) -> str:
    """The demo's policy as YAML."""
    where = "".join(f"    {key}: {value!r}\n" for key, value in target.items())
    return (
        f"service: {SERVICE}\nenvironment: {ENVIRONMENT}\n"
        f"{_WAYS[strategy]}{_TIMES[pace]}{_GATES}"
        f"telemetry: {{metrics: {METRICS}, logs: {LOGS}}}\n"
        f"traffic:\n  adapter: envoy\n  target:\n{where}"
    )


def demo_policy(text: str, judge: JudgeName | None) -> Policy:
    """The policy in ``text``, with another judge if one is asked for by name."""
    policy = parse_policy(text)
    return check(replace(policy, judge=judge)) if judge else policy


def borrowed_policy(path: Path, target: dict[str, str], judge: JudgeName | None) -> Policy:
    """A user's own policy, pointed at the demo's service, telemetry and proxy."""
    mine = parse_policy(policy_text(Pace.QUICK, Strategy.CANARY, target))
    theirs = read_policy(path)
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
