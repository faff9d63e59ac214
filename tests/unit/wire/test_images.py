"""
Goal: the size of an image is read from its header, for each format, and nothing else is ever claimed.
Method: headers are built byte by byte from the formats' specifications.
"""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.wire.images import UNKNOWN, size_of_base64, size_of_url


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x06\x00\x00\x00"


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\xf7\x00\x00"


def jpeg(width: int, height: int, *, metadata: int = 0) -> bytes:
    segments = b""
    while metadata > 0:
        size = min(metadata, 65_000)
        segments += b"\xff\xe1" + struct.pack(">H", size + 2) + b"\xff" * size
        metadata -= size
    quantisation = b"\xff\xdb" + struct.pack(">H", 67) + bytes(65)
    frame = b"\xff\xff\xc2" + struct.pack(">HBHH", 17, 8, height, width) + bytes(10)
    return b"\xff\xd8" + segments + quantisation + frame + b"\xff\xda"


def webp_lossy(width: int, height: int) -> bytes:
    return b"RIFF" + bytes(4) + b"WEBPVP8 " + bytes(4) + b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height)


def webp_lossless(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    return b"RIFF" + bytes(4) + b"WEBPVP8L" + bytes(4) + b"\x2f" + struct.pack("<I", bits)


def webp_extended(width: int, height: int) -> bytes:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(4) + bytes(4) + sizes


FORMATS = [png, gif, jpeg, webp_lossy, webp_lossless, webp_extended]


@given(st.sampled_from(FORMATS), st.integers(1, 16_383), st.integers(1, 16_383), st.binary(max_size=400))
def test_each_format(image, width: int, height: int, rest: bytes) -> None:  # type: ignore[no-untyped-def]
    data = base64.b64encode(image(width, height) + rest).decode()
    assert size_of_base64(data) == (width, height)
    assert size_of_url(f"data:image/x;base64,{data}") == (width, height)


@pytest.mark.parametrize("metadata", [10, 70_000, 400_000])
def test_a_jpeg_with_long_metadata(metadata: int) -> None:
    assert size_of_base64(base64.b64encode(jpeg(640, 480, metadata=metadata)).decode()) == (640, 480)


@pytest.mark.parametrize(
    "url",
    ["https://example.com/a.png", "data:image/png,rawbytes", "data:image/png;base64", "", ",", "data:;base64,!!!!",
     "data:image/png;base64,見"],
)  # fmt: skip
def test_no_size_is_invented(url: str) -> None:
    assert size_of_url(url) == UNKNOWN


@given(st.sampled_from(FORMATS), st.integers(0, 40), st.binary(max_size=60))
def test_any_bytes_are_safe(image, keep: int, rest: bytes) -> None:  # type: ignore[no-untyped-def]
    width, height = size_of_base64(base64.b64encode(image(10, 20)[:keep] + rest).decode())
    assert (width is None) == (height is None)
    assert width is None or (width > 0 and height is not None and height > 0)


def test_a_zero_size_is_unknown() -> None:
    assert size_of_base64(base64.b64encode(png(0, 5)).decode()) == UNKNOWN
