"""Query text: selectors as users write them, values quoted for PromQL, services grouped into chunks. Pure.

Queries are nothing but raw samples of a range, ``{__name__=~"a|b",service=~"x|y"}[30s]``: ``increase()``
extrapolates (with a 5 s scrape, 400 events in 15 s come back as 600), so counting is done here instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

QUERY_BYTES = 12_000
"""Longest query. VictoriaMetrics takes 16,384 bytes (-search.maxQueryLen); other servers take more."""
NAMES = 250
"""Most services in a query: the size that a Prometheus answers fastest."""

SERVICES = "$S"
"""Stands for the matchers of services among a selector's own."""

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_MATCHER = re.compile(
    r"""\s*(?P<text>\$S|[a-zA-Z_][a-zA-Z0-9_]*\s*(?:=~|!~|!=|=)\s*(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'))\s*(?:,|$)"""
)
_RE2_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric and the matchers of one's own; never a function: only raw counters can be counted exactly.

    >>> Selector.parse('requests_total{code=~"5..", $S}')
    Selector(metric='requests_total', matchers=('code=~"5.."',))
    """

    metric: str
    matchers: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Selector:
        """``ValueError`` with the rule when ``text`` is something else."""
        name, brace, rest = text.strip().partition("{")
        if not _NAME.fullmatch(name.strip()) or (brace and not rest.endswith("}")):
            raise ValueError('a selector is a counter\'s name, or name{label="value"}, without any function')
        return cls(name.strip(), tuple(_matchers(rest[:-1])) if brace else ())

    def named(self, suffix: str) -> Selector:
        """The same of ``metric`` with ``suffix`` added."""
        return Selector(self.metric + suffix, self.matchers)


def _matchers(text: str) -> Iterator[str]:
    position = 0
    while position < len(text.rstrip()):
        found = _MATCHER.match(text, position)
        if found is None:
            raise ValueError(f"no matcher of labels: {text[position:].strip()!r}")
        if found["text"] != SERVICES:
            yield found["text"]
        position = found.end()


def quote(text: str) -> str:
    """A PromQL string.

    >>> print(quote('a"b'))
    "a\\"b"
    """
    return json.dumps(text, ensure_ascii=False)


def quote_pattern(text: str) -> str:
    r"""``text`` as a regular expression that matches nothing else. Escapes just what RE2 must have escaped:
    Prometheus looks up plain alternatives in its index, and does not recognise other escapes.

    >>> quote_pattern("a.b-c")
    'a\\.b-c'
    """
    return _RE2_SPECIAL.sub(lambda found: "\\" + found[0], text)


def fill_in(template: str, *, service: str, environment: str, version: str) -> str:
    """A regular expression in which the names stand for themselves. Braces that hold no name are left alone.

    >>> fill_in("{service}_{version}-[0-9a-f]{8}", service="shop", environment="", version="v1.2")
    'shop_v1\\\\.2-[0-9a-f]{8}'
    """
    values = {"service": service, "environment": environment, "version": version}

    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise LookupError(found[1])
        return quote_pattern(values[found[1]])

    return re.sub(r"\{([a-z_]+)\}", value, template)


def one_of(label: str, patterns: Iterable[str]) -> str:
    """The matcher that takes any of ``patterns``, which are regular expressions."""
    return f"{label}=~{quote('|'.join(patterns))}"


def range_query(metrics: Sequence[str], matchers: Sequence[str], window_s: float) -> str:
    """Raw samples of ``metrics`` within the last ``window_s`` seconds.

    >>> print(range_query(["hits"], ['env="prod"'], 30.0))
    {__name__="hits",env="prod"}[30000ms]
    """
    return f"{instant_query(metrics, matchers)}[{round(window_s * 1000)}ms]"


def instant_query(metrics: Sequence[str], matchers: Sequence[str]) -> str:
    """The newest sample of ``metrics``."""
    if len(metrics) == 1:
        name = f"__name__={quote(metrics[0])}"
    else:
        name = one_of("__name__", map(quote_pattern, metrics))
    return "{" + ",".join([name, *matchers]) + "}"


def chunks(patterns: Iterable[str], spare_bytes: int, names: int = NAMES) -> Iterator[tuple[str, ...]]:
    """``patterns`` in groups that fit into a query beside ``spare_bytes`` of other text, in order.

    A pattern that does not fit alone is a group of its own: the server decides.
    """
    room = QUERY_BYTES - spare_bytes
    group: list[str] = []
    size = 0
    for pattern in patterns:
        added = len(quote(pattern).encode()) - 1
        if group and (size + added > room or len(group) >= names):
            yield tuple(group)
            group, size = [], 0
        group.append(pattern)
        size += added
    if group:
        yield tuple(group)
