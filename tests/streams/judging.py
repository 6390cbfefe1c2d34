"""A judge on a log in memory: inputs to give it, deaths to give it, and what it left behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine

from domain.clock import ManualClock
from domain.decision import ActionOutcome, CommandKind
from domain.policy import Gate, JudgeName, NoDataRule, Policy, Telemetry, Traffic, check
from domain.records import (
    ActionRecord,
    Command,
    DecisionRecord,
    Evaluation,
    EvaluationFrame,
    Report,
    SampleFrame,
)
from domain.rollout import RolloutSpec, SourceRef
from domain.signal import Arm, Channel, Sample
from sentra.roles import Epochs, Memory
from store.database import open_engine, upgrade
from store.journal import Journal
from store.leases import Leases
from store.repository import Repository
from streams.agent import Handled
from streams.agents.judge import JudgeAgent
from streams.bus import Incoming, Outgoing
from streams.codec import decode, encode, pack_samples
from streams.topics import ACTIONS, COMMANDS, DECISIONS, EVALUATIONS, LOGS, METRICS
from tests.streams.memory_bus import MemoryBus

T0 = 1_700_000_000.0
RATIO = {"slo": 0.01, "severe": 0.05, "window_s": 5.0, "min_samples": 50, "min_events": 3}
TOPIC_OF = {Channel.METRICS: METRICS.name, Channel.LOGS: LOGS.name}


def policy(*, logs: bool = False, pass_count: int = 3, weights: Sequence[int] = (2000, 10_000)) -> Policy:
    """One second ticks, no warm-up; gates on errors and, if wanted, on log lines."""
    gates = [Gate(signal="error_rate", **RATIO)]  # type: ignore[arg-type]  # one table of plain numbers
    if logs:
        gates.append(Gate(signal="log_error_ratio", **RATIO))  # type: ignore[arg-type]
    return check(
        Policy(
            service="shop",
            environment="prod",
            judge=JudgeName.THRESHOLD,
            weights_bp=tuple(weights),
            gates=tuple(gates),
            traffic=Traffic(adapter="memory", target={"route": "shop"}),
            telemetry=Telemetry(metrics="prom", logs="loki" if logs else ""),
            warmup_s=0.0,
            interval_s=1.0,
            window_s=5.0,
            pass_count=pass_count,
            min_step_time_s=0.0,
            max_step_time_s=3600.0,
            on_no_data=NoDataRule(hold_s=600.0),
        )
    )


def spec(rollout_id: str = "r-1", rules: Policy | None = None) -> RolloutSpec:
    rules = rules or policy()
    sources = [SourceRef(name="prom", channel=Channel.METRICS)]
    if rules.telemetry.logs:
        sources.append(SourceRef(name="loki", channel=Channel.LOGS))
    return RolloutSpec(
        rollout_id=rollout_id,
        service="shop",
        environment="prod",
        stable="v1",
        canary="v2",
        policy=rules,
        sources=tuple(sources),
    )


def command(
    rollout_id: str, kind: CommandKind, wanted: RolloutSpec | None = None, number: int = 1
) -> Command:
    return Command(
        command_id=f"{rollout_id}/{kind.value}/{number}",
        rollout_id=rollout_id,
        kind=kind,
        actor="ann",
        reason="because",
        spec=wanted,
    )


def frame(
    rollouts: Sequence[str],
    end: float,
    *,
    channel: Channel = Channel.METRICS,
    n: float = 200.0,
    bad: float = 0.0,
) -> SampleFrame:
    """One second of both arms up to ``end``; ``bad`` of the canary's ``n`` are bad."""
    signal, source = ("error_rate", "prom") if channel is Channel.METRICS else ("log_error_ratio", "loki")
    samples = [
        Sample(
            rollout_id=rollout_id,
            signal=signal,
            arm=arm,
            start=end - 1.0,
            end=end,
            events=bad if arm is Arm.CANARY else 0.0,
            exposure=n,
        )
        for rollout_id in rollouts
        for arm in Arm
    ]
    report = Report(source=source, end=end, rollouts=tuple(rollouts))
    return pack_samples(samples, report=report, channel=channel, interval_s=1.0)


