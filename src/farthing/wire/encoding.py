"""Content encodings of answers: what is metered is a decoded copy. Those of the standard library; others stay as is."""

from __future__ import annotations

import zlib

_WINDOW = {b"gzip": 47, b"x-gzip": 47, b"deflate": 47}
MAX_DECODED_BYTES = 256 * 1024 * 1024
"""More than any answer: a body that decodes to more than this is left as it is."""


class Decoder:
    """One body with a content encoding, piece by piece."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._inflate: zlib._Decompress | None = None
        self._left = MAX_DECODED_BYTES

    def feed(self, data: bytes) -> bytes:
        """The decoded bytes of one more piece. Raises ValueError on a damaged body."""
        decoded = []
        while data:
            inflate = self._inflate
            if inflate is None or inflate.eof:
                # The first, or one more of those that a body may be put together from.
                inflate = self._inflate = zlib.decompressobj(self._window)
            try:
                piece = inflate.decompress(data, self._left)
            except zlib.error as error:
                raise ValueError(f"the answer's content encoding is damaged: {error}") from error
            self._left -= len(piece)
            if self._left <= 0:
                raise ValueError("the answer is larger than anything that could be metered")
            decoded.append(piece)
            data = inflate.unused_data
        return b"".join(decoded)

    def end(self) -> None:
        """The body is over. Raises ValueError if its encoding is not: something is missing."""
        if self._inflate is not None and not self._inflate.eof:
            raise ValueError("the answer's content encoding has no end")


def decoder_of(encoding: bytes) -> Decoder | None:
    """The decoder for a content encoding, written in lower case; None for one that nobody here has, and for none."""
    window = _WINDOW.get(encoding)
    return None if window is None else Decoder(window)


def decoded(encoding: bytes, body: bytes) -> bytes:
    """A whole body without its content encoding; as it is where that cannot be taken off."""
    decoder = decoder_of(encoding)
    if decoder is None:
        return body
    try:
        return decoder.feed(body)
    except ValueError:
        # The client will meet the same damage; what cannot be read is counted as it was held.
        return body
