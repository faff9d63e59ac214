"""Reading a configuration: what it becomes, and every mistake at once, by file, line and key."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farthing.config.loading import IN_CODE, from_mapping, load
from farthing.errors import ConfigError
from farthing.kernel.budget import make_budget
from farthing.proxy.settings import DEFAULT_UPSTREAMS

NO_URL = "line 2: upstreams.x.base_url: is not a URL: look at its host and its port"
UNESCAPED = (
    "line 2: upstreams.x.base_url: has characters that no URL may have (spaces, letters beyond ASCII): "
    "they must be percent-encoded"
)
GOOD = """
ledger = "/var/lib/farthing/ledger.db"
suspect_after_hours = 0.5
max_records = "none"

[upstreams.openai]
base_url = "https://api.openai.com/v1"
api_key = "env:OPENAI_API_KEY"
trusted_tags = ["feature"]
idle_seconds = 60

[[budgets]]
name = "search-team"
scope = { team = "search" }
usd = "100.00"
per = "month Europe/Berlin"
on_exceed = "downgrade"
downgrade = { "gpt-4o" = "gpt-4o-mini" }

[[budgets]]
name = "each feature"
each = ["feature"]
usd = 0.1
requests = 3

[prices."my-model*"]
input = 1
output = "$2.50"

[proxy]
port = 9000
max_body_bytes = 1000
"""
TRUST = (
    "callers choose tag 'usr' themselves, so a budget on it could be escaped. Use one that comes from their key (org, "
    "team, user, key, agent). If your keys carry it, say identity_tags = ['usr'] under [proxy]; if callers are trusted "
    "with it, trusted_tags = ['usr'] at an upstream"
)
ENVIRON = {"OPENAI_API_KEY": "sk-secret"}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "farthing.toml"
    path.write_text(text, "utf-8")
    return path


def mistakes(tmp_path: Path, text: str, *, for_proxy: bool = True, environ: dict[str, str] | None = None) -> list[str]:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path, for_proxy=for_proxy, environ=environ or {})
    assert "sk-" not in str(caught.value)
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


def test_a_file_becomes_settings_budgets_prices_and_a_proxy(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    found = load(path, for_proxy=True, environ=ENVIRON)
    assert (found.source, found.file) == (str(path), str(path))
    assert found.given == {
        "ledger": "/var/lib/farthing/ledger.db",
        "suspect_after_hours": 0.5,
        "max_records": None,
    }
    team, feature = found.budgets
    assert (team.scope, team.usd_nano, str(team.window)) == ((("team", "search"),), 100 * 10**9, "month Europe/Berlin")
    assert (team.downgrade, team.standing, team.defined_by) == ((("gpt-4o", "gpt-4o-mini"),), True, str(path))
    assert (feature.usd_nano, feature.requests, feature.each) == (10**8, 3, ("feature",))
    assert found.prices == {"my-model*": {"input": Decimal(1), "output": Decimal("2.50")}}
    (upstream,) = found.proxy.upstreams
    assert (upstream.api_key, upstream.timeouts.idle_seconds, upstream.timeouts.connect_seconds) == (
        "sk-secret",
        60,
        10,
    )
    assert (found.proxy.port, found.proxy.bounds.max_body_bytes, found.proxy.bounds.max_connections) == (
        9000,
        1000,
        10_000,
    )
    assert found.proxy.calls.max_records is None
    assert "sk-secret" not in repr(found)


def test_defaults_are_those_of_the_code() -> None:
    found = from_mapping({"budgets": [{"name": "b", "tokens": 5}]}, environ={})
    assert found.source == IN_CODE
    (budget,) = found.budgets
    plain = make_budget("b", tokens=5, standing=True)
    assert {**budget.to_dict(), "defined_by": None} == plain.to_dict()
    assert found.proxy.upstreams == DEFAULT_UPSTREAMS
    assert found.given == {}


def test_the_library_needs_no_secrets_and_trusts_its_own_tags(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace('trusted_tags = ["feature"]', ""))
    found = load(path, environ={})
    assert found.proxy.upstreams[0].api_key is None
    assert len(found.budgets) == 2


def test_every_mistake_at_once(tmp_path: Path) -> None:
    text = """unpriced = "fre"
