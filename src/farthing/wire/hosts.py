"""
Where providers are: hosts, and the price table's id of the provider there.

Hosts: the providers' own API documentation, and the base URLs that the SDKs groq 1.7, mistralai 3.7, cohere 7.3 and
google-genai 3.4 have built in; ids: genai-prices 0.2.3. Read 2026-11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

KNOWN_HOSTS: dict[str, str] = {
    "api.openai.com": "openai",
    ".api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    ".openai.azure.com": "azure",
    ".services.ai.azure.com": "azure",
    ".cognitiveservices.azure.com": "azure",
    "generativelanguage.googleapis.com": "google",
    "aiplatform.googleapis.com": "google",
    ".aiplatform.googleapis.com": "google",
    # They speak OpenAI's language, or nearly, at prices of their own.
    "api.cerebras.ai": "cerebras",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "api.groq.com": "groq",
    "api.minimax.io": "minimax",
    "api.mistral.ai": "mistral",
    "api.moonshot.ai": "moonshotai",
    "api.moonshot.cn": "moonshotai",
    "api.novita.ai": "novita",
    "api.perplexity.ai": "perplexity",
    "api.together.ai": "together",
    "api.together.xyz": "together",
    "api.voyageai.com": "voyageai",
    "api.x.ai": "x-ai",
    ".api.x.ai": "x-ai",
    "api.z.ai": "zai",
    "codestral.mistral.ai": "mistral",
    "openrouter.ai": "openrouter",
    # Whose price it is, that of many providers, is known to it alone: under a budget in USD a price must be named.
    "router.huggingface.co": "huggingface",
}
"""Hosts, or with a dot in front any host under that name, and the provider there (the price table's id)."""

ONLY_MAX_TOKENS = frozenset(
    {
        *("cohere", "deepseek", "fireworks", "huggingface", "minimax", "mistral", "moonshotai", "novita", "perplexity"),
        *("together", "zai"),
    }
)
"""Providers whose chat completions know an output ceiling as ``max_tokens`` only: the newer name is refused or, worse,
ignored (their API references, 2026-11)."""
TELL_USAGE = frozenset({"mistral"})
"""Providers whose streams always end with a usage figure, and that refuse to be asked for it."""

_PATTERNS = (
    (
        re.compile(
            r"(?:[^.]+\.)?bedrock-(?:runtime|mantle)[^.]*\.[^.]+\.(?:(?:vpce\.)?amazonaws\.com(?:\.cn)?|api\.aws)"
        ),
        "aws",
    ),
    (re.compile(r"[a-z0-9-]+-aiplatform\.googleapis\.com"), "google"),
)


def provider_of(host: str, declared: Mapping[str, str]) -> str | None:
    """
    The provider at a host (a port included or not); None for a host that is not known.

    *declared* hosts come first. They may be written with their port, and then count for that port only.
    """
    found = named_by(host, declared) or named_by(host, KNOWN_HOSTS)
    if found is not None:
        return found
    name = _bare(host)
    return next((provider for pattern, provider in _PATTERNS if pattern.fullmatch(name)), None)


def named_by(host: str, hosts: Mapping[str, str]) -> str | None:
    """The provider that these hosts name for one: by itself with its port, else without, else by what it is under."""
    if host in hosts:
        return hosts[host]
    name = _bare(host)
    if name in hosts:
        return hosts[name]
    return next(
        (provider for suffix, provider in hosts.items() if suffix.startswith(".") and name.endswith(suffix)), None
    )


def _bare(host: str) -> str:
    return host.partition(":")[0].rstrip(".")
