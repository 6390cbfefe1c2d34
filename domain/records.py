"""How things travel: one struct per record on a topic, each with its schema version.

A reader ignores fields it does not know; a breaking change is a new topic suffix. People-facing records
are plain JSON; bulk ones are MessagePack. JSON Schemas of all of them: ``sentra schema``.
"""

from __future__ import annotations

import msgspec

from domain.decision import (
    ActionOutcome,
    Answer,
    CommandKind,
    Decision,
    DecisionKind,
    Incident,
)
from domain.labels import Labels
from domain.policy import MatchRule, Policy, Traffic
from domain.rollout import Acted, Phase, RolloutFold, RolloutSpec
from domain.signal import Arm, Channel
from domain.verdict import Score, Verdict

SCHEMA = 1
"""Version of every record below; readers refuse others by name."""


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A source's word about a tick for some rollouts: "this is all there is up to ``end``".

    ``problem`` says, in the source's own words, why there is nothing; it is empty when the source answered.
    """

    source: str
    end: float
    rollouts: tuple[str, ...]
    problem: str = ""


class SampleFrame(msgspec.Struct, frozen=True, kw_only=True):
    """One poll's samples for many rollouts of one partition, in columns. Bytes are little-endian arrays.

    ``rollout``, ``signal`` index into ``report.rollouts`` and ``signals``; ``arm`` is 0 for stable and 1 for
    canary. Row i has ``widths[i]`` bucket edges, concatenated in ``edges`` and ``counts``. ``replica`` (u4)
    indexes into ``replicas``, where "" is the whole arm; both are empty when no row names a replica.
    """

    schema: int = SCHEMA
    channel: Channel
    interval_s: float
    report: Report
    signals: tuple[str, ...] = ()
    rollout: bytes = b""
    signal: bytes = b""
    arm: bytes = b""
    start: bytes = b""
    end: bytes = b""
    events: bytes = b""
    exposure: bytes = b""
    age_s: bytes = b""
    quality: bytes = b""
    widths: bytes = b""
    edges: bytes = b""
    counts: bytes = b""
    source_epoch: float = 0.0
    """When this poller started; a new one begins its counters afresh."""
    frame_seq: int = 0
    published_at: float = 0.0
    replicas: tuple[str, ...] = ()
    replica: bytes = b""


class SignalInput(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What one arm did in one tick, as the judge saw it. Meanings as in :class:`domain.signal.Sample`.

    ``half_events``, ``half_exposure`` and ``half_counts`` (at the same ``edges``) are the part of the first
    half of the arm's replicas; the rest of the arm is its second half. A ``half_exposure`` of -1 says that
    the arm is not split, and then the other two mean nothing.
    """

    signal: str
    arm: Arm
    start: float
    events: float
    exposure: float
    edges: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()
    age_s: float = 0.0
    quality: int = 0
    half_events: float = -1.0
    half_exposure: float = -1.0
    half_counts: tuple[float, ...] = ()
    end: float = 0.0
    """Up to when it was counted: a slower source's part of a tick ends before the tick does. 0 is the tick's
    own end."""


class TickInput(msgspec.Struct, frozen=True, kw_only=True, tag="tick", omit_defaults=True):
    """A closed tick ``[start, end)``: everything every source said about it."""

    start: float
    end: float
    now: float
    """The folded clock when the tick closed."""
    signals: tuple[SignalInput, ...] = ()
    silent: tuple[str, ...] = ()
    """Sources that had said nothing about this tick when it closed."""
    problems: dict[str, str] = {}
    """What sources said instead of data."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator, a CI job or the API asks for."""

    schema: int = SCHEMA
    command_id: str
    rollout_id: str
    kind: CommandKind
    actor: str
    reason: str = ""
    at: float = 0.0
    force: bool = False
    spec: RolloutSpec | None = None
    """With ``start``: the whole specification."""
    policy: Policy | None = None
    """With ``change_policy``: the new policy."""


class CommandInput(msgspec.Struct, frozen=True, kw_only=True, tag="command"):
    """A command, folded."""

    now: float
    command: Command