class World:
    """One partition's log, the real database, a clock that is told the time, and judges that come and go."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder / 'sentra.db'}"
        upgrade(url)
        self.engine: Engine = open_engine(url)
        self.repository = Repository(self.engine)
        self.journal = Journal(self.engine)
        self.clock = ManualClock(T0)
        self.bus = MemoryBus()
        self.position: dict[str, int] = {}
        self._born = 0

    async def judge(self) -> JudgeAgent:
        """A new judge that has recovered; it reads on where its recovery says."""
        self._born += 1
        agent = JudgeAgent(
            owner=f"judge-{self._born}",
            clock=self.clock,
            epochs=Epochs(Leases(self.engine)),
            memory=Memory(self.repository, self.journal),
            partitions=1,
            broker_epoch="log-1",
        )
        starts = await agent.assigned(frozenset({0}), self.bus)
        self.position = {topic: starts.get((topic, 0), 0) for topic in agent.topics}
        return agent

    async def publish(self, handled: Handled, *, batches: int | None = None) -> None:
        """Write what a judge answered; only the first ``batches`` of it when it dies meanwhile."""
        for batch in list(handled)[:batches]:
            await self.bus.send(batch)

    async def deliver(self, agent: JudgeAgent, topic: str) -> bool:
        """Hand over the next record of ``topic``; whether there was one."""
        waiting = self.bus.records(topic, start=self.position.get(topic, 0))
        if not waiting:
            return False
        self.position[topic] = waiting[0].offset + 1
        await self.publish(await agent.handle(waiting[0]))
        return True

    async def catch_up(self, agent: JudgeAgent) -> None:
        """Hand over everything there is."""
        while any([await self.deliver(agent, topic) for topic in agent.topics]):
            pass

    async def tick(self, agent: JudgeAgent, seconds: float = 1.0) -> None:
        self.clock.advance(seconds)
        await self.publish(await agent.tick(self.clock.now()))

    # --- inputs

    def ask(self, given: Command) -> Incoming:
        return self.bus.append(Outgoing(topic=COMMANDS.name, partition=0, value=encode(given)))

    def report(self, sent: SampleFrame) -> Incoming:
        return self.bus.append(Outgoing(topic=TOPIC_OF[sent.channel], partition=0, value=encode(sent)))

    def obey(self, decided: DecisionRecord) -> Incoming:
        """The actuator says that an order is in force."""
        decision = decided.decision
        acted = ActionRecord(
            rollout_id=decision.rollout_id,
            decision_id=decision.decision_id,
            generation=decision.generation,
            outcome=ActionOutcome.VERIFIED,
            at=self.clock.now(),
            observed_bp=decision.weight_bp,
        )
        return self.bus.append(Outgoing(topic=ACTIONS.name, partition=0, value=encode(acted)))

    async def begin(self, agent: JudgeAgent, *specs: RolloutSpec) -> None:
        """Start rollouts and bring them to ANALYSING at their first step."""
        for wanted in specs:
            self.ask(command(wanted.rollout_id, CommandKind.START, wanted))
        await self.catch_up(agent)
        for _ in range(2):  # prepare, then the first shift
            for decided in self.decisions()[-len(specs) :]:
                self.obey(decided)
            await self.catch_up(agent)

    # --- what is on the log

    def frames(self) -> list[EvaluationFrame]:
        return [decode(EvaluationFrame, each.value) for each in self.bus.records(EVALUATIONS.name)]

    def evaluations(self, rollout_id: str = "r-1") -> list[Evaluation]:
        """By owners that ruled when they wrote."""
        found, epoch = [], 0
        for each in self.frames():
            if each.owner_epoch >= epoch:
                epoch = each.owner_epoch
                found += [one for one in each.evaluations if one.rollout_id == rollout_id]
        return found

    def decisions(self) -> list[DecisionRecord]:
        return [decode(DecisionRecord, each.value) for each in self.bus.records(DECISIONS.name)]
