"""Settings: each may stand in the environment, and an unusable one is named as it was written."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from farthing import ConfigError, configure
from farthing.runtime.settings import Settings, from_environment

OTHER = {
    "ledger": ("sqlite:///x.db", "sqlite:///x.db"),
    "durability": ("normal", "normal"),
    "unpriced": ("price_as:gpt-4o", "price_as:gpt-4o"),
    "on_store_failure": ("allow", "allow"),
    "max_records": ("none", None),
    "abort_margin_tokens": ("7", 7),
    "suspect_policy": ("keep", "keep"),
    "suspect_after_hours": ("0.5", 0.5),
    "follow_threads": ("false", False),
    "watch": ("0", False),
}


@pytest.mark.parametrize("name", OTHER)
def test_a_setting_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text, value = OTHER[name]
    assert getattr(Settings(), name) != value
    monkeypatch.setenv(f"FARTHING_{name.upper()}", text)
    assert getattr(from_environment(), name) == value


def test_every_setting_can_be_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of each, written as text, gives the default again: its type is one that can be read."""
    for field in fields(Settings):
        default = getattr(Settings(), field.name)
        if default is not None:
            monkeypatch.setenv(f"FARTHING_{field.name.upper()}", str(default))
    assert from_environment() == Settings()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("FARTHING_MAX_RECORDS", "many"),
        ("FARTHING_WATCH", "perhaps"),
        ("FARTHING_UNPRICED", "free"),
        ("FARTHING_SUSPECT_AFTER_HOURS", "-1"),
        ("FARTHING_DURABILITY", "none"),
    ],
)
def test_an_unusable_one_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigError) as caught:
        from_environment()
    assert caught.value.key == variable
    assert repr(text) in str(caught.value) or "-1" in str(caught.value)


@pytest.mark.usefixtures("farthing_isolated")
def test_a_ledger_may_be_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (tmp_path / "a.db", "b.db", f"sqlite:///{tmp_path}/c.db"):
        configure(ledger=given)
    assert {path.name for path in tmp_path.glob("*.db")} == {"a.db", "b.db", "c.db"}