class ActionInput(msgspec.Struct, frozen=True, kw_only=True, tag="action"):
    """An actuator's report, folded."""

    now: float
    acted: Acted


class ClockInput(msgspec.Struct, frozen=True, kw_only=True, tag="clock"):
    """Time passed, and that alone changed something."""

    now: float


class RestartInput(msgspec.Struct, frozen=True, kw_only=True, tag="restart", omit_defaults=True):
    """Sentra came back. Floors keep identities fresh when newer ones than we remember were in use."""

    now: float
    seq_floor: int = 0
    generation_floor: int = 0
    observed_bp: int | None = None
    """The weight last seen in force, if the journal knows."""


Input = TickInput | CommandInput | ActionInput | ClockInput | RestartInput
"""Everything that may be folded into a rollout."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fold of one rollout: what was seen and what was concluded. The write-ahead record of judging."""

    rollout_id: str
    seq: int
    input: Input
    context: str
    """Digest of the judging context in force."""
    kernel_version: str
    phase: Phase
    step_index: int
    scores: tuple[Score, ...] = ()
    verdict: Verdict | None = None
    decision: Decision | None = None
    kind: DecisionKind = DecisionKind.HOLD
    answer: Answer | None = None
    incidents: tuple[Incident, ...] = ()
    fold: RolloutFold | None = None
    """The whole state after this fold, on the first and on every n-th record and when a context changes."""


class EvaluationFrame(msgspec.Struct, frozen=True, kw_only=True):
    """The evaluations that one consumed record led to, and up to where the inputs are contained in them."""

    schema: int = SCHEMA
    partition: int
    owner: str
    owner_epoch: int
    broker_epoch: str
    published_at: float
    evaluations: tuple[Evaluation, ...]
    resume: dict[str, int]
    """By topic, the first offset that has to be read again to go on from here."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout's fold, so that recovery need not start at the beginning of the log. Compacted by rollout."""

    schema: int = SCHEMA
    partition: int
    fold: RolloutFold
    evaluations_offset: int
    """An offset of the evaluations topic at or before the frame that holds this rollout's next fold."""
    broker_epoch: str
    owner_epoch: int = 0
    """Of the owner who wrote it: what a deposed one says counts less, however new its fold."""


class ClockRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The partition owner's time: what all timers fold."""

    schema: int = SCHEMA
    partition: int
    now: float
    silent: tuple[str, ...]
    """Sources unheard of for three intervals; ticks no longer wait for them."""
    owner: str
    owner_epoch: int


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A decision with all an actuator needs to carry it out."""

    schema: int = SCHEMA
    decision: Decision
    service: str
    environment: str
    stable: str
    canary: str
    traffic: Traffic
    match: MatchRule
    target_key: str
    owner: str
    owner_epoch: int
    verify_timeout_s: float
    labels: Labels = Labels()


class ActionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the actuator did and what it saw."""

    schema: int = SCHEMA
    rollout_id: str
    decision_id: str
    generation: int
    outcome: ActionOutcome
    at: float
    observed_bp: int | None = None
    wanted_bp: int = 0
    adapter: str = ""
    target_key: str = ""
    epoch: int = 0
    owner: str = ""
    token: str = ""
    """The platform's own version of what is in force (Envoy's ``version_text``, a resourceVersion …)."""
    decided_at: float = 0.0
    seconds: float = 0.0
    """From taking up the order to this report."""
    attempts: int = 1
    detail: str = ""


class RolloutRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The public state of a rollout: what a page, a poller or another service needs to know."""

    schema: int = SCHEMA
    spec: RolloutSpec
    phase: Phase
    seq: int
    at: float
    step_index: int
    ordered_bp: int
    verified_bp: int
    generation: int
    verdict: Verdict | None
    passes: int
    pause_causes: tuple[str, ...]
    reason: str
    waits_for: str
    eta_s: float | None
    started_at: float
    scores: tuple[Score, ...] = ()


class IncidentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An incident with where it belongs."""

    schema: int = SCHEMA
    incident: Incident
    service: str
    environment: str
    labels: Labels = Labels()
