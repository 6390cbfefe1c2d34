"""The tables. The first half is what people ask about, the second is how the engine remembers.

Rule: rows that many processes may write carry the number that orders them (`seq`, `generation`, `epoch`), so
that a late writer can be told from a new one. What each column type means: `store/columns.py`.
"""

from __future__ import annotations

from sqlalchemy import Double, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from store.columns import (
    Base,
    Blob,
    Document,
    Id,
    Name,
    Number,
    Prose,
    TargetKey,
    Time,
    Uid,
    Word,
    table_options,
)


class Project(Base):
    """A group of services with one owner."""

    __tablename__ = "projects"
    __table_args__ = table_options(UniqueConstraint("name"))

    id: Mapped[Id]
    name: Mapped[Name]
    repo_url: Mapped[Name | None]
    created_at: Mapped[Time]


class Service(Base):
    """Something that is released."""

    __tablename__ = "services"
    __table_args__ = table_options(UniqueConstraint("project_id", "name"))

    id: Mapped[Id]
    project_id: Mapped[Number] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[Name]
    kube_namespace: Mapped[Name | None]
    kube_name: Mapped[Name | None]
    adapter: Mapped[Name]
    created_at: Mapped[Time]


class Environment(Base):
    """Somewhere services run."""

    __tablename__ = "environments"
    __table_args__ = table_options(UniqueConstraint("project_id", "name"))

    id: Mapped[Id]
    project_id: Mapped[Number] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[Name]
    kube_context: Mapped[Name | None]
    kube_namespace: Mapped[Name | None]
    labels: Mapped[Document]
    created_at: Mapped[Time]


class PolicyVersion(Base):
    """A policy as it was at one time. ``version`` is its content hash; rows never change."""

    __tablename__ = "policies"
    __table_args__ = table_options(UniqueConstraint("service_id", "environment_id", "version"))

    id: Mapped[Id]
    service_id: Mapped[Number] = mapped_column(ForeignKey("services.id"))
    environment_id: Mapped[Number] = mapped_column(ForeignKey("environments.id"))
    version: Mapped[Word]
    slos: Mapped[Document]
    steps: Mapped[Document]
    windows: Mapped[Document]
    pass_count: Mapped[int]
    policy: Mapped[Document]
    created_at: Mapped[Time]


class Deployment(Base):
    """One rollout. ``active_slot`` and ``active_target`` are unique and become NULL when it ends.

    So the database itself refuses a second rollout of a service in an environment, or of a target.
    """

    __tablename__ = "deployments"
    __table_args__ = table_options(
        UniqueConstraint("rollout_id"),
        UniqueConstraint("active_slot"),
        UniqueConstraint("active_target"),
        Index(None, "status"),
        Index(None, "completed_at"),
    )

    id: Mapped[Id]
    rollout_id: Mapped[Uid]
    service_id: Mapped[Number] = mapped_column(ForeignKey("services.id"))
    environment_id: Mapped[Number] = mapped_column(ForeignKey("environments.id"))
    policy_id: Mapped[Number] = mapped_column(ForeignKey("policies.id"))
    stable_revision: Mapped[Name]
    canary_revision: Mapped[Name]
    spec: Mapped[Document]
    target_key: Mapped[TargetKey]
    active_slot: Mapped[Word | None]
    active_target: Mapped[TargetKey | None]
    created_by: Mapped[Name]
    created_at: Mapped[Time]
    started_at: Mapped[Time | None]
    completed_at: Mapped[Time | None]
    updated_at: Mapped[Time]
    status: Mapped[Word]
    """The rollout's phase."""
    outcome: Mapped[Word | None]
    """The final phase, once there is one."""
    reason: Mapped[Prose]
    seq: Mapped[Number]
    """The last fold this row knows of."""
    generation: Mapped[Number]
    step_index: Mapped[int]
    ordered_bp: Mapped[int]
    verified_bp: Mapped[int]
    verdict: Mapped[Word | None]
    public: Mapped[Blob | None]
    """The last public record, as published."""
    pruned_at: Mapped[Time | None]
    """When its evaluations were deleted."""


