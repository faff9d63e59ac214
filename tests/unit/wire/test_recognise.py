"""
Goal: every endpoint of the providers gets the right verdict, and no spelling of a path slips by unseen.
Method: the table's routes, and the odd paths that servers accept. (The SDKs' own routes: ``test_sdk_routes``.)
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.wire.recognise import DIALECTS, ROUTES, Recognised, recognise

OPENAI, ANTHROPIC, GEMINI = "api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com"
VERTEX, PLACE = "us-central1-aiplatform.googleapis.com", "/v1beta1/projects/p/locations/us-central1"


@pytest.mark.parametrize(
    ("host", "path", "dialect", "provider"),
    [
        (OPENAI, "/v1/chat/completions", "openai.chat", "openai"),
        (OPENAI, "/v1/responses", "openai.responses", "openai"),
        (OPENAI, "/v1/responses?beta=true", "openai.responses", "openai"),
        ("eu.api.openai.com", "/v1/chat/completions", "openai.chat", "openai"),
        (ANTHROPIC, "/v1/messages", "anthropic.messages", "anthropic"),
        (ANTHROPIC, "/v1/messages?beta=true", "anthropic.messages", "anthropic"),
        ("api.anthropic.com:443", "/v1/messages", "anthropic.messages", "anthropic"),
        ("x.openai.azure.com", "/openai/deployments/my-gpt/chat/completions?api-version=1", "openai.chat", "azure"),
        ("x.openai.azure.com", "/openai/v1/responses", "openai.responses", "azure"),
        (OPENAI, "/v1/completions", "openai.completions", "openai"),
        (OPENAI, "/v1/embeddings", "openai.embeddings", "openai"),
        (OPENAI, "/v1/images/generations", "openai.images", "openai"),
        (OPENAI, "/v1/images/edits", "openai.images", "openai"),
        ("x.openai.azure.com", "/openai/deployments/e/embeddings?api-version=1", "openai.embeddings", "azure"),
        (GEMINI, "/v1beta/models/gemini-2.5-flash:generateContent", "gemini.generate", "google"),
        (GEMINI, "/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse", "gemini.generate", "google"),
        (GEMINI, "/v1beta/tunedModels/mine:generateContent", "gemini.generate", "google"),
        (GEMINI, "/v1beta/models/gemini-embedding-001:batchEmbedContents", "gemini.embeddings", "google"),
        (GEMINI, "/v1beta/models/gemini-embedding-001:embedContent", "gemini.embeddings", "google"),
        (GEMINI, "/v1beta/openai/chat/completions", "openai.chat", "google"),
        (VERTEX, f"{PLACE}/publishers/google/models/gemini-2.5-pro:generateContent", "gemini.generate", "google"),
        (VERTEX, f"{PLACE}/endpoints/12:streamGenerateContent", "gemini.generate", "google"),
        ("aiplatform.googleapis.com", "/v1/publishers/google/models/g:generateContent", "gemini.generate", "google"),
        (VERTEX, f"{PLACE}/endpoints/openapi/chat/completions", "openai.chat", "google"),
    ],
)
def test_what_is_metered(host: str, path: str, dialect: str, provider: str) -> None:
    found = recognise("POST", host, path)
    assert (found.verdict, found.provider) == ("metered", provider)
    assert found.dialect is not None
    assert (found.dialect.name, found.dialect.provider) == (dialect, provider)


@pytest.mark.parametrize("prefix", ["", "/v1", "/openai/v1", "/api/v1", "/v1beta/openai", "/gateway/acme/openai"])
def test_a_declared_base_url_may_have_any_usual_prefix(prefix: str) -> None:
    declared = {"127.0.0.1:8080": "openai"}
    found = recognise("POST", "127.0.0.1:8080", f"{prefix}/chat/completions", known_hosts=declared)
    assert found.verdict == "metered"


@pytest.mark.parametrize(
    ("method", "host", "path", "verdict"),
    [
        ("GET", OPENAI, "/", "free"),
        ("HEAD", ANTHROPIC, "/", "free"),
        ("GET", OPENAI, "/v1/models", "free"),
        ("GET", OPENAI, "/v1/models/ft:gpt-4o:acme::1", "free"),
        ("GET", OPENAI, "/v1/models/", "free"),
        ("POST", OPENAI, "/v1/moderations", "free"),
        ("GET", OPENAI, "/v1/responses/resp_1", "free"),
        ("DELETE", OPENAI, "/v1/responses/resp_1", "free"),
        ("POST", OPENAI, "/v1/responses/resp_1/cancel", "free"),
        ("GET", OPENAI, "/v1/responses/resp_1/input_items?limit=5", "free"),
        ("POST", OPENAI, "/v1/responses/input_tokens", "free"),
        ("POST", OPENAI, "/v1/threads/t/runs/r/cancel", "account"),
        ("GET", OPENAI, "/v1/files/f/content", "account"),
        ("DELETE", OPENAI, "/v1/models/ft:gpt-4o:acme::1", "account"),
        ("GET", OPENAI, "/v1/organization/admin_api_keys", "account"),
        ("POST", ANTHROPIC, "/v1/messages/count_tokens", "free"),
        ("GET", ANTHROPIC, "/v1/messages/batches/b/results", "account"),
        ("POST", OPENAI, "/v1/responses/compact", "unmetered"),
        ("POST", OPENAI, "/v1/images/variations", "unmetered"),
        ("POST", OPENAI, "/v1/audio/transcriptions", "unmetered"),
        ("POST", OPENAI, "/v1/audio/speech", "unmetered"),
        ("POST", OPENAI, "/v1/batches", "unmetered"),
        ("POST", OPENAI, "/v1/threads/t/messages", "unmetered"),
        ("POST", OPENAI, "/v1/threads/runs", "unmetered"),
        ("GET", OPENAI, "/v1/realtime?model=gpt-realtime", "unmetered"),
        ("GET", OPENAI, "/v1/responses", "unmetered"),
        ("POST", ANTHROPIC, "/v1/messages/batches", "unmetered"),
        ("POST", ANTHROPIC, "/v1/complete", "unmetered"),
        ("POST", OPENAI, "/v1/something/new", "unmetered"),
        ("GET", OPENAI, "/v1/something/new", "unmetered"),
        ("GET", OPENAI, "/v1/models/../realtime", "unmetered"),
        ("PATCH", OPENAI, "/v1/chat/completions", "unmetered"),
        ("POST", OPENAI, "/", "unmetered"),
        ("POST", GEMINI, "/v1beta/models/gemini-2.5-flash:countTokens", "free"),
        ("GET", GEMINI, "/v1beta/models", "free"),
        ("GET", GEMINI, "/v1beta/models/gemini-2.5-flash", "free"),
        ("GET", GEMINI, "/v1beta/files/a:download?alt=media", "account"),
        ("POST", GEMINI, "/upload/v1beta/files", "account"),
        ("POST", GEMINI, "/v1beta/batches/b:cancel", "account"),
        ("POST", GEMINI, "/v1beta/models/gemini-2.5-flash:batchGenerateContent", "unmetered"),
        ("POST", GEMINI, "/v1beta/models/gemini-2.5-flash:somethingNew", "unmetered"),
        ("POST", GEMINI, "/v1beta/models/gemini-2.5-flash:GenerateContent", "unmetered"),
        ("POST", GEMINI, "/v1beta/models/:generateContent", "unmetered"),
        ("POST", GEMINI, "/v1beta/models/gemini-2.5-flash%3AgenerateContent", "unmetered"),
        ("POST", GEMINI, "/v1beta/models/imagen-4.0:predict", "unmetered"),
        ("POST", GEMINI, "/v1beta/models/veo-3.0:predictLongRunning", "unmetered"),
        ("POST", GEMINI, "/v1beta/cachedContents", "unmetered"),
        ("PATCH", GEMINI, "/v1beta/cachedContents/c", "unmetered"),
        ("POST", GEMINI, "/v1beta/interactions", "unmetered"),
        ("GET", GEMINI, "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", "unmetered"),
        ("POST", VERTEX, f"{PLACE}/publishers/google/models/gemini-2.5-pro:countTokens", "free"),
        ("POST", VERTEX, f"{PLACE}/publishers/google/models/text-embedding-005:predict", "unmetered"),
        ("POST", VERTEX, f"{PLACE}/publishers/anthropic/models/claude-sonnet-5:rawPredict", "unmetered"),
        ("POST", VERTEX, f"{PLACE}/batchPredictionJobs", "unmetered"),
        ("POST", VERTEX, f"{PLACE}/somethingNew", "unmetered"),
        ("POST", "bedrock-runtime.eu-west-1.amazonaws.com", "/model/x/invoke", "unmetered"),
        ("POST", "us-east5-aiplatform.googleapis.com", "/v1/projects/p:rawPredict", "unmetered"),
        ("POST", "example.com", "/v1/messages", "other"),
        ("POST", "api.openai.com.example.com", "/v1/chat/completions", "other"),
    ],
)
def test_verdicts(method: str, host: str, path: str, verdict: str) -> None:
    found = recognise(method, host, path)
    assert found.verdict == verdict
    assert found.dialect is None
    assert found.reason


@pytest.mark.parametrize(
    "path",
    [
        "//v1/chat/completions", "/v1//chat/completions", "/v1/chat/completions/", "/v1/chat%2Fcompletions",
        "/v1/%63hat/completions", "/v1/./chat/completions", "/v1/x/../chat/completions",
        "/v1/models/../chat/completions",
        "/V1/chat/completions", "/v1/Chat/Completions", "/v1/chat/completions;x=1", "/v1\\chat\\completions",
        "v1/chat/completions", "http://api.openai.com/v1/chat/completions", "/v1/chat/completions%20",
        "/" + "v1/" * 5000 + "chat/completions",
    ],
)  # fmt: skip
def test_an_odd_spelling_is_never_a_bypass(path: str) -> None:
    assert recognise("POST", OPENAI, path).verdict == "unmetered"
    gateways = "metered" if path.startswith("/V1/") else "unmetered"  # whose prefix may be anything
    assert recognise("POST", "gateway.local", path, sdk_client=True).verdict == gateways


def test_a_prefix_that_looks_free_hides_nothing() -> None:
    assert recognise("POST", OPENAI, "/uploads/v1/chat/completions").verdict == "metered"
    assert recognise("POST", OPENAI, "/conversations/v1/responses/compact").verdict == "unmetered"
    assert recognise("POST", OPENAI, "/organization/v1beta/models/g:generateContent").verdict == "metered"


def test_who_is_in_care() -> None:
    chat = ("POST", "llm.internal", "/v1/chat/completions")
    new = ("POST", "llm.internal", "/v1/anything")
    assert recognise(*chat).verdict == "other"
    assert recognise(*chat, sdk_client=True).verdict == "metered"
    assert recognise(*chat, headers={"X-Stainless-Lang": "python"}).verdict == "metered"
    assert recognise(*chat, known_hosts={"llm.internal": "openai"}).verdict == "metered"
    assert recognise(*new).verdict == "other"
    assert recognise(*new, sdk_client=True).verdict == "unmetered"
    assert recognise(*new, known_hosts={".internal": "openai"}).verdict == "unmetered"
    assert recognise(*new, headers={"anthropic-version": "2023-06-01"}).verdict == "unmetered"
    gemini = ("POST", "llm.internal", "/v1beta/models/gemini-2.5-flash:generateContent")
    assert recognise(*gemini).verdict == "other"
    assert recognise(*gemini, headers={"x-goog-api-key": "k"}).verdict == "metered"
    assert recognise(*new, headers={"x-goog-api-key": "k"}).verdict == "other"
    # Other services' SDKs come from the same generator: the header alone condemns no unknown path of theirs.
    assert recognise(*new, headers={"x-stainless-lang": "python"}).verdict == "other"


def test_a_declared_provider_keeps_its_prices() -> None:
    declared = {"gw": "groq"}
    found = recognise("POST", "gw", "/openai/v1/chat/completions", known_hosts=declared)
    assert found.dialect is not None
    assert found.dialect.provider == "groq"
    # A gateway declared as OpenAI's may serve Claude's own dialect too.
    found = recognise("POST", "gw", "/v1/messages", known_hosts={"gw": "openai"})
    assert (found.provider, found.verdict) == ("anthropic", "metered")


def test_the_table_is_sound() -> None:
    assert {row.note for row in ROUTES if row.verdict == "metered"} == set(DIALECTS)
    assert all(row.verdict in ("metered", "free", "account", "unmetered") for row in ROUTES)
    assert not any(row.path.startswith("/") or row.path.endswith("/") for row in ROUTES)


@given(st.text(max_size=12), st.text(max_size=30), st.text(max_size=80), st.booleans())
def test_anything_gets_a_verdict(method: str, host: str, path: str, sdk_client: bool) -> None:
    found = recognise(method, host, path, sdk_client=sdk_client)
    assert isinstance(found, Recognised)
    assert (found.dialect is not None) == (found.verdict == "metered")
    assert found.verdict != "other" or not sdk_client


@pytest.mark.parametrize("prefix", ["/serving-endpoints", "/some/gateway", "/llm", "/v1/accounts/42"])
@pytest.mark.parametrize(
    ("tail", "dialect"),
    [
        ("/chat/completions", "openai.chat"),
        ("/responses", "openai.responses"),
        ("/embeddings", "openai.embeddings"),
    ],
)
def test_a_client_that_was_handed_over_may_have_any_base_url(prefix: str, tail: str, dialect: str) -> None:
    host = "gateway.example"
    found = recognise("POST", host, prefix + tail, headers={"x-stainless-lang": ""}, sdk_client=True)
    assert (found.verdict, found.dialect and found.dialect.name) == ("metered", dialect)
    # Nobody else's path is guessed at: of a client that was only found, or at a provider whose paths are known.
    assert recognise("POST", host, prefix + tail, headers={"x-stainless-lang": ""}).verdict == "other"
    known = recognise("POST", host, prefix + tail, known_hosts={host: "mistral"}, sdk_client=True)
    assert known.verdict == "unmetered"


@pytest.mark.parametrize(
    "path",
    ["//x/chat/completions", "/x/../chat/completions", "/x/%2e%2e/responses", "/x/chat/completions/", "/x/completions"],
)
def test_nothing_odd_is_guessed_at(path: str) -> None:
    assert recognise("POST", "gateway.example", path, sdk_client=True).verdict == "unmetered"
