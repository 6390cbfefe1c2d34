"""Create every table: what people ask about, and how the engine remembers."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A migration is history: it repeats the types it was written with, whatever `store.columns` says later.
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME: sa.Double[float] = sa.Double()
DOCUMENT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
BLOB = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
TABLE: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}

NEWEST_FIRST = (
    "rollout_steps",
    "incidents",
    "deployments",
    "policies",
    "services",
    "environments",
    "projects",
    "outbox",
    "meta",
    "leases",
    "evaluations",
    "commands",
    "calibrations",
    "audit_log",
    "api_tokens",
    "actions",
    "action_reports",
)
"""No table before one that refers to it."""


def upgrade() -> None:
    op.create_table(
        "action_reports",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("rollout_id", sa.String(length=64), nullable=False),
        sa.Column("decision_id", sa.String(length=64), nullable=False),
        sa.Column("generation", NUMBER, nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("observed_bp", sa.Integer(), nullable=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("record", BLOB, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_action_reports"),
        sa.UniqueConstraint("digest", name="uq_action_reports_digest"),
        **TABLE,
    )
    op.create_index("ix_action_reports_rollout_id", "action_reports", ["rollout_id"])
    op.create_table(
        "actions",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("decision_id", sa.String(length=64), nullable=False),
        sa.Column("rollout_id", sa.String(length=64), nullable=False),
        sa.Column("target_key", sa.String(length=700), nullable=False),
        sa.Column("seq", NUMBER, nullable=False),
        sa.Column("generation", NUMBER, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("order", sa.String(length=32), nullable=False),
        sa.Column("weight_bp", sa.Integer(), nullable=False),
        sa.Column("observed_bp", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("epoch", NUMBER, nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("token_before", DOCUMENT, nullable=False),
        sa.Column("token_after", DOCUMENT, nullable=False),
        sa.Column("snapshot", BLOB, nullable=True),
        sa.Column("detail", DOCUMENT, nullable=False),
        sa.Column("record", BLOB, nullable=False),
        sa.Column("intent_at", TIME, nullable=False),
        sa.Column("sent_at", TIME, nullable=True),
        sa.Column("applied_at", TIME, nullable=True),
        sa.Column("verified_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_actions"),
        sa.UniqueConstraint("decision_id", name="uq_actions_decision_id"),
        **TABLE,
    )
    op.create_index("ix_actions_rollout_id_generation", "actions", ["rollout_id", "generation"])
    op.create_index("ix_actions_state", "actions", ["state"])
    op.create_index("ix_actions_target_key", "actions", ["target_key"])
    op.create_table(
        "api_tokens",
        sa.Column("token_id", sa.String(length=64), nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("scopes", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=True),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.Column("last_used_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("token_id", name="pk_api_tokens"),
        **TABLE,
    )
    op.create_table(
        "audit_log",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("resource", sa.String(length=255), nullable=False),
        sa.Column("reference", sa.String(length=255), nullable=False),
        sa.Column("reason", DOCUMENT, nullable=False),
        sa.Column("evidence", DOCUMENT, nullable=True),
        sa.Column("prev_hash", sa.String(length=64), nullable=True),
        sa.Column("hash", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
        **TABLE,
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"])
    op.create_index("ix_audit_log_resource", "audit_log", ["resource"])
    op.create_table(
        "calibrations",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("service", sa.String(length=255), nullable=False),
        sa.Column("environment", sa.String(length=255), nullable=False),
        sa.Column("signal", sa.String(length=64), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("calibration", DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_calibrations"),
        sa.UniqueConstraint(
            "service", "environment", "signal", "at", name="uq_calibrations_service_environment_signal_at"
        ),
        **TABLE,
    )
    op.create_table(
        "commands",
        sa.Column("command_id", sa.String(length=64), nullable=False),
        sa.Column("rollout_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("reason", DOCUMENT, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=True),
        sa.Column("answer", DOCUMENT, nullable=True),
        sa.Column("possible", DOCUMENT, nullable=True),
        sa.Column("answered_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("command_id", name="pk_commands"),
        **TABLE,
    )
    op.create_index("ix_commands_rollout_id", "commands", ["rollout_id"])
    op.create_table(
        "evaluations",
        sa.Column("rollout_id", sa.String(length=64), nullable=False),
        sa.Column("seq", NUMBER, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("tick_end", TIME, nullable=True),
        sa.Column("input_kind", sa.String(length=32), nullable=False),
        sa.Column("phase", sa.String(length=32), nullable=False),
        sa.Column("step_index", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(length=32), nullable=True),
        sa.Column("decision", sa.String(length=32), nullable=False),
        sa.Column("has_fold", sa.Boolean(), nullable=False),
        sa.Column("record", BLOB, nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", "seq", name="pk_evaluations"),
        **TABLE,
    )
    op.create_table(
        "leases",
        sa.Column("key", sa.String(length=700), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("epoch", NUMBER, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_leases"),
        **TABLE,
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("value", DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_meta"),
        **TABLE,
    )
    op.create_table(
        "outbox",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("topic", sa.String(length=255), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("value", BLOB, nullable=False),
        sa.Column("headers", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("published_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        **TABLE,
    )
    op.create_index("ix_outbox_published_at", "outbox", ["published_at"])
    op.create_table(
        "projects",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("repo_url", sa.String(length=255), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("name", name="uq_projects_name"),
        **TABLE,
    )
    op.create_table(
        "environments",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("project_id", NUMBER, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("kube_context", sa.String(length=255), nullable=True),
        sa.Column("kube_namespace", sa.String(length=255), nullable=True),
        sa.Column("labels", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_environments_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_environments"),
        sa.UniqueConstraint("project_id", "name", name="uq_environments_project_id_name"),
        **TABLE,
    )
    op.create_table(
        "services",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("project_id", NUMBER, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("kube_namespace", sa.String(length=255), nullable=True),
        sa.Column("kube_name", sa.String(length=255), nullable=True),
        sa.Column("adapter", sa.String(length=255), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_services_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_services"),
        sa.UniqueConstraint("project_id", "name", name="uq_services_project_id_name"),
        **TABLE,
    )
    op.create_table(
        "policies",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("service_id", NUMBER, nullable=False),
        sa.Column("environment_id", NUMBER, nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("slos", DOCUMENT, nullable=False),
        sa.Column("steps", DOCUMENT, nullable=False),
        sa.Column("windows", DOCUMENT, nullable=False),
        sa.Column("pass_count", sa.Integer(), nullable=False),
        sa.Column("policy", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["environment_id"], ["environments.id"], name="fk_policies_environment_id"),
        sa.ForeignKeyConstraint(["service_id"], ["services.id"], name="fk_policies_service_id"),
        sa.PrimaryKeyConstraint("id", name="pk_policies"),
        sa.UniqueConstraint(
            "service_id", "environment_id", "version", name="uq_policies_service_id_environment_id_version"
        ),
        **TABLE,
    )
    op.create_table(
        "deployments",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("rollout_id", sa.String(length=64), nullable=False),
        sa.Column("service_id", NUMBER, nullable=False),
        sa.Column("environment_id", NUMBER, nullable=False),
        sa.Column("policy_id", NUMBER, nullable=False),
        sa.Column("stable_revision", sa.String(length=255), nullable=False),
        sa.Column("canary_revision", sa.String(length=255), nullable=False),
        sa.Column("spec", DOCUMENT, nullable=False),
        sa.Column("target_key", sa.String(length=700), nullable=False),
        sa.Column("active_slot", sa.String(length=32), nullable=True),
        sa.Column("active_target", sa.String(length=700), nullable=True),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("completed_at", TIME, nullable=True),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=True),
        sa.Column("reason", DOCUMENT, nullable=False),
        sa.Column("seq", NUMBER, nullable=False),
        sa.Column("generation", NUMBER, nullable=False),
        sa.Column("step_index", sa.Integer(), nullable=False),
        sa.Column("ordered_bp", sa.Integer(), nullable=False),
        sa.Column("verified_bp", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(length=32), nullable=True),
        sa.Column("public", BLOB, nullable=True),
        sa.Column("pruned_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["environment_id"], ["environments.id"], name="fk_deployments_environment_id"
        ),
        sa.ForeignKeyConstraint(["policy_id"], ["policies.id"], name="fk_deployments_policy_id"),
        sa.ForeignKeyConstraint(["service_id"], ["services.id"], name="fk_deployments_service_id"),
        sa.PrimaryKeyConstraint("id", name="pk_deployments"),
        sa.UniqueConstraint("active_slot", name="uq_deployments_active_slot"),
        sa.UniqueConstraint("active_target", name="uq_deployments_active_target"),
        sa.UniqueConstraint("rollout_id", name="uq_deployments_rollout_id"),
        **TABLE,
    )
    op.create_index("ix_deployments_completed_at", "deployments", ["completed_at"])
    op.create_index("ix_deployments_status", "deployments", ["status"])
    op.create_table(
        "incidents",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("deployment_id", NUMBER, nullable=True),
        sa.Column("rollout_id", sa.String(length=64), nullable=False),
        sa.Column("step_index", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("details", DOCUMENT, nullable=False),
        sa.Column("seq", NUMBER, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["deployment_id"], ["deployments.id"], name="fk_incidents_deployment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_incidents"),
        sa.UniqueConstraint("digest", name="uq_incidents_digest"),
        **TABLE,
    )
    op.create_index("ix_incidents_at", "incidents", ["at"])
    op.create_index("ix_incidents_rollout_id", "incidents", ["rollout_id"])
    op.create_table(
        "rollout_steps",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("deployment_id", NUMBER, nullable=False),
        sa.Column("step_index", sa.Integer(), nullable=False),
        sa.Column("weight_bp", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("decision", sa.String(length=32), nullable=True),
        sa.Column("metrics_snapshot", DOCUMENT, nullable=True),
        sa.Column("began_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["deployment_id"], ["deployments.id"], name="fk_rollout_steps_deployment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_rollout_steps"),
        sa.UniqueConstraint("deployment_id", "step_index", name="uq_rollout_steps_deployment_id_step_index"),
        **TABLE,
    )


def downgrade() -> None:
    for table in NEWEST_FIRST:
        op.drop_table(table)
