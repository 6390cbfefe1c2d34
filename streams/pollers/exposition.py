"""Reading the Prometheus text format and OpenMetrics: from a page to ``{series text: value}``.

A page is read every second and nearly all of its series are the same each time. So the text in front of the
value is taken as the key as it stands, and a caller looks up what it means in a dictionary of its own; labels
are taken apart once per series (:func:`parse_series`) instead of once per page.

The grammar is checked once per series as well: :class:`PageParser` remembers the texts that were found to be
series. A line that is such a text, a blank and a number can mean nothing else, whatever its labels contain.

References
----------
Prometheus text exposition format 0.0.4; OpenMetrics 1.0.
"""

from __future__ import annotations

import re

from domain.errors import SourceRejected

_NOT_METRICS = ("text/html", "application/json", "application/xml", "application/vnd.google.protobuf")
_OPEN_METRICS = "application/openmetrics-text"
_ACCEPT = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5"
HEADERS = {"Accept": _ACCEPT}
"""What to ask for: the plain text first, because it has no exemplars to skip."""

_EOF = "# EOF"
_MOST_SERIES = 200_000
"""Series texts remembered; beyond it label values come and go faster than they can be."""

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_LINE = re.compile(
    rf"\s*(?P<series>(?:{_NAME}[ \t]*)?\{{(?:[^\"}}]|{_QUOTED})*\}}|{_NAME})"
    r"(?:(?<=\})[ \t]*|[ \t]+)(?P<value>[^\s#_]+)"
    r"(?:\s+[-+0-9.eE]+)?(?:\s+#\s.*)?\s*"
)
"""Series, value, and then perhaps a timestamp and an exemplar, which are not needed here. Python would read
``1_000`` as a number; the format does not."""
_LABEL = re.compile(rf"\s*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*(?P<value>{_QUOTED})\s*,?")
_ESCAPED = re.compile(r"\\(.)")


class PageParser:
    """Reads pages, the faster the more of their series it has met before."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def parse(self, text: str) -> dict[str, float]:
        """Every sample of a page by the text of its series, as the page writes it.

        Comments, timestamps and exemplars are left out; NaN and infinities are values. Of a series that is
        there twice the last value stands.

        Raises
        ------
        SourceRejected
            For the first line that is no sample, and for a page that was cut off. A page is read whole or not
            at all: half a page would look like counters that vanished.
        """
        if text and text[-1] != "\n" and not text.endswith("\n" + _EOF):
            raise SourceRejected("answered a page that was cut off: its last line has no end")
        if len(self._known) > _MOST_SERIES:
            self._known.clear()
        known = self._known
        has_exemplars = " # " in text
        page: dict[str, float] = {}
        lines = text.split("\n")
        for line in lines:
            # Behind a series there may be a value; value and timestamp; each with an exemplar.
            stamp = "0"
            series, _, value = line.rpartition(" ")
            if series not in known:
                if has_exemplars and " # " in line:
                    series, _, value = line.partition(" # ")[0].rpartition(" ")
                if series not in known:
                    stamp = value
                    series, _, value = series.rpartition(" ")
            if series in known and "_" not in value and "_" not in stamp:
                try:
                    float(stamp)
                    page[series] = float(value)
                    continue
                except ValueError:
                    pass
            if line and line[0] != "#" and not line.isspace():
                found = _parse_line(line)
                if found is None:
                    number = lines.index(line) + 1
                    raise SourceRejected(f"answered what is not metrics: line {number} reads {line[:80]!r}")
                series, page[found[0]] = found
                known.add(series)
        return page


def parse_page(text: str) -> dict[str, float]:
    """One page on its own: see :meth:`PageParser.parse`."""
    return PageParser().parse(text)


def _parse_line(line: str) -> tuple[str, float] | None:
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    try:
        return found["series"], float(found["value"])
    except ValueError:
        return None


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
    if media == _OPEN_METRICS and text.rstrip().rpartition("\n")[2] != _EOF:
        raise SourceRejected("answered a page that was cut off: OpenMetrics ends with # EOF")
