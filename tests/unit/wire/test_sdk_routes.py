"""
Goal: no endpoint of an SDK is a bypass, nor refused by oversight: every route that the installed packages can call has
a row that a person wrote, and a release with a new one fails here until it has been looked at.
Method: the routes are read from the packages' source, and compared with the reviewed list beside this file.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from farthing.wire.routes import ROUTES, Row

from .sdk_routes import STAINLESS, Route, routes, verdict

OWN = {*STAINLESS, "google"}
LIST = Path(__file__).parent / "sdk_routes.txt"


@pytest.fixture(scope="module")
def found() -> list[Route]:
    return routes()


def test_every_route_of_the_sdks_was_reviewed(found: list[Route]) -> None:
    reviewed, installed = LIST.read_text().splitlines(), [verdict(route) for route in found]
    changes = list(difflib.unified_diff(reviewed, installed, "reviewed", "installed", lineterm="", n=0))
    assert reviewed == installed, "\n".join(["review these, then see sdk_routes.py:", *changes])


def test_every_route_of_the_sdks_stands_in_a_row(found: list[Route]) -> None:
    assert [verdict(route) for route in found if "no meter is known" in verdict(route)] == []


@pytest.mark.parametrize(("sdk", "least"), [("openai", 200), ("anthropic", 150), ("google-genai", 90)])
def test_the_routes_were_found(found: list[Route], sdk: str, least: int) -> None:
    """A package that calls its methods by other names must not look as if it had no routes."""
    assert sum(route.sdk == sdk for route in found) >= least


def test_what_calls_models_is_never_free(found: list[Route]) -> None:
    """
    A second look at what is free to send: no word in it that names a billed thing, unless it ends, counts or describes
    one.
    """
    billed = (
        "completions", "responses", "embeddings", "images", "audio", "realtime", "batch", "threads", "videos", "live",
        "sessions", "agents", "generate", "predict", "embed", "tun", "messages", "runs", "jobs",
    )  # fmt: skip
    harmless = (
        "/cancel", ":cancel", "/pause", "/archive", "okens", "/permissions", "fetchPredictOperation",
        "chat/completions/completion_id",
    )  # fmt: skip
    for route in found:
        if route.method != "POST" or ": free" not in verdict(route) or "administration" in verdict(route):
            continue
        assert route.path.endswith(harmless) or not any(word in route.path for word in billed), route


def test_the_three_providers_metered_routes_are_these() -> None:
    metered = {(row.provider, row.path) for row in ROUTES if row.verdict == "metered" and row.provider in OWN}
    assert metered == {
        *(("openai", path) for path in (
            "chat/completions", "responses", "completions", "embeddings", "images/generations", "images/edits",
        )),
        ("anthropic", "messages"),
        *(("google", f"{kind}/*:{method}") for kind in ("models", "tunedModels", "endpoints")
          for method in ("generateContent", "streamGenerateContent")),
        *(("google", f"models/*:{method}") for method in ("embedContent", "batchEmbedContents")),
    }  # fmt: skip


def test_no_row_stands_twice() -> None:
    def key(row: Row) -> tuple[str, str, str]:
        return row.provider, row.methods, row.path

    keys = [key(row) for row in ROUTES]
    assert len(set(keys)) == len(keys)
    assert all(row.note for row in ROUTES)
