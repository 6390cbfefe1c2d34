"""One partition's judging: the folds of its rollouts, and what each input makes of them. No I/O, no clock.

Whatever is folded comes back as a :class:`Batch`; the judge agent writes it to the log before anything else
happens. Time is an argument: the owner of a partition stamps each input with its clock, the stamp is part of
the evaluation record, and so timers replay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from domain.clock import tick_floor
from domain.decision import ActionOutcome, CommandKind, Incident, IncidentKind
from domain.errors import RecordError
from domain.records import (
    ActionInput,
    ActionRecord,
    Command,
    CommandInput,
    RestartInput,
    SampleFrame,
    TickInput,
)
from domain.rollout import Acted, RolloutFold
from domain.signal import Sample
from domain.verdict import Score
from scorers.assemble import Assembler
from scorers.fold import Folded, begin, fold, fold_clock, fold_ticks, is_over
from streams.agents.silence import Silence

GRACE_S = 30.0
"""Frames for a rollout that has just ended, or not yet begun here, are ignored for this long."""
GONE_AFTER_S = 3600.0
"""An ended rollout's checkpoint is deleted from the log after this long; the database has it by then."""


@dataclass(slots=True)
class Batch:
    """What some inputs led to, in fold order."""

    folded: list[Folded] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    """Rollouts that this partition should know and does not."""
    incidents: list[tuple[RolloutFold, Incident]] = field(default_factory=list)
    """Incidents that no fold made: sources that fell silent, defects of ours; once per onset and rollout."""
    broken: list[tuple[str, Exception]] = field(default_factory=list)
    """Rollouts that could not be folded, and why: a defect of ours. They keep their state."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """A rollout that is over, and since when."""

    fold: RolloutFold
    at: float


class Partition:
    """The rollouts of one partition."""

    def __init__(self) -> None:
        self.folds: dict[str, RolloutFold] = {}
        self.scores: dict[str, tuple[Score, ...]] = {}
        """The last tick's scores of each rollout, for its public state."""
        self.now = 0.0
        self._assembler = Assembler()
        self._ended: dict[str, _Ended] = {}
        self._strange_since: dict[str, float] = {}
        self._silence = Silence()
        self._unsettled: dict[str, deque[tuple[int, float]]] = {}
        self._next: dict[str, int] = {}
        self._defective: set[str] = set()

    # --- what comes in

    def adopt(self, fold_: RolloutFold, ended_at: float | None = None) -> None:
        """Take over a rollout as recovery found it."""
        rollout_id = fold_.spec.rollout_id
        self.now = max(self.now, fold_.state.now)
        if is_over(fold_):
            self._ended[rollout_id] = _Ended(fold_, fold_.state.now if ended_at is None else ended_at)
            return
        self.folds[rollout_id] = fold_
        self._assembler.track(rollout_id, fold_.context, fold_.state.tick_end)

    def command(self, given: Command, now: float) -> Batch:
        """Fold an operator's command; one that was folded before comes twice and changes nothing."""
        self._advance(now)
        known = self._known(given.rollout_id)
        if known is not None and (
            given.kind is CommandKind.START or given.command_id in known.state.commands
        ):
            return Batch()
        if given.kind is CommandKind.START:
            folded = begin(given, self.now)
            interval = folded.fold.context.policy.interval_s
            self._keep(folded)
            self._assembler.track(given.rollout_id, folded.fold.context, tick_floor(self.now, interval))
            return Batch([folded])
        if known is None:
            raise RecordError(
                f"{given.kind.value} for the rollout {given.rollout_id}, which is not known here"
            )
        return Batch([self._keep(fold(known, CommandInput(now=self.now, command=given)))])

    def action(self, record: ActionRecord, now: float) -> Batch:
        """Fold an actuator's report; what was merely sent is news for people only."""
        self._advance(now)
        known = self._known(record.rollout_id)
        if record.outcome is ActionOutcome.SENT or known is None:
            return Batch()
        if is_over(known) and record.outcome is not ActionOutcome.DRIFT:
            return Batch()  # a report that was repeated; only traffic that moved is news after the end
        acted = Acted(
            generation=record.generation,
            outcome=record.outcome,
            observed_bp=record.observed_bp,
            at=record.at,
            detail=record.detail,
        )
        return Batch([self._keep(fold(known, ActionInput(now=self.now, acted=acted)))])

    def frame(self, record: SampleFrame, samples: Sequence[Sample], now: float) -> Batch:
        """Fold the ticks that a poll closes."""
        self._advance(now)
        self._silence.heard(record.report.source)
        batch = Batch(strangers=self._strangers(record.report.rollouts))
        closed = self._assembler.add(record.report, samples, self.now)
        self._ticks(closed, batch)
        return batch

    def clock(self, now: float) -> Batch:
        """Time passes: silence becomes ticks without data, and timers run out."""
        self._advance(now)
        batch = Batch(incidents=self._note_silence())
        for interval_s in sorted(self._intervals()):
            silent = self._silence.at(interval_s)
            self._ticks(self._assembler.clock(self.now, silent, interval_s=interval_s), batch)
        for known in list(self.folds.values()):
            try:
                folded = fold_clock(known, self.now)
            except Exception as exc:
                self._note_defect(known, exc, batch)
                continue
            if folded is not None:
                batch.folded.append(self._keep(folded))
        return batch

    def restart(self, floors: dict[str, RestartInput]) -> Batch:
        """Sentra came back: every rollout folds it, with what the journal knows."""
        for given in floors.values():
            self._advance(given.now)  # else the gap would be noticed, and folded, once more
        inputs = {each: replace(given, now=self.now) for each, given in floors.items()}
        return Batch([self._keep(fold(self.folds[each], given)) for each, given in inputs.items()])

    # --- what it knows

    @property
    def is_busy(self) -> bool:
        return bool(self.folds)

    @property
    def silent(self) -> frozenset[str]:
        """Sources that are silent for some rollout."""
        return frozenset().union(*map(self._silence.at, self._intervals()))

    def dropped(self) -> dict[str, int]:
        """Samples dropped since the assignment, by why."""
        return dict(self._assembler.dropped)

    def gone(self) -> list[str]:
        """Ended rollouts whose checkpoint may leave the log now; each is named once."""
        gone = [each for each, ended in self._ended.items() if self.now - ended.at > GONE_AFTER_S]
        for rollout_id in gone:
            del self._ended[rollout_id]
            self.scores.pop(rollout_id, None)
        return gone

    def note_input(self, topic: str, offset: int, end: float | None = None) -> None:
        """Remember where an input was read; ``end`` is its report's end, if ticks may still wait for it."""
        self._next[topic] = offset + 1
        if end is not None:
            self._unsettled.setdefault(topic, deque()).append((offset, end))

    def resume(self) -> dict[str, int]:
        """By topic, the first offset that must be read again to go on from here."""
        settled = min((fold_.state.tick_end for fold_ in self.folds.values()), default=float("inf"))
        resume = dict(self._next)
        for topic, waiting in self._unsettled.items():
            while waiting and waiting[0][1] <= settled:
                waiting.popleft()
            if waiting:
                resume[topic] = waiting[0][0]
        return resume

    # --- how

    def _advance(self, now: float) -> None:
        """The folded clock never runs backwards, whatever the machine's clock does."""
        self.now = max(self.now, now)

    def _known(self, rollout_id: str) -> RolloutFold | None:
        """A rollout that is going on, or that has ended not too long ago."""
        if rollout_id in self.folds:
            return self.folds[rollout_id]
        ended = self._ended.get(rollout_id)
        return None if ended is None else ended.fold

    def _keep(self, folded: Folded) -> Folded:
        rollout_id = folded.fold.spec.rollout_id
        if folded.evaluation.scores:
            self.scores[rollout_id] = folded.evaluation.scores
        if is_over(folded.fold):
            self._end(rollout_id, folded.fold)
        else:
            self.folds[rollout_id] = folded.fold
        return folded

    def _end(self, rollout_id: str, fold_: RolloutFold) -> None:
        """Remember the end, so that commands and drift that come later are answered and noted."""
        before = self._ended.get(rollout_id)
        self._ended[rollout_id] = _Ended(fold_, self.now if before is None else before.at)
        self.folds.pop(rollout_id, None)
        self._assembler.forget(rollout_id)

    def _ticks(self, closed: Sequence[tuple[str, TickInput]], batch: Batch) -> None:
        """Fold closed ticks: the first of every rollout together, then the second of those that have one …"""
        for layer in _layers(closed):
            known = [(self.folds[each], tick) for each, tick in layer if each in self.folds]
            batch.folded += [self._keep(result) for result in self._together(known, batch)]

    def _together(self, known: Sequence[tuple[RolloutFold, TickInput]], batch: Batch) -> list[Folded]:
        """Fold side by side, or one by one when that fails: a defect in one must not stop the others."""
        try:
            return fold_ticks([before for before, _ in known], [tick for _, tick in known])
        except Exception as exc:
            if len(known) == 1:
                self._note_defect(known[0][0], exc, batch)
                return []
        return [folded for each in known for folded in self._together([each], batch)]

    def _note_defect(self, fold_: RolloutFold, exc: Exception, batch: Batch) -> None:
        """Say that a rollout cannot be folded; people are told once."""
        rollout_id = fold_.spec.rollout_id
        batch.broken.append((rollout_id, exc))
        if rollout_id not in self._defective:
            self._defective.add(rollout_id)
            detail = f"cannot be judged, a defect of Sentra: {type(exc).__name__}: {exc}"
            batch.incidents.append((fold_, self._incident(fold_, IncidentKind.DEAD_LETTER, detail)))

    def _strangers(self, rollouts: Iterable[str]) -> list[str]:
        """Rollouts nobody here knows, once they have been strange for longer than the grace."""
        strange = []
        for rollout_id in rollouts:
            ended = self._ended.get(rollout_id)
            if rollout_id in self.folds or (ended is not None and self.now - ended.at < GRACE_S):
                self._strange_since.pop(rollout_id, None)
                continue
            since = self._strange_since.setdefault(rollout_id, self.now)
            if self.now - since > GRACE_S:
                self._strange_since[rollout_id] = self.now
                strange.append(rollout_id)
        return strange

    def _intervals(self) -> set[float]:
        return {fold_.context.policy.interval_s for fold_ in self.folds.values()}

    def _note_silence(self) -> list[tuple[RolloutFold, Incident]]:
        """Count one clock record; an incident for every rollout that a source has just fallen silent for."""
        before = {interval_s: self._silence.at(interval_s) for interval_s in self._intervals()}
        self._silence.pass_clock(self._assembler.sources())
        fell_silent = {each: self._silence.at(each) - known for each, known in before.items()}
        return [
            (fold_, self._lost(fold_, source.name))
            for fold_ in self.folds.values()
            for source in fold_.spec.sources
            if source.name in fell_silent[fold_.context.policy.interval_s]
        ]

    def _lost(self, fold_: RolloutFold, source: str) -> Incident:
        return self._incident(fold_, IncidentKind.LOST_SOURCE, f"nothing heard from the source {source}")

    def _incident(self, fold_: RolloutFold, kind: IncidentKind, detail: str) -> Incident:
        return Incident(
            rollout_id=fold_.spec.rollout_id,
            kind=kind,
            at=self.now,
            step_index=fold_.state.step_index,
            detail=detail,
            seq=fold_.state.seq,
        )


def _layers(closed: Sequence[tuple[str, TickInput]]) -> list[list[tuple[str, TickInput]]]:
    """Ticks grouped so that each group has at most one per rollout, in order."""
    layers: list[list[tuple[str, TickInput]]] = []
    depth: dict[str, int] = {}
    for rollout_id, tick in closed:
        level = depth.get(rollout_id, 0)
        depth[rollout_id] = level + 1
        if level == len(layers):
            layers.append([])
        layers[level].append((rollout_id, tick))
    return layers