wach = true
[upstreams.openai]
base_url = "https://api.openai.com/v1"
api_key = "env:MY_KEY"
truste_tags = []
[upstreams.bad]
base_url = "ftp://x"
api_key = 5
connect_seconds = -1
[[budgets]]
name = "team"
usd = "a lot"
per = "month Europe/Berln"
[[budgets]]
name = "user"
each = ["usr"]
tokens = 5
perr = "day"
[[budgets]]
name = "user"
tokens = "5"
[[budgets]]
tokens = 5
on_exceed = "clmp"
[prices.mine]
input = -1
outputs = 2
[proxy]
port = "8080"
deny_status = 200
"""
    assert mistakes(tmp_path, text) == [
        "line 1: unpriced: 'fre' is unknown; choose reject, tokens_only or price_as:<model>",
        "line 2: wach: unknown key; did you mean 'watch'?",
        "line 5: upstreams.openai.api_key: takes its value from the environment variable MY_KEY, which is not set",
        "line 6: upstreams.openai.truste_tags: unknown key; did you mean 'trusted_tags'?",
        "line 8: upstreams.bad.base_url: must be an http:// or https:// URL without a query",
        "line 9: upstreams.bad.api_key: must be text in quotes",
        "line 10: upstreams.bad.connect_seconds: must be a number of seconds from 0.001 to 86400, not -1.0",
        "line 13: budgets.team.usd: must be an amount of US dollars such as \"100.00\", not 'a lot'",
        "line 14: budgets.team.per: unknown time zone 'Europe/Berln' (use a name such as 'Europe/Berlin')",
        f"line 17: budgets.user.each: {TRUST}",
        "line 19: budgets.user.perr: unknown key; did you mean 'per'?",
        "line 21: budgets.user.name: 'user' stands above already: a budget has one name and one table",
        "line 22: budgets.user.tokens: must be an integer, not '5'",
        "line 23: budgets.[3].name: is missing",
        "line 26: prices.mine.output: is missing",
        "line 28: prices.mine.outputs: unknown key; did you mean 'output'?",
        "line 30: proxy.port: must be an integer, not '8080'",
        "line 31: proxy.deny_status: must be one of 400, 402, 403, 429, not 200",
    ]


def test_the_error_has_every_mistake_as_evidence(tmp_path: Path) -> None:
    path = write(tmp_path, 'wach = true\n[[budgets]]\nname = "b"\n')
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    error = caught.value
    assert (error.file, error.line, error.key, len(error.others)) == (str(path), 1, "wach", 1)
    assert [other["line"] for other in error.to_dict()["others"]] == [2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = ", "line 1: TOML: Invalid value"),
        ("a = 1\nb\n", "line 2: TOML: Expected '=' after a key in a key/value pair"),
        ("budgets = 5", "line 1: budgets: must be written [[budgets]], once for each budget"),
        ("\n[budgets.all]\nusd = 5", "line 2: budgets: must be written [[budgets]], once for each budget"),
        ("budgets = [5]", "line 1: budgets.[0]: must be a table"),
        ("upstreams = 5", "line 1: upstreams: must be tables, each written [upstreams.NAME]"),
        ("[upstreams]\nx = 5", "line 2: upstreams.x: must be a table"),
        ("proxy = true", "line 1: proxy: must be a table"),
        ("name = 5", "line 1: name: must be text, not 5"),
        ("ledger = 5", "line 1: ledger: must be text in quotes, not 5"),
        ("watch = 1", "line 1: watch: must be true or false, not 1"),
        ('max_records = "all"', "line 1: max_records: must be an integer, or \"none\", not 'all'"),
        (
            '[[budgets]]\nname="b"\ntokens=1\n[[budgets]]\nname="b"\ntokens=2',
            "line 5: budgets.b.name: 'b' stands above already: a budget has one name and one table",
        ),
        (
            '[[budgets]]\nname="b"\ntokens=1\non_exceed="downgrade"',
            "line 1: budgets.b: downgrade: on_exceed='downgrade' needs a map such as {'gpt-4o': 'gpt-4o-mini'}",
        ),
        (
            '[upstreams.x]\nbase_url = "https://h"\napi_key = "sk-a\u2026"',
            "line 3: upstreams.x.api_key: has characters that no header may have (spaces, line ends, …)",
        ),
        ('[upstreams.x]\nbase_url = "http://h:80000/v1"', NO_URL),
        ('[upstreams.x]\nbase_url = "http://h:a/v1"', NO_URL),
        ('[upstreams.x]\nbase_url = "http://[::1/v1"', NO_URL),
        ('[upstreams.x]\nbase_url = "http://h/a b"', UNESCAPED),
        ('[upstreams.x]\nbase_url = "http://h/\u00e9"', UNESCAPED),
        ('[upstreams.x]\nbase_url = "http://h h/"', UNESCAPED),
        (
            '[upstreams.x]\nbase_url = "http://h"\nprefix = "/admin"',
            "line 3: upstreams.x.prefix: '/admin/…' is this proxy's own",
        ),
        (
            '[upstreams.x]\nbase_url = "http://h"\nprefix="/p"\n[upstreams.y]\nbase_url = "http://h"\nprefix="/p"',
            "line 6: upstreams.y.prefix: is that of 'x' above already: nothing would reach this one",
        ),
        (
            "[proxy]\nworkers = 2",
            "line 2: proxy.workers: several workers need a ledger that they share: name a file",
        ),
    ],
)
def test_a_mistake_is_where_it_stands(tmp_path: Path, text: str, says: str) -> None:
    assert says in mistakes(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[prices.x]\ninput = nan\noutput = 1", "line 2: prices.x.input: must be a finite number, not nan"),
        ("[upstreams.x]\nbase_url = 5", "line 2: upstreams.x.base_url: must be text in quotes, not 5"),
        ("max_records = 1.5", 'line 1: max_records: must be an integer, or "none", not 1.5'),
        ('ledger = "postgres://db"', "line 1: ledger: 'postgres://db' is not a ledger this program knows: use "),
        ('ledger = ""', "line 1: ledger: must be a ledger's path or URL, not '': use "),
        (
            '[[budgets]]\nname = "b"\ntokens = 5\nscope = { team = { a = 1 } }',
            "line 4: budgets.b.scope.team: must be text in quotes, not {'a': 1}",
        ),
        ('[[budgets]]\nname = "b"\nusd = "5,00"', "line 3: budgets.b.usd: must be an amount of US dollars such as "),
    ],
)
def test_one_mistake_is_said_once_and_where_it_stands(tmp_path: Path, text: str, says: str) -> None:
    (said,) = mistakes(tmp_path, text)
    assert says in said


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: the configuration cannot be read: No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(ConfigError, match=r"latin\.toml: the configuration is not UTF-8"):
        load(tmp_path / "latin.toml")


def test_a_mark_before_the_text_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "windows.toml").write_text('[[budgets]]\nname = "b"\ntokens = 5', "utf-8-sig")
    assert [budget.name for budget in load(tmp_path / "windows.toml", environ={}).budgets] == ["b"]


def test_a_path_is_meant_from_where_the_file_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 'ledger = "here.db"')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(path, environ={}).given["ledger"] == str(tmp_path / "here.db")
    assert load(path, environ={"FARTHING_LEDGER": "there.db"}).given["ledger"] == "there.db"


# -- the environment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "text", "look", "value"),
    [
        ("FARTHING_LEDGER", "x.db", lambda found: found.given["ledger"], "x.db"),
        ("FARTHING_FOLLOW_THREADS", "false", lambda found: found.given["follow_threads"], False),
        ("FARTHING_MAX_RECORDS", "none", lambda found: found.given["max_records"], None),
        ("FARTHING_SUSPECT_AFTER_HOURS", "1.5", lambda found: found.given["suspect_after_hours"], 1.5),
        ("FARTHING_NAME", "12", lambda found: found.source, "12"),
        ("FARTHING_PROXY__PORT", "1234", lambda found: found.proxy.port, 1234),
        ("FARTHING_PROXY__QUIET", "true", lambda found: found.proxy.quiet, True),
        ("FARTHING_UPSTREAMS__OPENAI__API_KEY", "12345", lambda found: found.proxy.upstreams[0].api_key, "12345"),
        ("FARTHING_UPSTREAMS__GROQ__BASE_URL", "https://g", lambda found: found.proxy.upstreams[1].name, "groq"),
        (
            "FARTHING_UPSTREAMS__OPENAI__TRUSTED_TAGS",
            "feature, run",
            lambda found: found.proxy.upstreams[0].trusted_tags,
            ("feature", "run"),
        ),
        (
            "FARTHING_UPSTREAMS__OPENAI__TRUSTED_TAGS",
            '["feature"]',
            lambda found: found.proxy.upstreams[0].trusted_tags,
            ("feature",),
        ),
        ("FARTHING_BUDGETS__0__USD", "1.50", lambda found: found.budgets[0].usd_nano, 1_500_000_000),
        ("FARTHING_BUDGETS__SEARCH_TEAM__USD", "$2", lambda found: found.budgets[0].usd_nano, 2_000_000_000),
        ("FARTHING_BUDGETS__EACH_FEATURE__REQUESTS", "7", lambda found: found.budgets[1].requests, 7),
        ("FARTHING_BUDGETS__0__SCOPE", '{ team = "a" }', lambda found: found.budgets[0].scope, (("team", "a"),)),
        ("FARTHING_PRICES__MY_MODEL__INPUT", "3", lambda found: found.prices["my-model*"]["input"], Decimal(3)),
    ],
)
def test_a_key_from_the_environment(tmp_path: Path, variable: str, text: str, look: Any, value: object) -> None:
    found = load(write(tmp_path, GOOD), for_proxy=True, environ={**ENVIRON, variable: text})
    assert look(found) == value


def test_a_whole_budget_from_the_environment() -> None:
    environ = {"FARTHING_BUDGETS__0__NAME": "all", "FARTHING_BUDGETS__0__TOKENS": "5", "FARTHING_CONFIG": "x.toml"}
    (budget,) = from_mapping({}, environ=environ).budgets
    assert (budget.name, budget.tokens) == ("all", 5)


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("FARTHING_LEGDER", "x", "unknown; did you mean FARTHING_LEDGER?"),
        ("FARTHING_PROXY__PROT", "1", "unknown key; did you mean 'port'?"),
        ("FARTHING_PROXY", "1", "names no key"),
        ("FARTHING_PROXY__PORT__X", "1", "names no key"),
        ("FARTHING_BUDGETS__7__USD", "1", "names no key: a table's name and a key follow"),
        ("FARTHING_BUDGETS", "1", "names no key: a table's name and a key follow"),
        ("FARTHING_UPSTREAMS", "1", "names no key: a table's name and a key follow"),
        ("FARTHING_PROXY__PORT", "many", "must be an integer, not 'many'"),
        ("FARTHING_PROXY__PORT", "99999", "must be from 0 to 65535, not 99999"),
        ("FARTHING_UNPRICED", "free", "'free' is unknown"),
        ("FARTHING_BUDGETS__0__PER", "fortnight", "per='fortnight' is not a window"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path, variable: str, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, GOOD), for_proxy=True, environ={**ENVIRON, variable: text})
    assert caught.value.key == variable
    assert says in str(caught.value)
    assert "farthing.toml" not in str(caught.value)


def test_other_programs_may_have_variables_of_this_prefix() -> None:
    assert from_mapping({}, environ={"FARTHING_HOUSE_COLOUR": "blue"}).given == {}


@pytest.mark.parametrize("wrong", [None, 5, "a.toml", [1]])
def test_a_mapping_is_one(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="must be a mapping"):
        from_mapping(wrong, environ={})
