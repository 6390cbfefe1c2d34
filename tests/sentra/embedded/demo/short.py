"""A policy of two short steps, as a user would write it: a demo with it takes about ten seconds."""

from __future__ import annotations

SHORT = """\
service: checkout
environment: prod-eu
weights: [50, 100]
warmup: 1s
interval: 1s
window: 2s
pass_count: 2
min_step_time: 1s
max_step_time: 60s
pause_timeout: 10s
min_samples: 20
min_events: 3
judge: threshold
gates:
  - {signal: error_rate, slo: "<= 1%", severe: ">= 5%"}
telemetry: {metrics: theirs}
traffic: {adapter: memory, target: {}}
"""

LAX = SHORT.replace("<= 1%", "<= 50%").replace(">= 5%", ">= 90%")
"""Nothing that the demo's canary does is bad enough for this one."""