class RolloutStep(Base):
    """One step of a rollout, from ``pending`` through the rollout's phases to ``done``."""

    __tablename__ = "rollout_steps"
    __table_args__ = table_options(UniqueConstraint("deployment_id", "step_index"))

    id: Mapped[Id]
    deployment_id: Mapped[Number] = mapped_column(ForeignKey("deployments.id"))
    step_index: Mapped[int]
    weight_bp: Mapped[int]
    status: Mapped[Word]
    decision: Mapped[Word | None]
    """The last thing decided in this step, other than to hold."""
    metrics_snapshot: Mapped[Document | None]
    """The scores of the step's last tick."""
    began_at: Mapped[Time | None]
    ended_at: Mapped[Time | None]


class IncidentRow(Base):
    """Something a person may have to look at. ``digest`` is the content's: told twice, stored once."""

    __tablename__ = "incidents"
    __table_args__ = table_options(UniqueConstraint("digest"), Index(None, "rollout_id"), Index(None, "at"))

    id: Mapped[Id]
    deployment_id: Mapped[Number | None] = mapped_column(ForeignKey("deployments.id"))
    rollout_id: Mapped[Uid]
    step_index: Mapped[int]
    type: Mapped[Word]
    details: Mapped[Prose]
    seq: Mapped[Number]
    at: Mapped[Time]
    digest: Mapped[Uid]


class EvaluationRow(Base):
    """One fold of one rollout. ``record`` is the whole truth; the other columns are for asking.

    There is no foreign key: the log may tell of rollouts that a new database has never heard of.
    """

    __tablename__ = "evaluations"
    __table_args__ = table_options()

    rollout_id: Mapped[Uid] = mapped_column(primary_key=True)
    seq: Mapped[Number] = mapped_column(primary_key=True)
    at: Mapped[Time]
    tick_end: Mapped[Time | None]
    input_kind: Mapped[Word]
    phase: Mapped[Word]
    step_index: Mapped[int]
    verdict: Mapped[Word | None]
    decision: Mapped[Word]
    has_fold: Mapped[bool]
    record: Mapped[Blob]


class Action(Base):
    """The actuation journal: one row per decision that orders something. Rules: `store/journal.py`."""

    __tablename__ = "actions"
    __table_args__ = table_options(
        UniqueConstraint("decision_id"),
        Index(None, "rollout_id", "generation"),
        Index(None, "target_key"),
        Index(None, "state"),
    )

    id: Mapped[Id]
    decision_id: Mapped[Uid]
    rollout_id: Mapped[Uid]
    target_key: Mapped[TargetKey]
    seq: Mapped[Number]
    generation: Mapped[Number]
    kind: Mapped[Word]
    order: Mapped[Word]
    weight_bp: Mapped[int]
    observed_bp: Mapped[int | None]
    state: Mapped[Word]
    epoch: Mapped[Number]
    owner: Mapped[Name]
    attempts: Mapped[int]
    token_before: Mapped[Prose]
    token_after: Mapped[Prose]
    snapshot: Mapped[Blob | None]
    detail: Mapped[Prose]
    record: Mapped[Blob]
    """The decision record, so that a restarted actuator needs no topic to go on."""
    intent_at: Mapped[Time]
    sent_at: Mapped[Time | None]
    applied_at: Mapped[Time | None]
    verified_at: Mapped[Time | None]
    ended_at: Mapped[Time | None]
    updated_at: Mapped[Time]


class ActionReport(Base):
    """What an actuator said on the log, word for word: outcomes and drift, also of older generations."""

    __tablename__ = "action_reports"
    __table_args__ = table_options(UniqueConstraint("digest"), Index(None, "rollout_id"))

    id: Mapped[Id]
    rollout_id: Mapped[Uid]
    decision_id: Mapped[Uid]
    generation: Mapped[Number]
    outcome: Mapped[Word]
    observed_bp: Mapped[int | None]
    at: Mapped[Time]
    record: Mapped[Blob]
    digest: Mapped[Uid]


