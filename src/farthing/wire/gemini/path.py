"""
Gemini's paths: the model and the method stand there, ``…/models/MODEL:METHOD``.

Also of tuned models (``tunedModels/ID``), and on Vertex AI of deployed ones (``…/endpoints/ID``), which keep those
words in their name: no price table knows them.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote, unquote

_MODEL = re.compile(
    r"(?P<kind>models|tunedModels|endpoints)/(?P<name>[^/:?#]+):(?P<method>[A-Za-z]+)(?:\?(?P<query>.*))?$"
)

_PAIR = re.compile(r"[^&;]+")


def model_in(path: str) -> str:
    """
    The model that a path names. Raises ValueError if it names none; and if its query asks for a part of the answer
    only, as any of Google's may (cloud.google.com, "System parameters"): what it cost could be left out.
    """
    found = _MODEL.search(path)
    if found is None:
        raise ValueError("the path names no model")
    for pair in _PAIR.findall(found["query"] or ""):
        name = unquote(pair.partition("=")[0])
        if name.lower() in ("fields", "$fields"):
            raise ValueError(f"{name} in the query would leave out of the answer what it cost: ask for all of it")
    return found["name"] if found["kind"] == "models" else f"{found['kind']}/{found['name']}"


def other_model(path: str, model: str) -> str | None:
    """The path with another model; None if it names none."""
    found = _MODEL.search(path)
    if found is None:
        return None
    *_, kind, name = ("models", *model.split("/"))
    return f"{path[: found.start('kind')]}{kind}/{quote(name, safe='@')}{path[found.end('name') :]}"


def other_model_name(named: str, model: str) -> str:
    """A name as it stands in a body, of another model: ``models/a`` → ``models/b``."""
    return model if "/" in model else named.rpartition("/")[0] + "/" * ("/" in named) + model


def streams(path: str) -> tuple[bool, bool]:
    """Whether the answer is a stream, and whether that is server-sent events."""
    found = _MODEL.search(path)
    if found is None or found["method"] != "streamGenerateContent":
        return False, True
    query = parse_qs(found["query"] or "")
    return True, "sse" in (*query.get("alt", ()), *query.get("$alt", ()))
