"""Lines of the log: each is one line, whatever callers called their models and tags."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy import log


@pytest.mark.parametrize("log_format", ["text", "json"])
@given(text=st.text())
def test_every_record_is_one_line(log_format: str, text: str) -> None:
    said = io.StringIO()
    handler = log.to_stream(log_format, said)
    try:
        log.say_refused(f"/v1/{text}", 400, "code", f"about {text}")
        log.logger.warning("%s", text)
    finally:
        for name in ("farthing", "uvicorn"):
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).propagate = True
    lines = said.getvalue().split("\n")
    assert len(lines) == 3
    assert lines[2] == ""
    assert all(line.isprintable() for line in lines)
    if log_format == "json":
        assert json.loads(lines[0])["path"] == f"/v1/{text}"
    if text.isprintable():
        assert text in "".join(lines) or log_format == "json"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_path_makes_a_line_long(log_format: str) -> None:
    said = io.StringIO()
    handler = log.to_stream(log_format, said)
    path = f"/v1/{'a' * 60_000}"
    try:
        log.say_refused(path, 403, "unmetered_route", f"GET {path} was not sent")
        log.say_passed("GET", path, 200, "openai", "costs no tokens")
        log.say_unmetered("GET", path, "openai", "not metered yet")
    finally:
        for name in ("farthing", "uvicorn"):
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).propagate = True
    lines = said.getvalue().splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) < 5_000
    assert "…" in lines[0]
