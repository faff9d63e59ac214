"""
The endpoints of OpenAI, Anthropic, Gemini and Cohere, each with its verdict.

Reviewed data, read in November 2026 from the resources of the SDKs openai 3.54, anthropic 2.12, google-genai 3.4 and
cohere 7.3 and from the public API docs; a test holds the routes of the first three against it. What stands in no row is
unmetered.

==========  ============================================================================================================
metered     a dialect reads request and answer; the note is its name. Priced by kind of token: embeddings have input
            only, images output of their own kind, Gemini audio and images where the answer tells them apart
free        no tokens are billed for it, and it belongs to calls: models, counting, answers that were stored
account     no tokens are billed for it, and it is about what the provider's account keeps: files, batches, settings,
            people. A proxy lets none of it pass with its operator's credential, unless that is said
unmetered   it costs money that cannot be bounded or seen here: refused under a hard budget. The note says why
==========  ============================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

Verdict = Literal["metered", "free", "account", "unmetered", "other"]
COSTS_NOTHING: tuple[Verdict, ...] = ("free", "account")


class Row(NamedTuple):
    """
    A route: ``*`` stands for one path segment, ``*:verb`` for one that ends so, ``**`` at the end for any number of
    segments, none included.
    """

    methods: str
    path: str
    provider: str
    verdict: Verdict
    note: str
    """The dialect of a metered route, else the reason of the verdict."""


_FREE = "costs no tokens"
TELLS_ANSWER = "costs no tokens; tells how a background call ended"
_KEPT = "about what the account keeps"
_ADMIN = "administration"
_LATER = "not metered yet"
_UNSEEN = "its calls are run later, unseen"
_RUNS = "its runs call models"
_OWN_CONNECTION = "billed over a connection of its own"
_STORAGE = "storage is billed by the hour"


def _rows(provider: str, verdict: Verdict, note: str, methods: str, *paths: str) -> Iterator[Row]:
    return (Row(methods, path, provider, verdict, note) for path in paths)


_OPENAI: tuple[Row, ...] = (
    Row("POST", "chat/completions", "openai", "metered", "openai.chat"),
    Row("POST", "responses", "openai", "metered", "openai.responses"),
    Row("POST", "completions", "openai", "metered", "openai.completions"),
    Row("POST", "embeddings", "openai", "metered", "openai.embeddings"),
    # JSON bodies of GPT Image models. A multipart body (the SDK's edits) and a model that reports no tokens are
    # unmetered: the dialect refuses to read them, and says why.
    *_rows("openai", "metered", "openai.images", "POST", "images/generations", "images/edits"),
    *_rows("openai", "unmetered", "billed by the image", "POST", "images/variations"),
    *_rows(
        "openai", "unmetered", "its body is multipart, and what audio costs is not bounded", "POST",
        "audio/transcriptions", "audio/translations",
    ),
    *_rows("openai", "unmetered", "its answer is sound, without a usage figure", "POST", "audio/speech"),
    *_rows(
        "openai", "unmetered", "voices are made of recordings", "POST",
        "audio/voices", "audio/voice_consents", "audio/voice_consents/*",
    ),
    # what belongs to a stored answer
    Row("GET", "responses/*", "openai", "free", TELLS_ANSWER),
    Row("POST", "responses/*/cancel", "openai", "free", TELLS_ANSWER),
    *_rows("openai", "free", _FREE, "DELETE", "responses/*"),
    *_rows("openai", "free", _FREE, "GET", "responses/*/input_items", "chat/completions/**"),
    *_rows("openai", "free", _FREE, "POST", "responses/input_tokens"),
    *_rows("openai", "free", "edits or deletes a stored answer", "POST DELETE", "chat/completions/*"),
    *_rows("openai", "unmetered", _LATER, "POST", "responses/compact", "decisions"),
    *_rows("openai", "unmetered", "a WebSocket's answers are not metered", "GET", "responses"),
    # calls that others make, later or elsewhere
    *_rows("openai", "unmetered", _UNSEEN, "POST", "batches"),
    *_rows("openai", "unmetered", "billed by the second", "POST", "videos/**"),
    *_rows("openai", "unmetered", _OWN_CONNECTION, "GET POST", "realtime/**", "live/**"),
    *_rows("openai", "account", _KEPT, "GET", "live/sessions/*/content"),
    *_rows("openai", "unmetered", "training is billed", "POST", "fine_tuning/jobs", "fine_tuning/jobs/*/resume"),
    *_rows("openai", "unmetered", "graders call models", "POST", "fine_tuning/alpha/**"),
    *_rows("openai", "unmetered", _RUNS, "POST", "evals/**", "threads/**", "assistants/**", "agents/**", "chatkit/**"),
    *_rows("openai", "unmetered", "storage and searches are billed", "POST", "vector_stores/**"),
    *_rows("openai", "unmetered", "containers are billed by the session", "POST", "containers/**"),
    *_rows("openai", "unmetered", "may be billed by the check", "POST", "content_provenance_checks"),
    # no tokens
    *_rows("openai", "free", _FREE, "POST", "moderations"),
    *_rows("openai", "free", _FREE, "GET", "models/**"),
    *_rows(
        "openai", "account", _KEPT, "POST",
        "batches/*/cancel", "fine_tuning/jobs/*/cancel", "fine_tuning/jobs/*/pause",
        "fine_tuning/checkpoints/*/permissions", "evals/*/runs/*/cancel", "threads/*/runs/*/cancel",
        "chatkit/sessions/*/cancel", "vector_stores/*/file_batches/*/cancel", "files", "uploads/**",
        "conversations/**", "skills/**",
    ),
    *_rows(
        "openai", "account", _KEPT, "GET DELETE",
        "files/**", "batches/**", "conversations/**", "assistants/**", "threads/**", "vector_stores/**",
        "containers/**", "evals/**", "videos/**", "fine_tuning/**", "agents/**", "chatkit/**", "skills/**",
        "audio/voices/**", "audio/voice_consents/**", "safety/**",
    ),
    *_rows("openai", "account", _KEPT, "DELETE", "models/**"),
    *_rows(
        "openai", "account", _ADMIN, "GET POST DELETE",
        "organization/**", "vaults/**", "webhook_endpoints/**", "webhook_event_types", "projects/*/roles",
        "projects/*/roles/*", "projects/*/groups/*/roles", "projects/*/groups/*/roles/*", "projects/*/users/*/roles",
        "projects/*/users/*/roles/*",
    ),
)  # fmt: skip

_ANTHROPIC: tuple[Row, ...] = (
    Row("POST", "messages", "anthropic", "metered", "anthropic.messages"),
    *_rows("anthropic", "free", _FREE, "POST", "messages/count_tokens"),
    *_rows("anthropic", "free", _FREE, "GET", "models/**"),
    *_rows("anthropic", "unmetered", _UNSEEN, "POST", "messages/batches"),
    *_rows("anthropic", "unmetered", _LATER, "POST", "complete"),
    # "deployments/**" would swallow the deployments in Azure's paths
    *_rows(
        "anthropic", "unmetered", _RUNS, "POST",
        "sessions/**", "agents/**", "dreams/**", "deployments", "deployments/*", "deployments/*/run",
        "deployments/*/unpause", "environments/**",
    ),
    *_rows(
        "anthropic", "account", _KEPT, "POST",
        "messages/batches/*/cancel",
        "files", "skills/**", "memory_stores/**", "deployments/*/archive", "deployments/*/pause",
        "sessions/*/archive", "agents/*/archive", "dreams/*/archive", "dreams/*/cancel", "environments/*/archive",
        "environments/*/work/*/ack", "environments/*/work/*/heartbeat", "environments/*/work/*/stop",
    ),
    *_rows(
        "anthropic", "account", _KEPT, "GET DELETE",
        "files/**", "skills/**", "messages/batches/**", "sessions/**", "agents/**", "dreams/**",
        "environments/**", "memory_stores/**", "deployments", "deployments/*", "deployment_runs/**",
    ),
    *_rows(
        "anthropic", "account", _ADMIN, "GET POST PUT PATCH DELETE",
        "organizations/**", "vaults/**", "tunnels/**", "user_profiles/**",
    ),
)  # fmt: skip

# Vertex AI has the same methods under projects/*/locations/*, of publishers' models and of endpoints of one's own.
_GOOGLE: tuple[Row, ...] = (
    *_rows(
        "google", "metered", "gemini.generate", "POST",
        "models/*:generateContent", "models/*:streamGenerateContent", "tunedModels/*:generateContent",
        "tunedModels/*:streamGenerateContent", "endpoints/*:generateContent", "endpoints/*:streamGenerateContent",
    ),
    *_rows(
        "google", "metered", "gemini.embeddings", "POST", "models/*:embedContent", "models/*:batchEmbedContents"
    ),
    *_rows(
        "google", "free", _FREE, "POST",
        "models/*:countTokens", "models/*:computeTokens", "endpoints/*:countTokens", "endpoints/*:computeTokens",
    ),
    *_rows("google", "free", _FREE, "GET", "models/**", "tunedModels/**"),
    *_rows(
        "google", "unmetered", "images, and embeddings by older models: no usage is reported", "POST",
        "models/*:predict", "endpoints/*:predict",
    ),
    *_rows(
        "google", "unmetered", "another provider's language, not metered here", "POST",
        "models/*:rawPredict", "models/*:streamRawPredict", "endpoints/*:rawPredict", "endpoints/*:streamRawPredict",
    ),
    *_rows("google", "unmetered", "billed by the second", "POST", "models/*:predictLongRunning"),
    *_rows("google", "unmetered", _LATER, "POST", "models/*:generateAnswer", "interactions", "decisions"),
    *_rows("google", "unmetered", "which model answers stands nowhere", "POST", "dynamic/**"),
    *_rows(
        "google", "unmetered", _UNSEEN, "POST",
        "models/*:batchGenerateContent", "models/*:asyncBatchEmbedContent", "tunedModels/*:batchGenerateContent",
        "batchPredictionJobs",
    ),
    *_rows("google", "unmetered", "training is billed", "POST", "tunedModels", "tuningJobs"),
    *_rows("google", "unmetered", "graders call models", "POST", "tuningJobs:validateReinforcementTuningReward"),
    *_rows("google", "unmetered", _STORAGE, "POST", "cachedContents"),
    *_rows("google", "unmetered", _STORAGE, "PATCH", "cachedContents/*"),
    *_rows(
        "google", "unmetered", "what is indexed is embedded, and billed", "POST",
        "fileSearchStores/*:uploadToFileSearchStore", "fileSearchStores/*:importFile",
    ),
    *_rows("google", "unmetered", _RUNS, "POST", "agents/**", "triggers/**", "environments/**", "reasoningEngines/**"),
    *_rows("google", "unmetered", _RUNS, "PATCH", "triggers/*"),
    *_rows("google", "unmetered", "voices are made of recordings", "POST", "voices"),
    *_rows("google", "unmetered", "lets its bearer open sessions of its own", "POST", "auth_tokens"),
    *_rows("google", "unmetered", _OWN_CONNECTION, "GET", "ws/**"),
    *_rows(
        "google", "account", _KEPT, "POST",
        "models/*:fetchPredictOperation",
        "interactions/*/cancel", "batches/*:cancel", "batchPredictionJobs/*:cancel", "tuningJobs/*:cancel",
        "tunedModels/*:cancel", "operations/*:cancel", "files", "files:register", "fileSearchStores",
    ),
    *_rows("google", "account", _KEPT, "PATCH", "models/*", "tunedModels/*"),
    *_rows("google", "account", _KEPT, "PUT", "environments/*/files/**"),
    *_rows("google", "account", _KEPT, "DELETE", "models/**", "tunedModels/**"),
    *_rows(
        "google", "account", _KEPT, "GET DELETE",
        "files/**", "batches/**", "batchPredictionJobs/**", "tuningJobs/**",
        "cachedContents/**", "fileSearchStores/**", "operations/**", "interactions/**", "agents/**", "triggers/**",
        "environments/**", "voices/**", "reasoningEngines/**",
    ),
    *_rows("google", "account", _ADMIN, "GET POST PUT PATCH DELETE", "credentials/**", "webhooks/**"),
)  # fmt: skip

_COHERE: tuple[Row, ...] = (
    Row("POST", "v2/chat", "cohere", "metered", "cohere.chat"),
    *_rows("cohere", "unmetered", _LATER, "POST", "chat", "generate", "embed", "rerank", "classify", "summarize"),
    *_rows("cohere", "unmetered", "billed by the page", "POST", "parse"),
    *_rows("cohere", "free", _FREE, "POST", "tokenize", "detokenize", "check-api-key"),
)

ROUTES: tuple[Row, ...] = (*_OPENAI, *_ANTHROPIC, *_GOOGLE, *_COHERE)
