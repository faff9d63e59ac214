"""Ledger URLs and the default path."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from farthing.errors import ConfigError
from farthing.stores import default_path, default_url, open_store
from farthing.stores.memory import MemoryStore
from farthing.stores.sqlite import SQLiteStore
from farthing.testing import FakeClock


@pytest.mark.parametrize("url", ["memory:", "memory://"])
def test_memory(url: str) -> None:
    clock = FakeClock()
    store = open_store(url, clock=clock)
    assert isinstance(store, MemoryStore)
    assert store.now() == clock()


def test_an_absolute_path(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/a b/ledger.db")
    assert isinstance(store, SQLiteStore)
    store.close()
    assert store.name == str(tmp_path / "a b" / "ledger.db")


def test_a_relative_path_is_fixed_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///here.db")
    store.close()
    assert store.name == str(tmp_path / "here.db")


def test_a_path_under_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = open_store("sqlite:///~/ledger.db")
    store.close()
    assert store.name == str(tmp_path / "ledger.db")


@pytest.mark.parametrize("name", ["ledger.db", "./memory", "ledger", "a b.db"])
def test_a_plain_path_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (name, tmp_path / name):
        store = open_store(str(path))
        store.close()
        assert store.name == str(tmp_path / name)


def test_a_plain_path_under_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = open_store("~/ledger.db")
    store.close()
    assert store.name == str(tmp_path / "ledger.db")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "memory:"),
        (None, "memory:"),
        ("memory", "./memory"),
        ("sqlite", "./sqlite"),
        ("sqlite:", "names no file"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite://ledger.db", "names no file"),
        ("sqlite:///:memory:", "write memory:"),
        (":memory:", "write memory:"),
        ("/tmp/:memory:", "write memory:"),
        ("sqlite:///a.db?mode=ro", "options"),
        ("sqlite:///a.db#x", "options"),
        ("redis://localhost", "not a ledger"),
        ("memory:///x", "not a ledger"),
    ],
)
def test_a_wrong_url_is_a_config_error_that_names_the_setting(url: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url, key="FARTHING_LEDGER")
    assert says in str(caught.value)
    assert caught.value.key == "FARTHING_LEDGER"


def test_the_default_path_is_where_platformdirs_would_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platformdirs = pytest.importorskip("platformdirs")
    for home in (str(tmp_path), ""):
        monkeypatch.setenv("XDG_DATA_HOME", home)
        importlib.reload(platformdirs)
        assert default_path() == Path(platformdirs.user_data_dir("farthing", appauthor=False)) / "ledger.db"
    assert default_url() == f"sqlite:///{default_path()}"
