"""
Each folder here has an environment of its own (`make test` makes it from requirements/NAME.lock): its tests are
collected where the package that it is about is installed, and nowhere else.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

ABOUT = {"httpx": "groq", "frameworks": "langchain_openai"}
collect_ignore = [name for name, package in ABOUT.items() if find_spec(package) is None]

assert set(ABOUT) == {folder.name for folder in Path(__file__).parent.iterdir() if (folder / "__init__.py").exists()}
