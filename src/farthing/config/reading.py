"""
From a text to a :class:`Configuration`, or to one ConfigError that names everything that is wrong: file, line and key.

Each table is read by itself, so that one mistake does not hide the next.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import ValidationError

from ..admin.trust import IDENTITY_TAGS, escapable, known_tags
from ..errors import ConfigError
from ..kernel.balances import UNITS
from ..kernel.budget import Budget, make_budget
from ..prices.registry import registered
from ..proxy.settings import DEFAULT_UPSTREAMS, Bounds, ProxySettings, Timeouts, Upstream
from ..runtime.settings import Settings
from ..stores import path_in, url_of
from ..tokens.models import check_one_provider
from .document import BudgetTable, Document, PriceTable, ProxyTable, SettingsTable, Table, UpstreamTable, is_secret
from .environment import overrides, unknown
from .locating import Path, line_of, lines_of

T = TypeVar("T")
A_TABLE = TypeVar("A_TABLE", bound=Table)


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration, whole and checked."""

    source: str
    """What its budgets are owned by: the file's name for itself, or its path."""
    file: str | None
    """The path as it was given; None for a mapping."""
    given: Mapping[str, Any]
    """The settings that the file or the environment names; the others stay as they are."""
    budgets: tuple[Budget, ...]
    prices: Mapping[str, Mapping[str, Any]]
    """The arguments of :func:`farthing.prices.register`, by model or pattern."""
    proxy: ProxySettings = field(repr=False)


def read(
    document: Mapping[str, Any],
    *,
    source: str,
    file: str | None = None,
    text: str = "",
    environ: Mapping[str, str],
    for_proxy: bool,
) -> Configuration:
    """
    Check a parsed document, the environment's word on top.

    Args:
        source: what owns its budgets, if it has no ``name`` of its own: of a file, its absolute path.
        file: for messages. *text* is its content, for their lines.
        for_proxy: a proxy will run on it: ``"env:NAME"`` is taken from the environment, and no budget may be on a tag
            that callers choose themselves.

    Raises ConfigError with every mistake.
    """
    reading = _Reading(document, source=source, file=file, text=text, environ=environ, for_proxy=for_proxy)
    return reading.configuration()


def parse(text: str, *, file: str) -> dict[str, Any]:
    """The TOML document of a text. Raises ConfigError with its line."""
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        reason = str(error)[: at.start()] if at else str(error)
        line = int(at[1]) if at and at[1] else len(text.splitlines())
        raise ConfigError(reason, key="TOML", file=file, line=line) from None


