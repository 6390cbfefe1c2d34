"""The fast parser against the format's corners, and against the official parser."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from domain.errors import SourceRejected
from streams.pollers.exposition import PageParser, parse_page, parse_series, refuse_other_media

CORNERS: dict[str, tuple[str, dict[str, float]]] = {
    "empty": ("", {}),
    "comments and blank lines": ("# HELP up x\n# TYPE up gauge\n\nup 1\n# EOF\n", {"up": 1.0}),
    "no labels": ("up 1\n", {"up": 1.0}),
    "labels": ('up{a="b",c="d"} 1.5e3\n', {'up{a="b",c="d"}': 1500.0}),
    "timestamp": ('up{a="b"} 1 1700000000000\nup 2 1700000000000\n', {'up{a="b"}': 1.0, "up": 2.0}),
    "exemplar": ('b{le="1"} 5 # {trace_id="x"} 0.5 17.2\n', {'b{le="1"}': 5.0}),
    "exemplar without time": ('b{le="1"} 5 # {trace_id="x"} 0.5\n', {'b{le="1"}': 5.0}),
    "timestamp and exemplar": ('b{le="1"} 5 17.5 # {trace_id="x"} 0.5 17.2\n', {'b{le="1"}': 5.0}),
    "exemplar without labels": ("total 5 # {} 0.5\n", {"total": 5.0}),
    "a brace in a label": ('up{a="} 3",b="{"} 1\n', {'up{a="} 3",b="{"}': 1.0}),
    "a hash in a label": ('up{a="x # {y"} 1\n', {'up{a="x # {y"}': 1.0}),
    "an escaped quote": ('up{a="x\\"} 7 "} 1\n', {'up{a="x\\"} 7 "}': 1.0}),
    "many blanks and tabs": (
        'up\t 1\nup{a="b"}   2\nup{a="c"}3\n',
        {"up": 1, 'up{a="b"}': 2, 'up{a="c"}': 3},
    ),
    "trailing blanks": ("up 1 \n", {"up": 1.0}),
    "carriage returns": ("up 1\r\n\r\n", {"up": 1.0}),
    "infinities": ('b{le="+Inf"} +Inf\nc -Inf\n', {'b{le="+Inf"}': math.inf, "c": -math.inf}),
}


@pytest.mark.parametrize("text, expected", CORNERS.values(), ids=CORNERS)
def test_corners_of_the_format_are_read(text: str, expected: dict[str, float]) -> None:
    assert parse_page(text) == expected


def test_nan_is_a_value() -> None:
    assert math.isnan(parse_page("up NaN\n")["up"])


@pytest.mark.parametrize(
    "text",
    ["up\n", "up one\n", "<html>\n", "up{a=1} \n", "foo12\n", '{"a": 1}\n', 'up{a="b 1\n', "up 1 2 3 4\n"],
)
def test_a_line_that_is_no_sample_rejects_the_page_by_its_number(text: str) -> None:
    with pytest.raises(SourceRejected, match=r"^answered what is not metrics: line 2 reads '"):
        parse_page("fine 1\n" + text)


def test_a_page_without_its_last_line_end_was_cut_off() -> None:
    with pytest.raises(SourceRejected, match="cut off"):
        parse_page("total 1")


def test_long_blank_lines_are_not_slow() -> None:
    with pytest.raises(SourceRejected):
        parse_page("up" + " " * 200_000 + "x y z\n")


@pytest.mark.parametrize(
    "series, name, labels",
    [
        ("up", "up", {}),
        ("up{}", "up", {}),
        ('up{a="b",}', "up", {"a": "b"}),
        ('up { a = "b" , c="d" }', "up", {"a": "b", "c": "d"}),
        (r'up{a="x\\y\"z\n"}', "up", {"a": 'x\\y"z\n'}),
    ],
)
def test_labels_are_taken_apart(series: str, name: str, labels: dict[str, str]) -> None:
    assert parse_series(series) == (name, labels)


def test_labels_that_are_none_are_rejected() -> None:
    with pytest.raises(SourceRejected, match="labels that cannot be read"):
        parse_series('up{a=b,c="d"}')


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


label_values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=12)


@given(
    st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), label_values, max_size=4),
    st.floats(allow_nan=False),
    st.sampled_from(["", " 1700000000"]),
    st.sampled_from(["", ' # {t="a}b # {"} 1', " # {} 0.5 1.5"]),
)
@settings(deadline=None)
def test_whatever_is_written_is_read(
    labels: dict[str, str], value: float, timestamp: str, exemplar: str
) -> None:
    inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    [(series, found)] = parse_page(f"total{{{inside}}} {value!r}{timestamp}{exemplar}\n").items()
    assert found == value
    assert parse_series(series) == ("total", labels)


@pytest.mark.parametrize(
    "media, text, words",
    [
        ("text/html; charset=utf-8", "up 1\n", "answered text/html, not metrics"),
        ("", "  <!doctype html>", "answered text/html, not metrics"),
        ("application/json", "{}", "answered application/json, not metrics"),
    ],
)
def test_other_media_are_refused_by_name(media: str, text: str, words: str) -> None:
    with pytest.raises(SourceRejected, match=words):
        refuse_other_media(media, text)


def test_plain_text_of_any_version_is_metrics() -> None:
    for media in ("", "text/plain; version=0.0.4"):
        refuse_other_media(media, "up 1\n")


def test_open_metrics_without_its_end_was_cut_off() -> None:
    media = "application/openmetrics-text; version=1.0.0"
    for whole in ("# EOF", "# EOF\n", "up 1\n# EOF\n"):
        refuse_other_media(media, whole)
    for cut in ("up 1\n", "# EOF\nup 1\n", ""):
        with pytest.raises(SourceRejected, match="OpenMetrics ends with # EOF"):
            refuse_other_media(media, cut)


@st.composite
def pages(draw: st.DrawFn) -> str:
    """Pages as the official parser reads them: names, labels of any text, values, timestamps, comments."""
    names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,6}", fullmatch=True)
    label_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,6}", fullmatch=True)
    values = st.one_of(
        st.floats(allow_nan=False).map(repr),
        st.sampled_from(["+Inf", "-Inf", "NaN", "1e3", "+4", "7."]),
    )
    stamps = st.sampled_from(["", " 1700000000000", " -5"])
    lines = []
    for name in draw(st.lists(names, max_size=6, unique=True)):
        labels = draw(st.dictionaries(label_names, label_values, max_size=3))
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        series = name + (f"{{{inside}}}" if labels or draw(st.booleans()) else "")
        lines += draw(st.sampled_from([[], [""], ["# a comment"], [f"# HELP {name} x # y"]]))
        lines.append(series + " " + draw(values) + draw(stamps))
    return "".join(line + "\n" for line in lines)


def _plain(value: float) -> str:
    """So that NaN equals itself, and 0 does whatever its sign."""
    return repr(float(value) + 0.0)


@given(pages())
@settings(deadline=None)
def test_pages_mean_what_the_official_parser_says(page: str) -> None:
    expected = {
        (sample.name, tuple(sorted(sample.labels.items()))): _plain(sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    parser = PageParser()
    for _ in range(2):  # as new series, and as known ones
        found = {}
        for series, value in parser.parse(page).items():
            name, labels = parse_series(series)
            found[name, tuple(sorted(labels.items()))] = _plain(value)
        assert found == expected


@given(st.lists(pages(), min_size=2, max_size=4), st.sampled_from(["", ' # {a="} 1"} 5 1.5', " # {} 0.5"]))
@settings(deadline=None)
def test_what_was_met_before_changes_nothing(several: list[str], exemplar: str) -> None:
    parser = PageParser()
    for page in several:
        lines = (line if line[:1] in ("", "#") else line + exemplar for line in page.split("\n"))
        text = "\n".join(lines)
        assert repr(parser.parse(text)) == repr(parse_page(text))


@pytest.mark.parametrize("text", ["up 1_0\n", "up 1 1_0\n", "up 1_0 5\n", "up 1_0 # {} 1\n", "up  1_0\n"])
def test_a_number_with_an_underscore_is_none_to_old_and_new_series(text: str) -> None:
    parser = PageParser()
    for _ in range(2):
        with pytest.raises(SourceRejected, match="not metrics"):
            parser.parse(text)
        parser.parse("up 1\n")


def test_a_known_series_inside_a_label_is_not_taken_for_one() -> None:
    parser = PageParser()
    parser.parse('up 1\nup{a="b"} 1\n')
    page = 'up{a="x} 3 # "} 7\nup{a="up 1 2"} 8 # {b="up 4 # {} 5"} 6\n'
    assert parser.parse(page) == {'up{a="x} 3 # "}': 7.0, 'up{a="up 1 2"}': 8.0}
