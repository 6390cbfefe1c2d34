"""What commands print: tables for people, JSON for programs. Progress and notes go to standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 200
"""Columns when standard output is no terminal: ids in a log must not be cut."""

console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
notes = Console(stderr=True)


class Output(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="text for people, json for programs")]


def show_json(value: Any) -> None:
    """Exactly one JSON value on standard output."""
    print(msgspec.json.encode(value).decode())


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; an empty one says so."""
    if not rows:
        console.print(f"no {title}")
        return
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
