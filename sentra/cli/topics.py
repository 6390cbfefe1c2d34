"""``sentra topics``: what flows where."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from typing import Annotated

import typer

from sentra.cli.connect import ConfigOption, settings_of
from sentra.cli.output import Output, OutputOption, console, show_json, show_table
from streams.topics import TOPICS, create_topics


def topics(
    config: ConfigOption = None,
    create: Annotated[
        bool, typer.Option("--create", help="create those that the broker does not have")
    ] = False,
    replication: Annotated[int, typer.Option(min=1, help="copies of each partition, with --create")] = 3,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the topics: what their records are, by what they are keyed, how long they are kept."""
    if create:
        settings = replace(settings_of(config).stream(), declare_topics=True, replication=replication)
        created = asyncio.run(create_topics(settings))
        console.print(f"created {', '.join(created)}" if created else "all topics exist")
        return
    if output is Output.JSON:
        show_json([asdict(topic) | {"kind": topic.kind.value} for topic in TOPICS.values()])
        return
    rows = [
        (topic.name, topic.kind.value, topic.key, _kept(topic.retention_s), topic.description)
        for topic in TOPICS.values()
    ]
    show_table("topics", ("topic", "kind", "key", "kept", "what"), rows)


def _kept(retention_s: int | None) -> str:
    return "newest per key" if retention_s is None else f"{retention_s // 86_400} d"
