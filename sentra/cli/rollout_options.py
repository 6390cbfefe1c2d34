"""Arguments and options that several ``sentra rollout`` commands have in common."""

from __future__ import annotations

from typing import Annotated

import typer

IdArgument = Annotated[
    str | None,
    typer.Argument(metavar="[ID]", help="the rollout; may be left out while exactly one is active"),
]
ActorOption = Annotated[
    str | None, typer.Option(help="who asks, for the records; default: your user name", show_default=False)
]
ReasonOption = Annotated[str, typer.Option(help="why, for the records", show_default=False)]
ForceOption = Annotated[bool, typer.Option("--force", help="do it against or without the evidence")]
WaitOption = Annotated[bool, typer.Option("--wait", help="stay until it ends; the exit code tells how")]
TimeoutOption = Annotated[str, typer.Option(help="how long --wait stays, such as 90s or 2h")]
RpsOption = Annotated[
    float | None,
    typer.Option(
        help="requests per second of both versions together; default: what was learnt", show_default=False
    ),
]
AcceptUndecidableOption = Annotated[
    bool,
    typer.Option("--accept-undecidable", help="start although the traffic cannot decide every step in time"),
]
NewIdOption = Annotated[
    str | None, typer.Option("--id", help="the new rollout's id; default: a new one", show_default=False)
]
