"""Writes the parts of the documentation that come from code: ``python -m sentra.cli.docs [--check]``.

JSON Schemas go to ``docs/schemas/``; fragments go between their markers in ``README.md``. With ``--check``
nothing is written, and the exit code says whether anything would have been.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scorers.diagram import mermaid
from sentra.cli.schema import PUBLISHED, schema_of
from streams.topics import TOPICS

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
SCHEMAS = ROOT / "docs" / "schemas"


def fragments() -> dict[str, str]:
    """What stands between the markers of the README, by name."""
    return {"states": f"```mermaid\n{mermaid().strip()}\n```", "topics": _topics()}


def _topics() -> str:
    rows = ["| topic | kind | key | what |", "|---|---|---|---|"]
    rows += [
        f"| `{topic.name}` | {topic.kind.value} | {topic.key} | {topic.description} |"
        for topic in TOPICS.values()
    ]
    return "\n".join(rows)


def with_fragments(text: str) -> str:
    """``text`` with the present fragments between its markers."""
    for name, fragment in fragments().items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        # Between the markers there may be nothing at all yet, not even an empty line.
        before, _, rest = text.partition(begin)
        _, _, after = ("\n" + rest).partition(end)
        text = before + begin + fragment + end + after
    return text


def generated() -> dict[Path, str]:
    """Every generated file with its content."""
    files = {SCHEMAS / f"{name}.v1.json": json.dumps(schema_of(name), indent=1) + "\n" for name in PUBLISHED}
    return files | {README: with_fragments(README.read_text())}


def outdated() -> list[Path]:
    """Files that do not say what the code says."""
    return [path for path, text in generated().items() if not path.exists() or path.read_text() != text]


def main(arguments: list[str]) -> int:
    """Write (or with ``--check`` compare) everything."""
    stale = outdated()
    if "--check" in arguments:
        for path in stale:
            print(f"outdated: {path.relative_to(ROOT)}; run make docs", file=sys.stderr)
        return 1 if stale else 0
    files = generated()
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
