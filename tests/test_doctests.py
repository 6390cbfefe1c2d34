"""The examples in the docstrings of the vocabulary and of judging are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

import domain
import scorers

MODULES = [
    f"{package.__name__}.{found.name}"
    for package in (domain, scorers)
    for found in pkgutil.iter_modules(package.__path__)
]
WITH_EXAMPLES = {"domain.units", "domain.clock", "domain.verdict", "domain.policy_text", "scorers.quantile"}


def _examples(module: ModuleType) -> int:
    return sum(len(test.examples) for test in doctest.DocTestFinder().find(module))


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_the_modules_that_need_examples_have_some() -> None:
    assert set(MODULES) >= WITH_EXAMPLES
    for name in WITH_EXAMPLES:
        assert _examples(importlib.import_module(name)), name
