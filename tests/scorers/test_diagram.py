"""The diagram says what the table says, all of it and nothing else."""

from __future__ import annotations

import re

from domain.rollout import FINAL_PHASES, Phase
from scorers.decision_machine import TABLE
from scorers.diagram import WARM_UP_ENDS, mermaid, phase_of

EDGE = re.compile(r"    (\w+) --> (\w+): (.+)")


def drawn() -> set[tuple[str, str, str]]:
    return {
        (source, target, event)
        for source, target, events in EDGE.findall(mermaid())
        for event in events.split(", ")
    }


def meant() -> set[tuple[str, str, str]]:
    moves = {
        (phase_of(row).value, target.value, event.value)
        for row, cells in TABLE.items()
        for event, cell in cells.items()
        for target in cell.leads_to
        if target is not phase_of(row)
    }
    return moves | {(WARM_UP_ENDS[0].value, WARM_UP_ENDS[1].value, "warm-up ends")}


def test_every_arrow_is_in_the_table_and_every_move_of_the_table_is_drawn() -> None:
    assert drawn() == meant()


def test_every_phase_is_drawn_and_every_final_one_ends() -> None:
    text = mermaid()
    for phase in Phase:
        assert re.search(rf"\b{phase.value}\b", text)
        assert (f"    {phase.value} --> [*]" in text) == (phase in FINAL_PHASES)


def test_nothing_leads_out_of_a_final_phase() -> None:
    final = {phase.value for phase in FINAL_PHASES}
    assert not [edge for edge in drawn() if edge[0] in final]


def test_an_arrow_is_drawn_once_and_the_whole_fits_a_screen() -> None:
    lines = mermaid().splitlines()
    assert len(lines) == len(set(lines))
    assert len(lines) < 50
