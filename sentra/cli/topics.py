"""``sentra topics``: what flows where."""

from __future__ import annotations

from dataclasses import asdict

from sentra.cli.output import Output, OutputOption, show_json, show_table
from streams.topics import TOPICS


def topics(output: OutputOption = Output.TEXT) -> None:
    """List the topics: what their records are, by what they are keyed, how long they are kept."""
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
