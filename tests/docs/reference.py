"""The pages of docs/reference, made from the program itself: see scripts/make-reference."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import pairwise
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from typer.main import get_command

import farthing
from farthing.cli.app import app
from farthing.cli.failing import EXIT_CODES
from farthing.cli.helping import EXAMPLES
from farthing.config.document import BudgetTable, Document, PriceTable, ProxyTable, SettingsTable, Table, UpstreamTable

MADE = "<!-- Made by scripts/make-reference: change what it is made from. -->"

# -- configuration ---------------------------------------------------------------------------------------------------

_CONFIGURATION = f"""{MADE}
# Configuration: `farthing.toml`

One file for the library and the proxy. `configure("farthing.toml")` takes its settings, prices and budgets over in a
program; `farthing serve --config farthing.toml` runs a proxy on it, and reads it again on SIGHUP. How to use it:
[configure from a file](../howto/configuration.md).

Every key may also be an environment variable, which wins over the file: `FARTHING_` and the key's path in capitals,
its parts joined by `__`, such as `FARTHING_LEDGER`, `FARTHING_PROXY__PORT`, `FARTHING_UPSTREAMS__OPENAI__API_KEY`. A
budget is named there by its number from 0, or by its name with `_` for what a variable's name cannot have:
`FARTHING_BUDGETS__SEARCH_TEAM__USD`. In a program without a file only the keys at the top are read from there;
`farthing serve` reads them all.

A value `"env:NAME"` of a key that is marked *secret* is taken from the environment variable `NAME`, and never printed.
An unknown key, a wrong type or an unusable value is an error that names file, line and key; all of them are named at
once.
"""


def configuration() -> str:
    parts = [_CONFIGURATION]
    top = {**SettingsTable.model_fields, "name": Document.model_fields["name"]}
    parts.append(_keys("At the top of the file", SettingsTable, top, "FARTHING_"))
    tables: tuple[tuple[str, type[Table], str], ...] = (
        ("`[[budgets]]`", BudgetTable, "FARTHING_BUDGETS__0__"),
        ("`[upstreams.NAME]`", UpstreamTable, "FARTHING_UPSTREAMS__NAME__"),
        ('`[prices."MODEL"]`', PriceTable, "FARTHING_PRICES__MODEL__"),
        ("`[proxy]`", ProxyTable, "FARTHING_PROXY__"),
    )
    parts += [_keys(title, table, dict(table.model_fields), prefix) for title, table, prefix in tables]
    return "\n".join(parts)


def _keys(title: str, table: type[Table], keys: dict[str, FieldInfo], prefix: str) -> str:
    lines = [f"## {title}\n", inspect.cleandoc(table.__doc__ or ""), ""]
    lines += [f"Environment: `{prefix}…`.\n", "| key | type | default | |", "|---|---|---|---|"]
    for name, field in keys.items():
        secret = " *Secret.*" if isinstance(field.json_schema_extra, dict) else ""
        default = "*required*" if field.is_required() else _toml(field.get_default(call_default_factory=True))
        lines.append(f"| `{name}` | {_type(field.annotation)} | {default} | {_cell(field.description or '')}{secret} |")
    return "\n".join([*lines, ""])


def _type(annotation: Any) -> str:
    names = {str: "text", int: "integer", float: "number", bool: "true, false", Decimal: "USD"}
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in get_args(annotation) if part is not type(None)))
    if get_origin(annotation) is Literal:
        return " or ".join(f'`"{value}"`' for value in get_args(annotation))
    if get_origin(annotation) is list:
        return f"list of {_type(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return f"table of {_type(get_args(annotation)[1])}"
    if hasattr(annotation, "__metadata__"):
        return _type(get_args(annotation)[0])
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _toml(value: object) -> str:
    if value is None or value in ([], {}, ""):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


# -- command line ----------------------------------------------------------------------------------------------------


def command_line() -> str:
    root = get_command(app)
    lines = [
        MADE,
        "# Command line",
        "",
        inspect.cleandoc(root.help or ""),
        "",
        "`--ledger` (or `FARTHING_LEDGER`) names the ledger, a path or a URL; without it a command works on your own.",
        "`farthing --install-completion` lets your shell complete commands and options.",
        "",
        EXIT_CODES,
        "",
    ]
    for path, command in _commands(root):
        if hasattr(command, "commands"):
            continue
        lines += [f"## `farthing {' '.join(path)}`", "", _paragraphs(command.help or ""), ""]
        arguments = [of for of in command.params if of.param_type_name == "argument"]
        options = [of for of in command.params if of.param_type_name == "option"]
        lines += ["| | |", "|---|---|"]
        for of in arguments:
            lines.append(f"| `{of.metavar or of.name.upper()}` | {_cell(of.help or '')} |")
        for of in options:
            lines.append(f"| {_option(of)} | {_cell(_help(of))} |")
        # Shown, not run here: tests/unit/cli/test_help.py runs each of them where what they name is there.
        examples = textwrap.dedent(command.epilog.partition(f"{EXAMPLES}\n")[2].partition("\n\n")[0])
        lines += ["", "```text", examples, "```", ""]
    return "\n".join(lines)


def _paragraphs(text: str) -> str:
    return "\n\n".join(textwrap.fill(paragraph, 120) for paragraph in text.split("\n\n"))


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in getattr(group, "commands", {}).items():
        yield (*path, name), command
        yield from _commands(command, (*path, name))


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    return names if option.is_flag else _cell(f"{names} `{option.metavar or option.name.upper()}`")


def _help(option: Any) -> str:
    more = []
    if option.envvar:
        more.append(f"Environment: `{option.envvar}`.")
    plain = (str, int, float)
    default = option.default
    if isinstance(default, plain) and not isinstance(default, bool) and option.show_default is not False:
        more.append(f"Default: `{default}`.")
    return " ".join([option.help or "", *more])


# -- Python ----------------------------------------------------------------------------------------------------------

_PYTHON = f"""{MADE}
# Python

