"""
Which SDKs and frameworks are known, and how their calls are governed: for ``farthing doctor``, without importing them.

Reviewed 2026-11: what is said to be governed is run by the tests (tests/doors, tests/compat), with the versions named;
what has none was run by hand then.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, NamedTuple

Governed = Literal["yes", "partly", "no"]


class Package(NamedTuple):
    """``tested``: the beginnings of the versions that the tests run, ``3.`` for any 3."""

    name: str
    governed: Governed
    how: str
    tested: tuple[str, ...] = ()


class Installed(NamedTuple):
    """One that is installed here. ``untested``: the tests run other versions of it, so it may have moved its seam."""

    name: str
    version: str
    governed: Governed
    how: str
    untested: bool


_BOTH = "instrument(client) or install()"
PACKAGES: tuple[Package, ...] = (
    Package("anthropic", "yes", _BOTH, ("2.",)),
    Package("openai", "yes", f"{_BOTH}; realtime sessions are not: hold() for them", ("2.", "3.")),
    Package("google-genai", "yes", f"{_BOTH}; live sessions are not: hold() for them", ("3.",)),
    Package("mistralai", "yes", f"{_BOTH}; beyond chat and embeddings refused under a hard budget", ("3.",)),
    Package("groq", "yes", f"{_BOTH}; beyond chat refused under a hard budget", ("1.",)),
    Package("cohere", "partly", f"{_BOTH}: chat of version 2; all else is refused under a hard budget", ("7.",)),
    Package("langchain-openai", "yes", "install()", ("1.",)),
    Package("pydantic-ai-slim", "yes", "install()", ("2.",)),
    Package("openai-agents", "yes", "install()", ("0.",)),
    Package("litellm", "yes", "install()", ("1.",)),
    Package("langchain-anthropic", "yes", "install()"),
    Package("langchain-google-genai", "yes", "install()"),
    Package("langchain-mistralai", "yes", "install()"),
    Package("llama-index-core", "yes", "install()"),
    Package("instructor", "yes", "install(); a refusal comes in its InstructorRetryException, whose cause it is"),
    Package("crewai", "yes", "install()"),
    Package("smolagents", "yes", "install(); a refusal comes in its AgentGenerationError, whose cause it is"),
    Package("dspy", "partly", 'install(), with dspy.LM(…, engine="litellm"); what leaves by its own client is noticed'),
    Package("botocore", "no", "Bedrock calls leave by urllib3: noticed; hold() or record() for them"),
    Package("google-cloud-aiplatform", "no", "leaves by gRPC: noticed; google-genai speaks to Vertex AI over HTTP"),
)


def installed_packages() -> Iterator[Installed]:
    """Those of the table that are installed here, in its order."""
    for package in PACKAGES:
        try:
            found = version(package.name)
        except PackageNotFoundError:
            continue
        untested = bool(package.tested) and not found.startswith(package.tested)
        yield Installed(package.name, found, package.governed, package.how, untested)