class _Reading:
    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        source: str,
        file: str | None,
        text: str,
        environ: Mapping[str, str],
        for_proxy: bool,
    ) -> None:
        self._source = source
        self._file = file
        self._lines = lines_of(text)
        self._folder = FilePath(source).parent if file is not None else None
        self._environ = environ
        self._for_proxy = for_proxy
        self._document = _copied(document)
        self._variables: dict[Path, str] = {}
        self._mistakes: list[ConfigError] = []
        for override in overrides(environ, document):
            if override.problem is not None:
                self._mistakes.append(ConfigError(override.problem, key=override.variable))
            else:
                self._variables[override.path] = override.variable
                self._put(override.path, override.value, override.variable)

    def configuration(self) -> Configuration:
        for key in self._document:
            if key not in Document.model_fields:
                self._wrong((key,), unknown(key, Document))
        name = self._document.get("name")
        if name is not None and (not isinstance(name, str) or not name.strip()):
            self._wrong(("name",), f"must be text, not {name!r}")
        source = name if isinstance(name, str) else self._source
        given = self._settings()
        upstreams = self._upstreams()
        budgets, prices = self._budgets(source), self._prices()
        proxy = replace(self._proxy(given, upstreams), budgets=budgets, source=source, prices=prices)
        found = Configuration(source, self._file, given, budgets, prices, proxy)
        if self._mistakes:
            raise together(self._mistakes)
        return found

    # -- tables --------------------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        written = {key: self._document[key] for key in SettingsTable.model_fields if key in self._document}
        table = self._checked(SettingsTable, written, ())
        given: dict[str, Any] = {}
        if table is None:
            return given
        for key, value in _said_in(table).items():
            given[key] = None if value == "none" and key in ("max_records", "stale_prices_after_days") else value
            if key == "ledger":
                if self._made((key,), lambda: (path_in(value),)) is None:  # noqa: B023 - called at once
                    del given[key]
                    continue
                given[key] = value if url_of(value) == value else self._path_of((key,), value)
            if self._made((), lambda key=key: Settings().changed(**{key: given[key]})) is None:  # type: ignore[misc]
                del given[key]
        return given

    def _budgets(self, source: str) -> tuple[Budget, ...]:
        written = self._document.get("budgets", [])
        if not isinstance(written, list):
            self._wrong(("budgets",), "must be written [[budgets]], once for each budget")
            return ()
        found: dict[str, Budget] = {}
        for number, terms in enumerate(written):
            path: Path = ("budgets", number)
            table = self._checked(BudgetTable, terms, path)
            if table is None:
                continue
            arguments = {key: value for key, value in _said_in(table).items() if value not in ({}, [])}
            # A limit that could not be read is not one that is missing.
            arguments.update({unit: 1 for unit in UNITS if unit in terms and unit not in table.model_fields_set})
            budget = self._made(path, lambda arguments=arguments: _budget(arguments))  # type: ignore[misc]
            if budget is not None and budget.name in found:
                self._wrong(
                    (*path, "name"), f"{budget.name!r} stands above already: a budget has one name and one table"
                )
            elif budget is not None:
                self._trust(budget, path)
                found[budget.name] = replace(budget, standing=True, defined_by=source)
        return tuple(found.values())

    def _trust(self, budget: Budget, path: Path) -> None:
        """No budget of a proxy on a tag that its callers choose themselves, unless that is said to be meant."""
        if not self._for_proxy:
            return
        tables = self._document.get("upstreams", {})
        upstreams = tables.values() if isinstance(tables, dict) else ()
        lists = [table.get("trusted_tags") for table in upstreams if isinstance(table, dict)]
        lists.append(self._at(("proxy", "identity_tags")))
        known = known_tags(tag for tags in lists if isinstance(tags, list) for tag in tags)
        for key, tag in escapable(dict(budget.scope), budget.each, known):
            self._wrong(
                (*path, key),
                f"callers choose tag {tag!r} themselves, so a budget on it could be escaped. Use one that "
                f"comes from their key ({', '.join(IDENTITY_TAGS)}). If your keys carry it, say "
                f"identity_tags = [{tag!r}] under [proxy]; if callers are trusted with it, "
                f"trusted_tags = [{tag!r}] at an upstream",
            )

    def _prices(self) -> dict[str, dict[str, Any]]:
        found = {}
        for model, table in self._tables("prices", PriceTable):
            arguments = _said_in(table)
            if self._made(("prices", model), lambda: registered(model, **arguments)) is not None:  # noqa: B023 - at once
                found[model] = arguments
        return found

    def _upstreams(self) -> tuple[Upstream, ...]:
        found = []
        prefixes: dict[str, str] = {}
        for name, table in self._tables("upstreams", UpstreamTable):
            path = ("upstreams", name)
            terms = _said_in(table)
            terms["api_key"] = self._secret((*path, "api_key"), table.api_key)
            timeouts = self._made(path, lambda: _taken(Timeouts, terms))  # noqa: B023 - called at once
            for key in terms.keys() & {"speaks", "models", "trusted_tags"}:
                terms[key] = tuple(terms[key])
            for key in terms.keys() & {"ca_file", "cert_file", "key_file"}:
                terms[key] = self._path_of((*path, key), terms[key])
            upstream = self._made(
                path,
                lambda: _taken(Upstream, {**terms, "name": name, "timeouts": timeouts or Timeouts()}),  # noqa: B023 - called at once
            )
            if upstream is not None:
                other = prefixes.setdefault(upstream.prefix, name) if upstream.prefix else name
                if other != name:
                    self._wrong((*path, "prefix"), f"is that of {other!r} above already: nothing would reach this one")
                if self._for_proxy:
                    self._made(path, upstream.check_files)
                found.append(upstream)
        return tuple(found)

    def _proxy(self, given: dict[str, Any], upstreams: tuple[Upstream, ...]) -> ProxySettings:
        table = self._checked(ProxyTable, self._document.get("proxy", {}), ("proxy",))
        if table is None:
            return ProxySettings()
        terms = _said_in(table)
        bounds = self._made(("proxy",), lambda: _taken(Bounds, terms))
        terms.update(
            calls=Settings().changed(**given), upstreams=upstreams or DEFAULT_UPSTREAMS, bounds=bounds or Bounds()
        )
        return self._made(("proxy",), lambda: _taken(ProxySettings, terms)) or ProxySettings()

    def _tables(self, key: str, kind: type[A_TABLE]) -> list[tuple[str, A_TABLE]]:
        written = self._document.get(key, {})
        if not isinstance(written, dict):
            self._wrong((key,), f"must be tables, each written [{key}.NAME]")
            return []
        read_tables = [(name, self._checked(kind, terms, (key, name))) for name, terms in written.items()]
        return [(name, table) for name, table in read_tables if table is not None]

    # -- pieces --------------------------------------------------------------------------------------------------

    def _checked(
        self, kind: type[A_TABLE], written: object, path: Path, *, besides: frozenset[str] = frozenset()
    ) -> A_TABLE | None:
        """The table, its types checked; None, and the mistakes noted, if they are wrong. *besides*: keys that were."""
        if not isinstance(written, dict):
            self._wrong(path, "must be a table")
            return None
        try:
            return kind.model_validate(written)
        except ValidationError as error:
            wrong: set[str] = set()
            said: dict[Path, str] = {}
            for detail in error.errors(include_url=False, include_context=False):
                inside = tuple(part for part in detail["loc"] if not _is_type(part))
                key = str(inside[0]) if inside else ""
                wrong.add(key)
                # Of what may be one of two types, the last one's word: it has both.
                said[inside] = _said(detail, kind, key, secret=is_secret(kind, key))
            for inside, reason in said.items():
                if not (inside and str(inside[0]) in besides):
                    self._wrong((*path, *inside), reason)
        if not wrong & written.keys():
            return None
        # One mistake must not hide the next: the rest of the table is looked at without those keys.
        others = {key: value for key, value in written.items() if key not in wrong}
        return self._checked(kind, others, path, besides=besides | wrong)

    def _made(self, path: Path, make: Callable[[], T]) -> T | None:
        """What it makes; None, and the mistake noted under the key that it names, if that is refused."""
        try:
            return make()
        except ConfigError as error:
            key = error.key.rpartition(".")[2]
            self._wrong((*path, key) if path[-1:] != (key,) else path, error.reason)
        except ValueError as error:
            word = re.match(r"\w+", str(error))
            key = word[0] if word else ""
            if self._has((*path, key)):
                self._wrong((*path, key), str(error).removeprefix(f"{key}: "))
            else:
                self._wrong(path, str(error))
        return None

    def _secret(self, path: Path, value: str | None) -> str | None:
        if value is None or not value.startswith("env:"):
            return value
        if not self._for_proxy:
            return None
        variable = value.removeprefix("env:").strip()
        found = self._environ.get(variable, "").strip()
        if not found:
            self._wrong(path, f"takes its value from the environment variable {variable}, which is not set")
        return found or None

    def _path_of(self, path: Path, value: str) -> str:
        """A path in a file is meant from where the file stands, whoever reads it from wherever."""
        if self._folder is None or path in self._variables:
            return value
        return str(self._folder / FilePath(value).expanduser())

    def _has(self, path: Path) -> bool:
        return path in self._lines or path in self._variables or self._at(path) is not None

    def _at(self, path: Path) -> Any:
        found: Any = self._document
        for key in path:
            if isinstance(found, dict):
                found = found.get(str(key))
            elif isinstance(found, list) and isinstance(key, int) and key < len(found):
                found = found[key]
            else:
                return None
        return found

    def _put(self, path: Path, value: Any, variable: str) -> None:
        """Set a key that the environment names, making the tables on the way."""
        here: Any = self._document
        for key, following in pairwise(path):
            if isinstance(here, list) and isinstance(key, int):
                if key == len(here):
                    here.append({})
                here = here[key]
            else:
                here = here.setdefault(key, [] if isinstance(following, int) else {})
            if not isinstance(here, (dict, list)):
                self._mistakes.append(ConfigError(f"{key} is not a table in the file", key=variable))
                return
        here[path[-1]] = value

    def _wrong(self, path: Path, reason: str) -> None:
        for end in range(len(path), 0, -1):
            if variable := self._variables.get(path[:end]):
                self._mistakes.append(ConfigError(reason, key=variable))
                return
        key = self._written(path) or "budgets"
        self._mistakes.append(ConfigError(reason, key=key, file=self._file, line=line_of(self._lines, path)))

    def _written(self, path: Path) -> str:
        """A path as people write it; budgets by their name."""
        parts = [str(part) for part in path]
        if len(path) > 1 and path[0] == "budgets":
            name = self._at((*path[:2], "name"))
            parts[1] = name if isinstance(name, str) else f"[{path[1]}]"
        return ".".join(parts)