What `farthing` has to import. Everything loads when it is first used: `import farthing` itself is cheap.
"""


def python() -> str:
    lines = [_PYTHON]
    errors, others = [], []
    for name in farthing.__all__:
        value = getattr(farthing, name)
        (errors if inspect.isclass(value) and issubclass(value, Exception) else others).append((name, value))
    for name, value in others:
        lines += _entry(name, value)
    lines += ["# Errors and warnings\n"]
    for name, value in errors:
        lines += _entry(name, value)
    return "\n".join(lines).rstrip() + "\n"


def _entry(name: str, value: Any) -> list[str]:
    if inspect.ismodule(value):
        lines = [f"## Module `{name}`", "", _markdown(value.__doc__), ""]
        for inner in getattr(value, "__all__", ()):
            found = getattr(value, inner)
            if callable(found):
                lines += [f"**`{name}.{inner}{_signature(found)}`**", "", _first(found.__doc__), ""]
        return lines
    if not inspect.isclass(value):
        return [f"## `{name}{_signature(value)}`", "", _markdown(value.__doc__), ""]
    lines = [f"## `{name}`", "", _markdown(value.__doc__), ""]
    lines += [f"- `.{inner}`: {_first(text)}" for inner, text in _attributes(value)]
    for inner, found in vars(value).items():
        if inner.startswith("_"):
            continue
        if isinstance(found, property) and found.__doc__:
            lines.append(f"- `.{inner}`: {_first(found.__doc__)}")
        elif inspect.isfunction(found) and found.__doc__:
            lines.append(f"- `.{inner}{_signature(found)}`: {_first(found.__doc__)}")
    return [*lines, ""] if lines[-1] else lines


def _attributes(kind: type) -> Iterator[tuple[str, str]]:
    """Fields with a docstring below them."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    for of, following in pairwise(body.body):
        field = of.target.id if isinstance(of, ast.AnnAssign) and isinstance(of.target, ast.Name) else "_"
        words = following.value if isinstance(following, ast.Expr) else None
        if not field.startswith("_") and isinstance(words, ast.Constant):
            yield field, str(words.value)


def _signature(value: Callable[..., Any]) -> str:
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    parameters = [
        of.replace(annotation=inspect.Parameter.empty)
        for of in signature.parameters.values()
        if of.name != "self" and not of.name.startswith("_")
    ]
    text = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    # Objects as defaults would be shown with their addresses.
    return re.sub(r"=<[^<>]*(?:<[^<>]*>[^<>]*)*>", "=…", text)


def _first(docstring: str | None) -> str:
    return _markdown(docstring).partition("\n\n")[0].replace("\n", " ")


def _markdown(docstring: str | None) -> str:
    """A docstring as Markdown: code blocks after ``::``, ``Args:`` as a list, roles as plain names."""
    text = inspect.cleandoc(docstring or "")
    # Without the modules, with the class: `PriceBook.rates`. With ~ its last name alone.
    text = re.sub(r":\w+:`(?:~[\w.]*\.|\.*(?:[a-z_]\w*\.)*)([\w.]+)`", r"`\1`", text)
    lines: list[str] = []
    block: list[str] | None = None
    in_args = False
    for line in [*text.replace("``", "`").split("\n"), ""]:
        indented = line.startswith("    ")
        if block is not None:
            if indented or not line.strip():
                block.append(line)
                continue
            lines += ["```text", *textwrap.dedent("\n".join(block)).strip("\n").split("\n"), "```", ""]
            block = None
        if line.rstrip().endswith("::") and not in_args:
            lines.append(line.rstrip()[:-1] if line.strip() != "::" else "")
            lines.append("")
            block = []
        elif line.strip() == "Args:":
            in_args = True
            lines.append("")
        elif in_args and indented:
            argument = re.match(r"    (\S[^:]*): (.*)", line)
            lines.append(f"- `{argument[1]}`: {argument[2]}" if argument else f"  {line.strip()}")
        else:
            in_args = in_args and not line.strip()
            lines.append(line)
    if block:
        lines += ["```text", *textwrap.dedent("\n".join(block)).strip("\n").split("\n"), "```"]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "configuration.md": configuration,
    "command-line.md": command_line,
    "python.md": python,
}
