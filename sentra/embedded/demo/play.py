"""Plays one scenario: stack up, traffic flowing, rollout started, story watched to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from domain.clock import SystemClock
from domain.decision import CommandKind
from domain.errors import ConfigError
from domain.policy import JudgeName, Policy
from domain.policy_text import parse_policy
from domain.records import Command
from domain.rollout import PauseCause, Phase, RolloutSpec, sources_of
from sentra.cli.connect import calibrations_of, repository_of
from sentra.config import Settings
from sentra.embedded.demo import summary as summaries
from sentra.embedded.demo.plane import CANARY, STABLE, DataPlane
from sentra.embedded.demo.policies import (
    ENVIRONMENT,
    SERVICE,
    Pace,
    borrowed_policy,
    policy_text,
)
from sentra.embedded.demo.scenarios import Scenario, suits
from sentra.embedded.demo.stage import Stage
from sentra.embedded.demo.story import TOPICS, Story
from sentra.embedded.stack import Stack
from store.archive import archive_rollout
from store.errors import UnknownRollout
from store.repository import Repository
from streams.consume import follow

STILL_S = 3.0
"""A pause that nothing will end is watched this much longer: nothing may move."""
PATIENCE = 2.0
"""A rollout that takes this many times what its scenario may is given up."""
REAL_SLOWER = 20.0
"""How much longer things may take at real pace."""
STORED_S = 3.0
"""How long the end may take to reach the database."""

Watch = Callable[[Story, Policy], None]
"""Called again and again while the rollout runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What to play."""

    scenario: Scenario
    pace: Pace
    rps: float | None
    """``None``: what the judge usually needs."""
    seed: int
    judge: JudgeName | None
    """``None``: the policy's."""
    policy_file: Path | None
    directory: Path
    """Gets ``.sentra/`` with everything in it."""
    keeps: bool
    """Whether that folder outlives the demo."""


async def play(given: Play, watch: Watch, began: float) -> summaries.Summary:
    """Play it. ``began`` is when the user asked for it, in seconds since the epoch."""
    state_dir = given.directory / ".sentra"
    rollout_id = f"demo-{given.scenario.name}-{uuid4().hex[:8]}"
    # A folder per rollout: what an earlier demo left here is not this one's traffic.
    async with DataPlane(state_dir / "demo" / rollout_id, seed=given.seed) as plane:
        policy = _policy(given, plane)
        async with Stack(state_dir, sources=plane.sources) as stack:
            rps = given.rps or given.scenario.usual_rps(policy.judge, given.pace)
            plane.start_load(rps, preview_rps=given.scenario.preview_rps)
            supervising = asyncio.create_task(stack.supervise())
            try:
                return await _rollout(given, rollout_id, policy, plane, stack, watch, began)
            finally:
                supervising.cancel()
                await asyncio.gather(supervising, return_exceptions=True)


def _policy(given: Play, plane: DataPlane) -> Policy:
    """The policy to play by, kept as a file."""
    if given.policy_file is not None:
        policy = borrowed_policy(given.policy_file, plane.target, given.judge)
        text = given.policy_file.read_text(encoding="utf-8")
    else:
        judge = given.judge or JudgeName.EVIDENCE
        text = policy_text(given.pace, given.scenario.strategy, plane.target, judge)
        policy = parse_policy(text)
    (plane.directory / "policy.yaml").write_text(text, encoding="utf-8")
    if problem := suits(given.scenario, policy):
        raise ConfigError(problem)
    return policy


async def _rollout(
    given: Play,
    rollout_id: str,
    policy: Policy,
    plane: DataPlane,
    stack: Stack,
    watch: Watch,
    began: float,
) -> summaries.Summary:
    clock = SystemClock()
    settings = stack.settings
    story = Story(rollout_id=rollout_id)
    stage = Stage(plane, story, policy, clock, given.seed)
    script = asyncio.create_task(given.scenario.script(stage))
    reading = asyncio.create_task(_read(settings, story))
    limit_s = given.scenario.within_s * PATIENCE * (REAL_SLOWER if given.pace is Pace.REAL else 1.0)
    try:
        if given.scenario.from_the_start:
            await script
        _start(settings, rollout_id, policy, clock.now())
        async with asyncio.timeout(limit_s):
            await _until_over(given, story, policy, watch, [script, reading])
    except TimeoutError:
        pass  # the summary says what it had come to
    finally:
        ended = story.ended_at or clock.now()
        for task in (script, reading):
            task.cancel()
        await asyncio.gather(script, reading, return_exceptions=True)
        if given.keeps:
            await _release(settings, rollout_id, is_over=story.is_over)
    await plane.stop_load()
    if given.keeps:
        await _archive(settings, rollout_id, stack.state_dir)
    return _summary(given, policy, plane, stack, stage, story, began, ended)


