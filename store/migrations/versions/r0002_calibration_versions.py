"""Keep calibrations by version, and what finished rollouts teach.

No release ever wrote to the older table of calibrations, so nothing is carried over.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
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


def upgrade() -> None:
    op.drop_table("calibrations")
    op.create_table(
        "calibrations",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("service", sa.String(length=255), nullable=False),
        sa.Column("environment", sa.String(length=255), nullable=False),
        sa.Column("version", NUMBER, nullable=False),
        sa.Column("interval_s", TIME, nullable=False),
        sa.Column("tier", sa.String(length=32), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("calibration", DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_calibrations"),
        sa.UniqueConstraint(
            "service", "environment", "version", name="uq_calibrations_service_environment_version"
        ),
        **TABLE,
    )
    op.create_table(
        "calibration_runs",
        sa.Column("rollout_id", sa.String(length=64), nullable=False),
        sa.Column("service", sa.String(length=255), nullable=False),
        sa.Column("environment", sa.String(length=255), nullable=False),
        sa.Column("interval_s", TIME, nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("is_healthy", sa.Boolean(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("run", BLOB, nullable=True),
        sa.Column("is_learnt", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", name="pk_calibration_runs"),
        **TABLE,
    )
    op.create_index(
        "ix_calibration_runs_service_environment_at", "calibration_runs", ["service", "environment", "at"]
    )


def downgrade() -> None:
    op.drop_table("calibration_runs")
    op.drop_table("calibrations")
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
