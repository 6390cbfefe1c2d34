"""Column types that mean the same on SQLite, MySQL and MariaDB, and the base of all tables.

Three choices hold for every table. A *time* is seconds since the epoch (UTC) as a double: the very number the
records carry, without time zones and without rounding. A *weight* is an integer of basis points. A *document*
is JSON text that is only ever read whole; whatever is filtered or joined has a column of its own.
"""

from __future__ import annotations

from typing import Annotated, Any

from sqlalchemy import BigInteger, Double, Integer, LargeBinary, MetaData, String, Text
from sqlalchemy.dialects.mysql import LONGBLOB, LONGTEXT
from sqlalchemy.orm import DeclarativeBase, mapped_column

TARGET_KEY_LENGTH = 700
"""InnoDB indexes at most 3072 bytes, and a character of utf8mb4 may take four."""

_DOCUMENT = Text().with_variant(LONGTEXT(), "mysql", "mariadb")
_BLOB = LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")
_NUMBER = BigInteger().with_variant(Integer(), "sqlite")

Id = Annotated[int, mapped_column(_NUMBER, primary_key=True, autoincrement=True)]
"""A surrogate key; meaningless outside the database. (SQLite counts up by itself for INTEGER only.)"""
Number = Annotated[int, mapped_column(_NUMBER)]
"""A whole number of 64 bits: a reference, a sequence number, an epoch."""
Uid = Annotated[str, mapped_column(String(64))]
"""An identity made elsewhere: of a rollout, a decision, a command."""
Word = Annotated[str, mapped_column(String(32))]
"""A member of a closed set."""
Name = Annotated[str, mapped_column(String(255))]
TargetKey = Annotated[str, mapped_column(String(TARGET_KEY_LENGTH))]
Time = Annotated[float, mapped_column(Double())]
"""Seconds since the epoch, UTC."""
Prose = Annotated[str, mapped_column(_DOCUMENT)]
"""Words for people, of any length."""
Document = Annotated[str, mapped_column(_DOCUMENT)]
"""JSON."""
Blob = Annotated[bytes, mapped_column(_BLOB)]
"""A record in MessagePack, exactly as folded: JSON has no word for some doubles."""


class Base(DeclarativeBase):
    """Every table. Constraints are named by rule, so that a migration can name what it drops."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def table_options(*constraints: Any) -> tuple[Any, ...]:
    """Constraints of one table and what MySQL must be told: names are compared byte by byte."""
    return (
        *constraints,
        {
            "mysql_engine": "InnoDB",
            "mysql_charset": "utf8mb4",
            "mysql_collate": "utf8mb4_bin",
            "mariadb_engine": "InnoDB",
            "mariadb_charset": "utf8mb4",
            "mariadb_collate": "utf8mb4_bin",
        },
    )
