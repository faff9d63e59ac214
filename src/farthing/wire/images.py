"""
The size in pixels of an image that stands in a request as base64, read from its first bytes.

Pure; decodes no more of the image than its header needs. What cannot be read is (None, None), for which the formulas
hold their maximum.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

Size = tuple[int | None, int | None]
UNKNOWN: Size = (None, None)

_HEADER_CHARS = 256
_JPEG_CHARS = 1024 * 1024
"""A JPEG's size stands after its metadata; colour profiles and thumbnails can be long."""
_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})


def size_of_url(url: str) -> Size:
    """Width and height of a ``data:image/…;base64,…`` URL; unknown for any other URL."""
    head, comma, payload = url.partition(",")
    if not comma or head[:5].lower() != "data:" or not head.lower().endswith(";base64"):
        return UNKNOWN
    return size_of_base64(payload)


def size_of_base64(payload: str) -> Size:
    """Width and height of a PNG, JPEG, GIF or WebP in base64."""
    header = _decode_start(payload, chars=_HEADER_CHARS)
    if header[:3] == b"\xff\xd8\xff":
        return _jpeg(_decode_start(payload, chars=_JPEG_CHARS))
    if header[:8] == b"\x89PNG\r\n\x1a\n" and header[12:16] == b"IHDR":
        return _size(_big(header[16:20]), _big(header[20:24]))
    if header[:6] in (b"GIF87a", b"GIF89a"):
        return _size(_little(header[6:8]), _little(header[8:10]))
    if header[:4] == b"RIFF" and header[8:12] == b"WEBP":
        return _webp(header)
    return UNKNOWN


def _decode_start(payload: str, *, chars: int) -> bytes:
    start = "".join(payload[:chars].split())
    start = start.rstrip("=")
    start = start[: len(start) - len(start) % 4] if len(payload) > chars else start + "=" * (-len(start) % 4)
    try:
        return base64.b64decode(start.encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return b""  # not base64: a provider will refuse it, and its size is unknown


def _webp(header: bytes) -> Size:
    kind = header[12:16]
    if kind == b"VP8X":
        return _size(_little(header[24:27]) + 1, _little(header[27:30]) + 1) if len(header) >= 30 else UNKNOWN
    if kind == b"VP8L" and header[20:21] == b"\x2f":
        bits = _little(header[21:25])
        return _size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1) if len(header) >= 25 else UNKNOWN
    if kind == b"VP8 " and header[23:26] == b"\x9d\x01\x2a":
        return _size(_little(header[26:28]) & 0x3FFF, _little(header[28:30]) & 0x3FFF)
    return UNKNOWN


def _jpeg(start: bytes) -> Size:
    for marker, position in _jpeg_segments(start):
        if marker in _JPEG_SIZE_MARKERS:
            frame = start[position + 3 : position + 7]
            return _size(_big(frame[2:4]), _big(frame[0:2])) if len(frame) == 4 else UNKNOWN
    return UNKNOWN


def _jpeg_segments(start: bytes) -> Iterator[tuple[int, int]]:
    """Each segment's marker and where its length field stands, up to the image data."""
    position = 2
    while position + 4 <= len(start) and start[position] == 0xFF:
        marker = start[position + 1]
        if marker == 0xFF:  # padding
            position += 1
        elif marker in _JPEG_BARE_MARKERS:
            position += 2
        elif marker == 0xDA:
            return
        else:
            yield marker, position + 2
            position += 2 + max(2, _big(start[position + 2 : position + 4]))


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _size(width: int, height: int) -> Size:
    return (width, height) if width and height else UNKNOWN
