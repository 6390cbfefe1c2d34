"""The tree of errors is the tree that its docstring draws."""

from __future__ import annotations

import inspect
import re

import pytest

from domain import errors
from domain.errors import (
    ActuationError,
    Conflict,
    Outcome,
    PolicyError,
    SentraError,
    Throttled,
    VerifyFailed,
)

LINE = re.compile(r"^(?P<indent>[│ ]*)(?:[├└]── )?(?P<name>[A-Z]\w+)")


def drawn() -> dict[str, str]:
    """Child → parent, as drawn."""
    drawing = inspect.cleandoc(errors.__doc__ or "").split("::\n\n")[1].split("\n\n")[0]
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in drawing.splitlines():
        found = LINE.match(inspect.cleandoc(line) if not above else line[4:])
        assert found is not None, line
        depth = 0 if not above else len(found["indent"]) // 4 + 1
        above = [*above[:depth], found["name"]]
        if depth:
            parents[found["name"]] = above[depth - 1]
    return parents


def built() -> dict[str, str]:
    classes = inspect.getmembers(errors, inspect.isclass)
    return {
        name: one.__bases__[0].__name__
        for name, one in classes
        if issubclass(one, SentraError) and one is not SentraError
    }


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert drawn() == built()


def test_every_error_inherits_from_one_class_and_says_what_it_is() -> None:
    for name in built():
        one = getattr(errors, name)
        assert len(one.__bases__) == 1
        assert one.__doc__


def test_a_policy_error_names_its_line_if_there_is_one() -> None:
    assert str(PolicyError("no steps", line=3)) == "line 3: no steps"
    assert str(PolicyError("no steps")) == "no steps"
    assert PolicyError("no steps", line=3).rule == "no steps"


def test_an_actuation_error_knows_what_became_of_the_write() -> None:
    assert ActuationError("x").outcome is Outcome.NOT_APPLIED
    assert VerifyFailed("x").outcome is Outcome.UNKNOWN
    assert ActuationError("x", outcome=Outcome.APPLIED).outcome is Outcome.APPLIED
    assert ActuationError("x").outcome is Outcome.NOT_APPLIED, "one error's outcome is not its class's"


@pytest.mark.parametrize(("error", "retryable"), [(Conflict("x"), True), (ActuationError("x"), False)])
def test_an_actuation_error_says_whether_trying_again_can_help(
    error: ActuationError, retryable: bool
) -> None:
    assert error.retryable is retryable
    assert Throttled("x", retryable=False, retry_after=2.0).retryable is False
    assert Throttled("x", retry_after=2.0).retry_after == 2.0
