"""
Every HTTP route of the installed SDKs, read from their source: what they hand to their request methods.

``python -m tests.unit.wire.sdk_routes`` prints them with their verdicts, as ``sdk_routes.txt`` beside this file has
them. A route that a new release adds makes :mod:`.test_sdk_routes` fail: look at what it costs, give it a row in
``wire/routes.py``, and write the file anew.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from farthing.wire.recognise import recognise

_PLACEHOLDER = re.compile(r"\{+(\w+)\}+")
VERBS = frozenset({"get", "post", "put", "patch", "delete"})
STAINLESS = {"openai": "api.openai.com", "anthropic": "api.anthropic.com"}
"""SDKs whose resources call ``self._post("/path", …)``."""
GOOGLE = "generativelanguage.googleapis.com"
NAMES: dict[tuple[str, str], tuple[str, ...]] = {
    ("caches", "name"): ("cachedContents/c",),
    ("documents", "name"): ("fileSearchStores/s/documents/d",),
    ("documents", "parent"): ("fileSearchStores/s",),
    ("file_search_stores", "name"): ("fileSearchStores/s",),
    ("file_search_stores", "file_search_store_name"): ("fileSearchStores/s",),
    ("tunings", "name"): ("tuningJobs/t", "tunedModels/t"),
    ("tunings", "parent"): ("projects/p/locations/l",),
    ("operations", "operationName"): ("operations/o", "models/m/operations/o"),
    ("operations", "resourceName"): ("models/m",),
    ("models", "name"): ("models/m", "tunedModels/m", "publishers/google/models/m"),
    ("models", "models_url"): ("models", "tunedModels", "publishers/google/models"),
    ("*", "clean_id"): ("files/f",),
    ("*", "model"): ("models/m", "publishers/google/models/m"),
}
"""What google-genai's path templates are filled with, where that is more than one segment."""


class Route(NamedTuple):
    """A route as one SDK calls it."""

    sdk: str
    method: str
    path: str


def routes() -> list[Route]:
    """All routes of openai, anthropic and google-genai. Raises ValueError on a call whose path cannot be read."""
    found = {route for sdk in STAINLESS for route in _stainless(sdk)} | set(_google())
    return sorted(found)


def verdict(route: Route) -> str:
    """One line of the list: the route, its verdict, and the reason or the dialect."""
    found = recognise(route.method, STAINLESS.get(route.sdk, GOOGLE), route.path)
    return f"{route.sdk} {route.method} {route.path}: {found.verdict}, {found.reason}"


def _calls(folder: Path) -> Iterator[tuple[Path, ast.AST, ast.Call]]:
    """Every call in a folder's source, with the function that it stands in."""
    for file in sorted(folder.rglob("*.py")):
        tree = ast.parse(file.read_text())
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for node in ast.walk(function):
                    if isinstance(node, ast.Call):
                        yield file, function, node


def _folder(package: str) -> Path:
    return Path(importlib.import_module(package).__path__[0])


def _stainless(sdk: str) -> Iterator[Route]:
    for file, _, call in _calls(_folder(f"{sdk}.resources")):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if name not in ("_get_api_list", *(f"_{verb}" for verb in VERBS)):
            continue
        path = _text(call.args[0])
        if "batch.results_url" in ast.unparse(call.args[0]):
            path = "/v1/messages/batches/{id}/results"  # a URL that the API gave
        if path is None or not path.startswith("/"):
            raise ValueError(f"{file}:{call.lineno}: this path cannot be read: {ast.unparse(call.args[0])}")
        given = {keyword.arg: _text(keyword.value) for keyword in call.keywords}
        method = (given.get("method") or "get") if name == "_get_api_list" else name[1:]
        version = "" if path.startswith("/v1/") else "/v1"
        yield Route(sdk, method.upper(), version + path.partition("?")[0].replace("{", "").replace("}", ""))


def _google() -> Iterator[Route]:
    folder = _folder("google.genai")
    for file, function, call in _calls(folder):
        if "tests" in file.parts or file.name.startswith(("_replay", "_test")):
            continue
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if _name(call.func) in ("_build_request", "_build_request_async") and {"path", "method"} <= given.keys():
            path, method = _text(given["path"]), _text(given["method"])
            if path is None or method is None:
                raise ValueError(f"{file}:{call.lineno}: this route cannot be read")
            yield _google_route(method, path.lstrip("/"))
        verb = _text(call.args[0]) if call.args else None
        takes_path = len(call.args) > 1 and _name(call.func).endswith(("request", "request_streamed"))
        if _name(call.func).endswith("download_file"):
            verb = "get"
        elif not takes_path or _name(call.args[1]) != "path":
            continue
        if verb in VERBS:
            for template in sorted(set(_paths_in(function))):
                for path in _filled(file.stem, template):
                    yield _google_route(verb, path)


def _google_route(method: str, path: str) -> Route:
    path = path.replace("{{", "{").replace("}}", "}").partition("?")[0]
    version = "" if "{api_version}" in path else "/v1beta"
    path = f"{version}/{path}".replace("{api_version}", "v1beta")
    return Route("google-genai", method.upper(), path.replace("{", "").replace("}", ""))


def _paths_in(function: ast.AST) -> Iterator[str]:
    """The templates that a function assigns to ``path``."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and _name(node.targets[0]) in ("path", "endpoint_url"):
            template = _text(node.value)
            # A query that is added to a path, or a template that is filled.
            if template is not None and not template.startswith("{path}"):
                yield template


def _filled(module: str, template: str) -> Iterator[str]:
    """The template with each name replaced that stands for more than a segment, in every way."""
    filled = [template]
    for name in _PLACEHOLDER.findall(template):
        values = NAMES.get((module, name)) or NAMES.get(("*", name)) or (name,)
        if name != "api_version":
            filled = [one.replace("{" + name + "}", value) for one in filled for value in values]
    return iter(filled)


def _text(node: ast.AST) -> str | None:
    """A literal, the template of ``path_template("…")``, or an f-string with its values in braces."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Call) and node.args and _name(node.func) in ("path_template", "maybe_transform"):
        return _text(node.args[0])
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{" + ast.unparse(part.value) + "}"  # type: ignore[attr-defined]
            for part in node.values
        )
    return None


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


if __name__ == "__main__":
    print("\n".join(map(verdict, routes())))
