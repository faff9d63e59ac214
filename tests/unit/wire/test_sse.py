"""
Goal: any split of a byte stream gives the same frames, and the frames laid end to end are the stream.
Method: streams are made of random lines with random line ends, cut at random places, and compared with one feed;
events are compared with a plain line-by-line reading of the standard.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.wire.sse import FrameSplitter, Unparsed, frame_data

ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.sampled_from(
    [b"", b"data: a", b"data:b", b"data", b"data: ", b"event: ping", b": comment", b"id: 1", b"retry: 5", b"nonsense",
     b"data:  two spaces", "data: 見".encode(), b"database: x"]
)  # fmt: skip
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=40).map(lambda pairs: b"".join(line + end for line, end in pairs))


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


def frames_of(pieces: list[bytes], *, max_event_bytes: int = 1 << 20) -> list[bytes]:
    splitter = FrameSplitter(max_event_bytes=max_event_bytes)
    frames = [frame for piece in pieces for frame in splitter.feed(piece)]
    return frames + splitter.finish()


def events_by_the_book(stream: bytes) -> list[bytes]:
    """A line-by-line reading, save that a last event may lack its blank line."""
    found: list[bytes] = []
    data: list[bytes] = []
    for line in [*stream.removeprefix(b"\xef\xbb\xbf").splitlines(), b""]:
        if not line:
            if data:
                found.append(b"\n".join(data))
            data = []
        elif not line.startswith(b":"):
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
    return found


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=30))
def test_every_split_gives_the_same_frames(stream: bytes, places: list[int]) -> None:
    whole = frames_of([stream])
    assert frames_of(cut(stream, places)) == whole
    assert frames_of([stream[i : i + 1] for i in range(len(stream))]) == whole
    assert b"".join(whole) == stream


@given(STREAMS, st.booleans())
def test_events_are_those_of_the_standard(stream: bytes, bom: bool) -> None:
    stream = b"\xef\xbb\xbf" * bom + stream
    events = [event for frame in frames_of([stream]) if (event := frame_data(frame)) is not None]
    assert events == events_by_the_book(stream)


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=30), st.integers(4, 40))
def test_an_event_too_large_is_passed_on_unread(stream: bytes, places: list[int], limit: int) -> None:
    whole = frames_of([stream], max_event_bytes=limit)
    pieces = frames_of(cut(stream, places), max_event_bytes=limit)
    assert b"".join(pieces) == stream
    assert [f for f in pieces if type(f) is bytes] == [f for f in whole if type(f) is bytes]
    assert all(len(f) <= limit for f in pieces if type(f) is bytes)


def test_memory_is_bounded_while_a_large_event_passes() -> None:
    splitter = FrameSplitter(max_event_bytes=1000)
    splitter.feed(b"data: ")
    for _ in range(100):
        for piece in splitter.feed(b"x" * 400):
            assert isinstance(piece, Unparsed)
        assert len(splitter.held) <= 1000
    assert isinstance(splitter.feed(b"\n\n")[0], Unparsed)
    assert splitter.feed(b"data: after\n\n") == [b"data: after\n\n"]


def test_a_whole_chunk_is_not_copied() -> None:
    chunk = b'data: {"a":1}\n\n'
    assert FrameSplitter().feed(chunk)[0] is chunk


@pytest.mark.parametrize(
    ("frame", "data"),
    [
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"event: error\r\ndata: {}\r\n\r\n", b"{}"),
        (b"data\n\n", b""),
        (b": only a comment\n\n", None),
        (b"event: alone\n\n", None),
        (b"\n\n", None),
    ],
)
def test_a_frame_is_read(frame: bytes, data: bytes | None) -> None:
    assert frame_data(frame) == data
