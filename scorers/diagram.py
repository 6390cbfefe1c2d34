"""The state diagram of the README, drawn from the decision table so that it cannot say anything else.

It shows what leads from phase to phase: the three rows of a pause are one state, and what only stays, notes
or refuses is left out.
"""

from __future__ import annotations

from collections import defaultdict

from domain.rollout import FINAL_PHASES, Phase
from scorers.decision_machine import TABLE
from scorers.events import Event

WARM_UP_ENDS = (Phase.WARMING, Phase.ANALYSING)
"""The one move that is no cell: any tick past the warm-up makes it before it is judged (rule 7)."""


def moves() -> dict[tuple[Phase, Phase], tuple[str, ...]]:
    """Every change of phase in the table, with the events that lead to it in the table's order."""
    found: dict[tuple[Phase, Phase], set[Event]] = defaultdict(set)
    for row, cells in TABLE.items():
        for event, cell in cells.items():
            for target in cell.leads_to:
                if target is not phase_of(row):
                    found[phase_of(row), target].add(event)
    ordered = list(Event)
    labels = {move: tuple(event.value for event in ordered if event in found[move]) for move in found}
    labels[WARM_UP_ENDS] = ("warm-up ends",)
    return labels


def phase_of(row: str) -> Phase:
    """The phase that a row of the table belongs to."""
    return Phase.PAUSED if row.startswith("paused_") else Phase(row)


def mermaid() -> str:
    """The diagram as a Mermaid ``stateDiagram-v2``."""
    labels = moves()
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.QUEUED.value}"]
    for source in Phase:
        for target in Phase:
            if (source, target) in labels:
                events = ", ".join(labels[source, target])
                lines.append(f"    {source.value} --> {target.value}: {events}")
    lines += [f"    {phase.value} --> [*]" for phase in Phase if phase in FINAL_PHASES]
    return "\n".join(lines) + "\n"