async def _read(settings: Settings, story: Story) -> None:
    async with aclosing(follow(settings.stream(), TOPICS, from_beginning=True)) as records:
        async for record in records:
            story.read(record)


def _start(settings: Settings, rollout_id: str, policy: Policy, now: float) -> None:
    """Ask for the rollout as the command line does."""
    wanted = RolloutSpec(
        rollout_id=rollout_id,
        service=SERVICE,
        environment=ENVIRONMENT,
        stable=STABLE,
        canary=CANARY,
        policy=policy,
        sources=sources_of(policy, settings.freshness()),
        created_at=now,
        created_by="demo",
    )
    spec = calibrations_of(settings).frozen_into(wanted)
    command = Command(
        command_id=str(uuid4()),
        rollout_id=rollout_id,
        kind=CommandKind.START,
        actor="demo",
        at=now,
        spec=spec,
    )
    repository_of(settings).start_rollout(spec, command)


async def _until_over(
    given: Play, story: Story, policy: Policy, watch: Watch, tasks: list[asyncio.Task[None]]
) -> None:
    """Return when the rollout ended, or is paused and nothing will end that."""
    moving = _moving_causes(given, policy)
    still_since: float | None = None
    loop = asyncio.get_running_loop()
    while True:
        watch(story, policy)
        for task in tasks:
            if task.done() and task.exception() is not None:
                task.result()
        if story.is_over:
            return
        if not _is_still(story, moving):
            still_since = None
        elif still_since is None:
            still_since = loop.time()
        elif loop.time() - still_since >= STILL_S + policy.pause_timeout_s:
            return
        await asyncio.sleep(0.05)


def _moving_causes(given: Play, policy: Policy) -> set[str]:
    """Pauses that the scenario waits to see the end of: a failure times out, and evidence grows on."""
    if policy.judge is not JudgeName.EVIDENCE or Phase.PAUSED in given.scenario.expects(policy.judge):
        return {PauseCause.FAIL.value}
    return {PauseCause.FAIL.value, PauseCause.SHARED.value, PauseCause.INCONCLUSIVE.value}


def _is_still(story: Story, moving: set[str]) -> bool:
    """Paused, for none of the causes that end by themselves."""
    public = story.public
    return public is not None and public.phase is Phase.PAUSED and not moving & set(public.pause_causes)


async def _release(settings: Settings, rollout_id: str, *, is_over: bool) -> None:
    """Leave no rollout under way in a database that is kept: it would hold the service for ever."""
    repository = repository_of(settings)
    if await _until_stored(repository, rollout_id, STORED_S if is_over else 0.0):
        return
    command = Command(
        command_id=str(uuid4()),
        rollout_id=rollout_id,
        kind=CommandKind.ABORT,
        actor="demo",
        reason="the demo is over",
        at=SystemClock().now(),
    )
    with suppress(UnknownRollout):
        repository.add_command(command)
        await _until_stored(repository, rollout_id, STORED_S)


async def _until_stored(repository: Repository, rollout_id: str, within_s: float) -> bool:
    """Whether the rollout has ended as far as the database knows; waits a while for that."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        stored = await asyncio.to_thread(repository.get_rollout, rollout_id)
        if stored is None or not stored.is_active:
            return True
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(0.1)


async def _archive(settings: Settings, rollout_id: str, state_dir: Path) -> None:
    """Keep the rollout's records in a file."""
    with suppress(UnknownRollout):
        await asyncio.to_thread(archive_rollout, repository_of(settings), rollout_id, state_dir / "archive")


def _summary(
    given: Play,
    policy: Policy,
    plane: DataPlane,
    stack: Stack,
    stage: Stage,
    story: Story,
    began: float,
    ended: float,
) -> summaries.Summary:
    requests, failed, rows = summaries.count_requests(plane.directory / "requests.jsonl")
    phase = story.phase
    delays = story.delays()
    return summaries.Summary(
        rollout_id=story.rollout_id,
        scenario=given.scenario.name,
        judge=policy.judge.value,
        outcome=summaries.outcome_of(phase),
        expected=tuple(summaries.outcome_of(each) for each in given.scenario.expects(policy.judge)),
        reason=_reason(story),
        seconds=round(ended - began, 3),
        ready_s=round(stack.ready_s, 3),
        fault_to_decision_s=summaries.fault_to_decision(story, stage.fault_at),
        decision_to_effect_s=round(max(delays), 4) if delays else None,
        requests=requests,
        failed=failed,
        shift_failures=summaries.count_shift_failures(
            story.shifts(), rows, plane.envoy.access_log_path, stage.killed
        ),
        steps=summaries.steps_of(story, ended),
        evaluations=story.evaluations,
        decisions=len(story.decisions),
        policy=policy.version,
    )


def _reason(story: Story) -> str:
    """The sentence of the decision that settled it."""
    if story.public is not None:
        return story.public.reason
    return "the rollout never began"
