"""Every TOML block of the documents is a configuration that farthing takes, whole or as a part of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from farthing.config.reading import parse, read
from tests.docs.markdown import blocks
from tests.docs.test_docs import DOCUMENTS, name

CONFIGURATIONS = [
    pytest.param(block.text, id=f"{name(path)}:{block.line}")
    for path in DOCUMENTS
    for block in blocks(path.read_text("utf-8"))
    if block.info == "toml"
]


class Environment(dict[str, str]):
    """Has every secret that a configuration asks for."""

    def get(self, key: str, default: str | None = None) -> str:  # type: ignore[override]
        return "sk-fake"


def test_there_are_some() -> None:
    assert CONFIGURATIONS


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_it_is_right(text: str, tmp_path: Path) -> None:
    file = str(tmp_path / "farthing.toml")
    environ = Environment(FARTHING_LEDGER="ledger.db")  # several workers need one; it may stand in another block
    read(parse(text, file=file), source=file, file=file, text=text, environ=environ, for_proxy=True)
