"""Reading the Prometheus text format and OpenMetrics: from a page to ``{series text: value}``.

A page is read every second and nearly all of its series are the same each time. So the text in front of the
value is taken as the key as it stands, and a caller looks up what it means in a dictionary of its own; labels
are taken apart once per series (:func:`parse_series`) instead of once per page.

References
----------
Prometheus text exposition format 0.0.4; OpenMetrics 1.0.
"""

from __future__ import annotations

import re

from domain.errors import SourceRejected

_NOT_METRICS = ("text/html", "application/json", "application/xml", "application/vnd.google.protobuf")
_ACCEPT = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5"
HEADERS = {"Accept": _ACCEPT}
"""What to ask for: the plain text first, because it has no exemplars to skip."""

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_LINE = re.compile(
    rf"\s*(?P<series>(?:{_NAME}[ \t]*)?\{{(?:[^\"}}]|{_QUOTED})*\}}|{_NAME})"
    r"(?:(?<=\})[ \t]*|[ \t]+)(?P<value>[^\s#]+)"
    r"(?:\s+[-+0-9.eE]+)?(?:\s+#\s.*)?\s*"
)
"""Series, value, and then perhaps a timestamp and an exemplar, which are not needed here."""
_LABEL = re.compile(rf"\s*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*(?P<value>{_QUOTED})\s*,?")
_ESCAPED = re.compile(r"\\(.)")


def parse_page(text: str) -> dict[str, float]:
    """Every sample of a page by the text of its series, as the page writes it.

    Comments, timestamps and exemplars are left out; NaN and infinities are values.

    Raises
    ------
    SourceRejected
        For the first line that is no sample, and for a page that was cut off. A page is read whole or not at
        all: half a page would look like counters that vanished.
    """
    if text and not text.endswith("\n"):
        raise SourceRejected("answered a page that was cut off: its last line has no end")
    page: dict[str, float] = {}
    has_exemplars = " # " in text
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line[0] == "#":
            continue
        series, _, value = line.rpartition(" ")
        # The short way is safe where the value is the last word of the line and all before it is a series.
        if (series[-1:] == "}" or series.isidentifier()) and not (has_exemplars and " # " in line):
            try:
                page[series] = float(value)
                continue
            except ValueError:
                pass
        if line.strip():
            series, reading = _parse_line(line, number)
            page[series] = reading
    return page


def _parse_line(line: str, number: int) -> tuple[str, float]:
    found = _LINE.fullmatch(line)
    if found is not None:
        try:
            return found["series"], float(found["value"])
        except ValueError:
            pass
    raise SourceRejected(f"answered what is not metrics: line {number} reads {line[:80]!r}")


def parse_series(series: str) -> tuple[str, dict[str, str]]:
    """Name and labels of a series text.

    >>> parse_series('http_requests_total{code="200",path="/a\\\\"b"}')
    ('http_requests_total', {'code': '200', 'path': '/a"b'})

    Raises
    ------
    SourceRejected
        When the text between the braces is no list of labels.
    """
    name, brace, rest = series.partition("{")
    labels: dict[str, str] = {}
    position, end = 0, len(rest.rstrip()) - 1
    while brace and position < end:
        found = _LABEL.match(rest, position, end)
        if found is None:
            raise SourceRejected(f"answered labels that cannot be read: {series[:80]!r}")
        labels[found["name"]] = _unescape(found["value"][1:-1])
        position = found.end()
    return name.strip(), labels


def _unescape(value: str) -> str:
    if "\\" not in value:
        return value
    return _ESCAPED.sub(lambda found: {"n": "\n"}.get(found[1], found[1]), value)


def refuse_other_media(content_type: str, text: str) -> None:
    """Raise :class:`SourceRejected` when an answer is something else than metrics, and say what."""
    media = content_type.partition(";")[0].strip().lower()
    if media in _NOT_METRICS:
        raise SourceRejected(f"answered {media}, not metrics")
    opening = text[:200].lstrip()[:1]
    if opening == "<":
        raise SourceRejected("answered text/html, not metrics")
