"""Messages are taken whole, one at a time, however the bytes arrive."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentra.embedded.demo.http1 import Message, take_message

TWO = (
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
    b"PUT /b HTTP/1.1\r\nContent-Length: 5\r\nConnection: Close\r\n\r\nhello"
)


@given(st.lists(st.integers(min_value=0, max_value=len(TWO)), max_size=6))
def test_it_does_not_matter_where_the_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(TWO)]
    buffer, taken = bytearray(), []
    for start, end in pairwise(edges):
        buffer += TWO[start:end]
        while (message := take_message(buffer)) is not None:
            taken.append(message)
    assert taken == [
        Message(b"GET /a HTTP/1.1", {b"host": b"x"}, b""),
        Message(b"PUT /b HTTP/1.1", {b"content-length": b"5", b"connection": b"Close"}, b"hello"),
    ]
    assert [message.keeps_alive for message in taken] == [True, False]
    assert not buffer


def test_a_length_that_is_no_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="many"):
        take_message(bytearray(b"GET / HTTP/1.1\r\ncontent-length: many\r\n\r\n"))
