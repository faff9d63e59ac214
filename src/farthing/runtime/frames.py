"""Whose line a warning is about: not ours, nor that of an SDK between."""

from __future__ import annotations

import os
import sys
import sysconfig
from types import FrameType

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PATHS = sysconfig.get_paths()
_LIBRARIES = tuple({_PATHS[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def frames_to_user() -> int:
    """
    The ``stacklevel`` for a warning that the calling function gives: the innermost frame of a program, which is neither
    in this package nor installed; the innermost outside of this package where all of them are installed.
    """
    frame: FrameType | None = sys._getframe(1)
    level, outside = 1, 0
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_PACKAGE):
            if not file.startswith((*_LIBRARIES, "<frozen ")):
                return level
            outside = outside or level
        frame, level = frame.f_back, level + 1
    return outside or 1