class LeaseRow(Base):
    """Who owns what. Rows are never deleted, because ``epoch`` never goes down. Rules: `store/leases.py`."""

    __tablename__ = "leases"
    __table_args__ = table_options()

    key: Mapped[TargetKey] = mapped_column(primary_key=True)
    owner: Mapped[Name]
    epoch: Mapped[Number]
    expires_at: Mapped[Time]


class OutboxRow(Base):
    """A record that a transaction promised to the log."""

    __tablename__ = "outbox"
    __table_args__ = table_options(Index(None, "published_at"))

    id: Mapped[Id]
    topic: Mapped[Name]
    key: Mapped[Name]
    value: Mapped[Blob]
    headers: Mapped[Document]
    created_at: Mapped[Time]
    published_at: Mapped[Time | None]


class CommandRow(Base):
    """What somebody asked for, and the answer once the judge has folded it."""

    __tablename__ = "commands"
    __table_args__ = table_options(Index(None, "rollout_id"))

    command_id: Mapped[Uid] = mapped_column(primary_key=True)
    rollout_id: Mapped[Uid]
    kind: Mapped[Word]
    actor: Mapped[Name]
    reason: Mapped[Prose]
    at: Mapped[Time]
    accepted: Mapped[bool | None]
    answer: Mapped[Prose | None]
    possible: Mapped[Document | None]
    answered_at: Mapped[Time | None]


class AuditEntry(Base):
    """Who did what, on which evidence. Append-only; the hashes will chain the rows."""

    __tablename__ = "audit_log"
    __table_args__ = table_options(Index(None, "resource"), Index(None, "at"))

    id: Mapped[Id]
    at: Mapped[Time]
    actor: Mapped[Name]
    action: Mapped[Word]
    resource: Mapped[Name]
    reference: Mapped[Name]
    """Id of the command or decision behind it."""
    reason: Mapped[Prose]
    evidence: Mapped[Document | None]
    prev_hash: Mapped[Uid | None]
    hash: Mapped[Uid | None]


class ApiToken(Base):
    """A key to the API. Only the SHA-256 of the secret is kept."""

    __tablename__ = "api_tokens"
    __table_args__ = table_options()

    token_id: Mapped[Uid] = mapped_column(primary_key=True)
    secret_sha256: Mapped[Uid]
    name: Mapped[Name]
    scopes: Mapped[Document]
    created_at: Mapped[Time]
    expires_at: Mapped[Time | None]
    revoked_at: Mapped[Time | None]
    last_used_at: Mapped[Time | None]


class CalibrationVersion(Base):
    """What was learnt about a service's healthy rollouts. Rows never change; the newest one counts."""

    __tablename__ = "calibrations"
    __table_args__ = table_options(UniqueConstraint("service", "environment", "version"))

    id: Mapped[Id]
    service: Mapped[Name]
    environment: Mapped[Name]
    version: Mapped[Number]
    """Counts from 1, for each service and environment."""
    interval_s: Mapped[float] = mapped_column(Double())
    tier: Mapped[Word]
    runs: Mapped[int]
    at: Mapped[Time]
    calibration: Mapped[Document]


class CalibrationRun(Base):
    """What is remembered of one finished rollout for learning, so that its evaluations need not be kept."""

    __tablename__ = "calibration_runs"
    __table_args__ = table_options(Index(None, "service", "environment", "at"))

    rollout_id: Mapped[Uid] = mapped_column(primary_key=True)
    service: Mapped[Name]
    environment: Mapped[Name]
    interval_s: Mapped[float] = mapped_column(Double())
    outcome: Mapped[Word]
    is_healthy: Mapped[bool]
    at: Mapped[Time]
    """When the rollout ended."""
    run: Mapped[Blob | None]
    """NULL when none of its ticks says anything."""
    is_learnt: Mapped[bool]
    """Whether a calibration was tried since."""


class Meta(Base):
    """Single facts about the installation, such as the broker's epoch."""

    __tablename__ = "meta"
    __table_args__ = table_options()

    key: Mapped[Name] = mapped_column(primary_key=True)
    value: Mapped[Prose]