def together(mistakes: list[ConfigError]) -> ConfigError:
    """One error of several: in the order of the file, each once."""
    unique = {str(mistake): mistake for mistake in mistakes}
    first, *others = sorted(unique.values(), key=lambda mistake: mistake.line or 0)
    return ConfigError(first.reason, key=first.key, file=first.file, line=first.line, others=tuple(others))


def _said_in(table: Table) -> dict[str, Any]:
    """The keys that were written: the defaults of the others are those of what the table becomes."""
    return {key: getattr(table, key) for key in type(table).model_fields if key in table.model_fields_set}


def _taken(kind: type[T], terms: Mapping[str, Any]) -> T:
    """Made of those terms that it has; the others are another's."""
    names = {of.name for of in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in terms.items() if key in names})


def _budget(arguments: dict[str, Any]) -> Budget:
    budget = make_budget(**arguments)
    check_one_provider(budget.downgrade)
    return budget


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value


_TYPES = {
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "list_type": 'a list such as ["a", "b"]',
    "dict_type": 'an inline table such as { a = "b" }',
    "literal_error": 'an integer, or "none"',
    "finite_number": "a finite number",
}


def _is_type(part: object) -> bool:
    """Whether a part of pydantic's location names a branch of a union, and no key."""
    return isinstance(part, str) and (part in ("int", "str") or "[" in part)


def _said(detail: Mapping[str, Any], kind: type[Table], key: str, *, secret: bool) -> str:
    """What is wrong with a value, in a person's words; never the value of a secret."""
    if detail["type"] == "extra_forbidden":
        return unknown(key, kind)
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"] == "value_error":
        return str(detail["msg"]).removeprefix("Value error, ")
    shown = "" if secret else f", not {_plain(detail['input'])!r}"
    return f"must be {_TYPES.get(detail['type'], detail['msg'])}{shown}"


def _plain(value: object) -> object:
    return float(value) if isinstance(value, Decimal) else value
