"""The OpenAPI description of the admin API, made from its table of routes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from .admin import Route

_PARAMETERS = {
    "name": "The budget's name.",
    "id": "An id, as lists show it.",
    "since": "A date, an ISO time (UTC) or a span back from now (7d).",
    "until": "Up to, but not including, this instant.",
    "after": "Only rows with a larger seq.",
    "limit": "How many rows at most.",
    "group_by": "Tags, or model, provider, budget, day, hour; separated by commas.",
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
                "farthing": {"type": "object", "description": "The evidence."},
            },
        }
    },
}


def description(routes: Iterable[Route]) -> dict[str, Any]:
    """OpenAPI 3.1."""
    routes = tuple(routes)
    bodies = tuple(dict.fromkeys(route.body for route in routes if route.body is not None))
    schemas, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(bodies, schemas, strict=True))
    paths: dict[str, Any] = {}
    for route in routes:
        schema = None if route.body is None else schema_of[route.body]
        paths.setdefault(f"/admin/{route.path}", {})[route.method.lower()] = _operation(route, schema)
    paths["/admin/reload"] = {
        "post": _described("reload", "Read the configuration file again, soon; the log says what came of it.", 202),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "farthing admin API",
            "version": "1",
            "description": "Budgets, holds, keys and entries of one ledger. Money is US dollars as decimal text.",
        },
        "security": [{"admin_key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"admin_key": {"type": "http", "scheme": "bearer"}},
            "schemas": {**components, "Error": _ERROR},
        },
    }


def _operation(route: Route, schema: Any) -> dict[str, Any]:
    operation = _described(_operation_id(route), route.summary, route.status)
    in_path = re.findall(r"{(\w+)}", route.path)
    parameters = [_parameter(name, "path") for name in in_path] + [_parameter(name, "query") for name in route.query]
    if parameters:
        operation["parameters"] = parameters
    if schema is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _described(operation_id: str, summary: str, status: int) -> dict[str, Any]:
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    return {
        "operationId": operation_id,
        "summary": summary,
        "responses": {
            str(status): {"description": "Done.", "content": {"application/json": {"schema": {"type": "object"}}}},
            "400": {"description": "What was sent cannot be used.", **error},
            "401": {"description": "No key, or one that is not good.", **error},
            "403": {"description": "The key is not an admin key.", **error},
            "503": {"description": "The ledger does not answer.", **error},
        },
    }


def _parameter(name: str, where: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": _PARAMETERS[name],
        "schema": {"type": "integer" if name in ("after", "limit") else "string"},
    }


def _operation_id(route: Route) -> str:
    """``set_budget`` for the function ``_set_budget``."""
    return route.run.__name__.lstrip("_")
