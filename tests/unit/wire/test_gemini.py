"""
Goal: everything Gemini tokenises is seen in either spelling, what has no bound is said to be open, ceilings land in the
caller's own field, the model in the path, and every kind of token in its place.
"""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.calls.endings import says_anything
from farthing.kernel.usage import Usage
from farthing.wire.facts import AnswerFacts, Image, RequestFacts
from farthing.wire.gemini.embeddings import GeminiEmbeddings
from farthing.wire.gemini.generate import GeminiGenerate
from farthing.wire.gemini.path import model_in, other_model, streams
from farthing.wire.json_array import ArraySplitter

from .recorded_bodies import (
    GEMINI_ARRAY,
    GEMINI_EMBEDDINGS_PATH,
    GEMINI_PATH,
    GEMINI_SSE,
    body,
    recorded,
    recorded_object,
)

DIALECT, EMBEDDINGS = GeminiGenerate(), GeminiEmbeddings()
USER = [{"role": "user", "parts": [{"text": "hi"}]}]


def read(path: str = GEMINI_PATH, **fields: Any) -> RequestFacts:
    return DIALECT.read_request(body(**{"contents": USER, **fields}), path)


def config(**fields: Any) -> RequestFacts:
    return read(generationConfig=fields)


def part(path: str = GEMINI_PATH, **fields: Any) -> RequestFacts:
    return read(path, contents=[{"role": "user", "parts": [fields]}])


# --- the request -------------------------------------------------------------------------------------------------


def test_the_recorded_request() -> None:
    raw = recorded("gemini_request.json")
    facts = DIALECT.read_request(raw, GEMINI_PATH)
    text = "\n".join(facts.text)
    for piece in (
        "Answer as a numismatist.", "What is this coin worth?", "price_of", '{"coin":"farthing","year":1936}',
        "Y2lwaGVydGV4dA==", '{"result":"£2"}', "The price of a coin.", '"pounds"', '"AUTO"',
    ):  # fmt: skip
        assert piece in text
    assert "iVBOR" not in text
    assert facts.images == [Image(512, 512, "auto")]
    assert (facts.model, facts.output_ceiling, facts.choices) == ("gemini-2.5-flash", 256, 2)
    # Below a thinking budget the answer would be paid for and empty.
    assert facts.min_output_tokens == 129
    assert facts.open_reasons == ()
    assert (facts.stream, facts.wants_usage, facts.body_bytes) == (False, True, len(raw))


def test_snake_case_and_single_objects_mean_the_same() -> None:
    def snaked(value: Any) -> Any:
        if isinstance(value, list):
            return [snaked(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            "".join("_" + c.lower() if c.isupper() else c for c in key): item
            if key in ("args", "response", "parameters", "responseSchema", "toolConfig")
            else snaked(item)
            for key, item in value.items()
        }

    camel = recorded_object("gemini_request.json")
    snake = snaked(camel)
    snake["system_instruction"]["parts"] = snake["system_instruction"]["parts"][0]
    snake["contents"][0]["parts"] = list(snake["contents"][0]["parts"])
    snake["generation_config"]["max_output_tokens"] = "256"
    one = DIALECT.read_request(json.dumps(camel).encode(), GEMINI_PATH)
    other = DIALECT.read_request(json.dumps(snake).encode(), GEMINI_PATH)
    for field in ("text", "overhead_tokens", "images", "output_ceiling", "choices", "min_output_tokens"):
        assert getattr(other, field) == getattr(one, field), field


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"contents": None}, "contents"),
        ({"contents": "hi"}, "contents"),
        ({"contents": [{"parts": "hi"}]}, "parts"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "maxOutputTokens"),
        ({"generationConfig": {"maxOutputTokens": "many"}}, "maxOutputTokens"),
        ({"generationConfig": {"maxOutputTokens": 5, "max_output_tokens": 9}}, "given twice"),
        ({"generationConfig": {"candidateCount": -1}}, "candidateCount"),
        ({"generationConfig": {}, "generation_config": {}}, "given twice"),
        ({"tools": [5]}, "tools"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        read(**fields)


@pytest.mark.parametrize(
    ("fields", "needle"),
    [
        ({"executableCode": {"language": "PYTHON", "code": "print(1)"}}, "print(1)"),
        ({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}, "1"),
        ({"function_call": {"name": "f", "args": {"deep": ["x"]}}}, '{"deep":["x"]}'),
        ({"inlineData": {"mimeType": "text/plain", "data": base64.b64encode(b"plain text").decode()}}, "plain text"),
        ({"inlineData": {"mimeType": "text/csv", "data": "%%%"}}, "%%%"),
        ({"text": "seen", "partMetadata": {"page": "nine"}}, "nine"),
    ],
)
def test_parts_are_read(fields: dict[str, Any], needle: str) -> None:
    facts = part(**fields)
    assert needle in "\n".join(facts.text)
    assert facts.open_reasons == ()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"fileData": {"fileUri": "files/a", "mimeType": "application/pdf"}}, "file by URI"),
        ({"file_data": {"file_uri": "files/a"}}, "file by URI"),
        ({"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}, "inline audio/wav"),
        ({"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}}, "inline video/mp4"),
        ({"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}}, "inline application/pdf"),
        ({"inlineData": {"data": "AAAA"}}, "inline data"),
        ({"toolCall": {"id": "t"}}, "unknown part 'toolCall'"),
        ({"somethingNew": {"text": "hidden"}}, "unknown part 'somethingNew'"),
    ],
)
def test_parts_without_a_bound_are_open(fields: dict[str, Any], reason: str) -> None:
    assert tuple(part(**fields).open_reasons) == (reason,)


def test_a_result_may_hold_parts_of_its_own() -> None:
    inner = {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}
    facts = part(functionResponse={"name": "f", "response": {"ok": True}, "parts": [inner]})
    assert tuple(facts.open_reasons) == ("inline audio/wav",)
    for _ in range(20):
        inner = {"functionResponse": {"name": "f", "parts": [inner]}}
    assert tuple(part(**inner).open_reasons) == ("unknown nesting",)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tools": [{"googleSearch": {}}]}, "hosted tool googleSearch"),
        ({"tools": [{"google_search": {}}]}, "hosted tool google_search"),
        ({"tools": {"codeExecution": {}}}, "hosted tool codeExecution"),
        ({"tools": [{"urlContext": {}}]}, "hosted tool urlContext"),
        ({"tools": [{"functionDeclarations": [], "somethingNew": {}}]}, "hosted tool somethingNew"),
        ({"cachedContent": "cachedContents/c"}, "cachedContent"),
        ({"cached_content": "cachedContents/c"}, "cachedContent"),
        ({"generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}}, "image output"),
        ({"generationConfig": {"response_modalities": ["AUDIO"]}}, "audio output"),
        ({"path": "/v1beta/models/gemini-2.5-flash-image:generateContent"}, "output that is no text"),
    ],
)
def test_requests_without_a_bound_are_open(fields: dict[str, Any], reason: str) -> None:
    assert tuple(read(**fields).open_reasons) == (reason,)


def test_declared_functions_are_text() -> None:
    tools = [{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}, {"function_declarations": [{"name": "h"}]}]
    facts = read(tools=tools)
    assert facts.open_reasons == ()
    assert facts.text[1:] == ['{"name":"f"}', '{"name":"g"}', '{"name":"h"}']
    assert facts.overhead_tokens > read().overhead_tokens + 3 * 10


@pytest.mark.parametrize(
    ("resolution", "detail"),
    [
        (None, "auto"),
        ("MEDIA_RESOLUTION_LOW", "auto"),
        ("MEDIA_RESOLUTION_HIGH", "auto"),
        ("MEDIA_RESOLUTION_ULTRA_HIGH", "original"),
        (7, "original"),
        ({"level": "MEDIA_RESOLUTION_ULTRA_HIGH"}, "original"),
        ({"level": "MEDIA_RESOLUTION_LOW"}, "auto"),
    ],
)
def test_the_resolution_of_an_image(resolution: Any, detail: str) -> None:
    image = {"mimeType": "image/png", "data": "AAAA"}
    assert part(inlineData=image, mediaResolution=resolution).images == [Image(None, None, detail)]
    contents = [{"parts": [{"inlineData": image}]}]
    facts = read(contents=contents, generationConfig={"mediaResolution": resolution})
    assert facts.images == [Image(None, None, detail)]


def test_an_image_with_tokens_of_its_own_is_open() -> None:
    image = {"mimeType": "image/png", "data": "AAAA"}
    assert part(inlineData=image, mediaResolution={"numTokens": 9000}).open_reasons


@pytest.mark.parametrize(
    ("budget", "least", "no_reasoning"), [(None, 1, False), (-1, 1, False), (0, 1, True), (1024, 1025, False)]
)
def test_a_thinking_budget(budget: int | None, least: int, no_reasoning: bool) -> None:
    facts = config(thinkingConfig={"thinkingBudget": budget})
    assert (facts.min_output_tokens, facts.no_reasoning) == (least, no_reasoning)
    pro = "/v1beta/models/gemini-3-pro-preview:generateContent"
    assert not read(pro, generationConfig={"thinkingConfig": {"thinkingBudget": budget}}).no_reasoning


# --- the path ----------------------------------------------------------------------------------------------------

LITE = "gemini-2.5-flash-lite"
VERTEX = "/v1/projects/p/locations/l/publishers/google/models"


@pytest.mark.parametrize(
    ("path", "model", "other"),
    [
        (GEMINI_SSE, "gemini-2.5-flash", "/v1beta/models/gemini-2.5-flash-lite:streamGenerateContent?alt=sse"),
        (
            f"{VERTEX}/gemini-2.5-pro:generateContent",
            "gemini-2.5-pro",
            f"{VERTEX}/gemini-2.5-flash-lite:generateContent",
        ),
        (
            "/v1beta/tunedModels/mine-1:generateContent?key=a:b",
            "tunedModels/mine-1",
            "/v1beta/models/gemini-2.5-flash-lite:generateContent?key=a:b",
        ),
        ("/v1beta/models/g@001:countTokens", "g@001", "/v1beta/models/gemini-2.5-flash-lite:countTokens"),
    ],
)
def test_the_model_stands_in_the_path(path: str, model: str, other: str) -> None:
    assert model_in(path) == model
    assert other_model(path, "gemini-2.5-flash-lite") == other
    assert other_model(path, "models/gemini-2.5-flash-lite") == other


def test_a_downgrade_may_name_a_tuned_model() -> None:
    assert other_model(GEMINI_PATH, "tunedModels/mine") == "/v1beta/tunedModels/mine:generateContent"
    assert other_model(GEMINI_PATH, "odd/../name?x:y") == "/v1beta/../name%3Fx%3Ay:generateContent"


def test_a_path_without_a_model_is_refused() -> None:
    assert other_model("/v1beta/models", "x") is None
    with pytest.raises(ValueError, match="path"):
        DIALECT.read_request(body(contents=USER))
    with pytest.raises(ValueError, match="path"):
        EMBEDDINGS.read_request(body(content=USER[0]))


@pytest.mark.parametrize(
    "query",
    [
        "fields=candidates",
        "alt=sse&$fields=a",
        "%24fields=a",
        "key=k;%66ields=a",
        "fields",
        "Fields=a",
        "$alt=sse&fields=",
    ],
)
def test_a_query_that_hides_what_an_answer_cost_is_refused(query: str) -> None:
    for dialect in (DIALECT, EMBEDDINGS):
        with pytest.raises(ValueError, match=r"(?i)fields in the query"):
            dialect.read_request(body(contents=USER, content=USER[0]), f"{GEMINI_PATH}?{query}")


@pytest.mark.parametrize("query", ["key=fields", "alt=sse&key=a", "myfields=1", "$alt=json;enum-encoding=int"])
def test_other_queries_are_not(query: str) -> None:
    assert DIALECT.read_request(body(contents=USER), f"{GEMINI_PATH}?{query}").model == "gemini-2.5-flash"


@pytest.mark.parametrize(
    ("path", "stream", "sse", "kind"),
    [
        (GEMINI_PATH, False, True, "text/event-stream"),
        (GEMINI_SSE, True, True, "text/event-stream"),
        (GEMINI_ARRAY, True, False, "application/json"),
        (f"{GEMINI_ARRAY}?key=k&alt=json", True, False, "application/json"),
        (f"{GEMINI_ARRAY}?key=k&$alt=sse", True, True, "text/event-stream"),
    ],
)
def test_the_method_says_whether_it_is_a_stream(path: str, stream: bool, sse: bool, kind: str) -> None:
    assert streams(path) == (stream, sse)
    facts = read(path)
    assert (facts.stream, facts.stream_type) == (stream, kind)


# --- rewriting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"generationConfig": {"maxOutputTokens": 7}}),
        ({"generationConfig": {"topK": 1}}, {"generationConfig": {"topK": 1, "maxOutputTokens": 7}}),
        ({"generationConfig": {"maxOutputTokens": 99}}, {"generationConfig": {"maxOutputTokens": 7}}),
        ({"generation_config": {"max_output_tokens": 99}}, {"generation_config": {"max_output_tokens": 7}}),
        ({"generationConfig": {"max_output_tokens": "9"}}, {"generationConfig": {"max_output_tokens": 7}}),
    ],
)
def test_a_ceiling_lands_in_the_callers_own_field(before: dict[str, Any], after: dict[str, Any]) -> None:
    facts = read(**before)
    changed = json.loads(DIALECT.rewrite(facts, output_ceiling=7))
    assert changed == {"contents": USER, **after}
    assert facts.body == {"contents": USER, **before}


def test_a_model_in_the_body_is_renamed_too() -> None:
    facts = read(model="models/gemini-2.5-flash")
    assert json.loads(DIALECT.rewrite(facts, model="gemini-2.5-pro"))["model"] == "models/gemini-2.5-pro"
    assert "model" not in json.loads(DIALECT.rewrite(read(), model="gemini-2.5-pro"))


# --- answers -----------------------------------------------------------------------------------------------------


def test_the_recorded_answer() -> None:
    """1,320 of prompt, 1,024 of them cached, 30 beside it from tools; of the audio (300), 100 were cached."""
    answer = DIALECT.read_answer(read(), 200, recorded("gemini_answer.json"))
    assert answer == AnswerFacts(
        usage=Usage(input=126, cached=924, input_audio=200, cached_audio=100, output=100, reasoning=88),
        model="gemini-2.5-flash",
        response_id="Yx0aab",
        finish="STOP",
        complete=True,
    )
    assert answer.usage is not None
    assert answer.usage.total_tokens == 1450


def test_image_output_is_a_kind_of_its_own() -> None:
    usage = {
        "promptTokenCount": 5, "candidatesTokenCount": 1300, "totalTokenCount": 1305,
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
    }  # fmt: skip
    answer = DIALECT.read_answer(read(), 200, body(candidates=[], usageMetadata=usage))
    assert answer.usage == Usage(input=5, output=10, output_image=1290)


def test_a_surplus_in_the_total_is_output() -> None:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 10, "totalTokenCount": 40}
    answer = DIALECT.read_answer(read(), 200, body(candidates=[], usageMetadata=usage))
    assert answer.usage == Usage(input=5, output=35)
    assert answer.usage_note is not None


def test_a_plain_answer_without_usage_gives_its_text() -> None:
    candidates = [
        {"content": {"parts": [{"text": "thought", "thought": True}, {"text": "said"}]}, "finishReason": "STOP"},
        {"content": {"parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}]}, "finishReason": "MAX_TOKENS"},
    ]
    answer = DIALECT.read_answer(read(), 200, body(candidates=candidates))
    assert (answer.usage, answer.complete, answer.finish) == (None, True, "length")
    assert answer.text == ("thought", "said", "f", '{"a":1}')


def test_a_blocked_prompt() -> None:
    feedback = {"blockReason": "SAFETY"}
    usage = {"promptTokenCount": 8, "totalTokenCount": 8}
    answer = DIALECT.read_answer(read(), 200, body(promptFeedback=feedback, usageMetadata=usage))
    assert (answer.usage, answer.finish, answer.complete, answer.error) == (Usage(input=8), "SAFETY", True, False)


def test_enumerations_may_be_told_as_numbers() -> None:
    """``$alt=json;enum-encoding=int``, with which Google's generated REST clients ask."""
    details = [{"modality": 1, "tokenCount": 5}, {"modality": 4, "tokenCount": 90}]
    usage = {"promptTokenCount": 95, "candidatesTokenCount": 2, "totalTokenCount": 97, "promptTokensDetails": details}
    candidate = {"content": {"parts": [{"text": "one two"}]}, "finishReason": 2, "index": 0}
    whole = body(candidates=[candidate], usageMetadata=usage)
    answer = DIALECT.read_answer(read(), 200, whole)
    assert (answer.usage, answer.finish) == (Usage(input=5, input_audio=90, output=2), "length")
    meter = DIALECT.meter(read(GEMINI_ARRAY), strip_usage=False)
    meter.feed(b"[" + whole + b"]")
    meter.finish()
    assert (meter.facts().usage, meter.facts().finish, meter.complete) == (answer.usage, "length", True)
    refused = body(promptFeedback={"blockReason": 1}, usageMetadata={"promptTokenCount": 8, "totalTokenCount": 8})
    assert DIALECT.read_answer(read(), 200, refused).finish == "1"


def test_errors() -> None:
    raw = recorded("gemini_error.json")
    assert DIALECT.read_answer(read(), 429, raw).error
    assert DIALECT.read_answer(read(), 200, raw).error
    unreadable = DIALECT.read_answer(read(), 200, b"<html>")
    assert (unreadable.error, unreadable.complete) == (False, False)


@pytest.mark.parametrize(
    ("told", "tier"),
    [
        ({"serviceTier": "priority"}, "priority"),
        ({"serviceTier": "SERVICE_TIER_FLEX"}, "flex"),
        ({"trafficType": "ON_DEMAND_PRIORITY"}, "priority"),
        ({"trafficType": "ON_DEMAND"}, None),
        ({}, None),
    ],
)
def test_the_tier_that_served_it(told: dict[str, Any], tier: str | None) -> None:
    answer = DIALECT.read_answer(read(), 200, body(candidates=[], usageMetadata={"promptTokenCount": 1, **told}))
    assert answer.service_tier == tier


# --- the array ---------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(['"', "\\", "{", "}", '\\"', "][,"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=4), max_size=5),
    st.sampled_from([None, 2]),
    st.booleans(),
    st.lists(st.integers(0, 5000), max_size=30),
)
def test_any_split_of_an_array_gives_the_same_objects(
    objects: list[dict[str, Any]], indent: int | None, ascii_only: bool, places: list[int]
) -> None:
    array = json.dumps(objects, indent=indent, ensure_ascii=ascii_only).encode()
    edges = [0, *sorted(place % (len(array) + 1) for place in places), len(array)]
    splitter = ArraySplitter()
    found = [one for a, b in pairwise(edges) for one in splitter.feed(array[a:b])]
    assert [json.loads(one) for one in found] == objects
    assert (splitter.finish(), splitter.held) == ([], b"")


@given(st.binary(max_size=200), st.integers(1, 20))
def test_anything_can_be_split(data: bytes, size: int) -> None:
    splitter = ArraySplitter()
    for start in range(0, len(data), size):
        splitter.feed(data[start : start + size])
    assert len(splitter.held) <= len(data)


def test_an_object_that_is_too_large_is_left_out() -> None:
    splitter = ArraySplitter(max_object_bytes=50)
    large = b'{"text":"' + b"x" * 100 + b'"}'
    for start in range(0, len(large), 10):
        assert splitter.feed(large[start : start + 10]) == []
        assert len(splitter.held) <= 50
    assert splitter.feed(b',{"a":1}]') == [b'{"a":1}']


# --- embeddings --------------------------------------------------------------------------------------------------


def test_the_recorded_batch_of_embeddings() -> None:
    path = "/v1beta/models/gemini-embedding-001:batchEmbedContents"
    facts = EMBEDDINGS.read_request(recorded("gemini_embeddings_request.json"), path)
    assert facts.text == ["a farthing", "Coins", "two farthings"]
    assert (facts.model, facts.output_ceiling, facts.min_output_tokens) == ("gemini-embedding-001", 0, 0)
    changed = json.loads(EMBEDDINGS.rewrite(facts, model="gemini-embedding-2", output_ceiling=5))
    expected = recorded_object("gemini_embeddings_request.json")
    for one in expected["requests"]:
        one["model"] = "models/gemini-embedding-2"
    assert changed == expected
    assert EMBEDDINGS.rewrite_path(facts, model="gemini-embedding-2") == path.replace("embedding-001", "embedding-2")
    answer = EMBEDDINGS.read_answer(facts, 200, recorded("gemini_embeddings_answer.json"))
    assert answer == AnswerFacts(usage=Usage(input=7), complete=True)


def test_embeddings_without_a_figure_are_complete() -> None:
    facts = EMBEDDINGS.read_request(body(content={"parts": [{"text": "hi"}]}), GEMINI_EMBEDDINGS_PATH)
    answer = EMBEDDINGS.read_answer(facts, 200, body(embedding={"values": [1.0]}))
    assert (answer.usage, answer.complete, answer.error) == (None, True, False)
    assert says_anything(answer)
    assert not says_anything(EMBEDDINGS.read_answer(facts, 200, b"{}"))


def test_what_is_embedded_beside_text_is_open() -> None:
    image = {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}
    facts = EMBEDDINGS.read_request(body(content=image), GEMINI_EMBEDDINGS_PATH)
    assert tuple(facts.open_reasons) == ("images to embed",)
    with pytest.raises(ValueError, match="several inputs"):
        EMBEDDINGS.read_request(body(requests=[{"content": image}, {"content": image}]), GEMINI_EMBEDDINGS_PATH)


@pytest.mark.parametrize("fields", [{}, {"content": "hi"}, {"requests": []}, {"requests": [{}]}])
def test_what_is_no_embedding_request_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"content|requests"):
        EMBEDDINGS.read_request(body(**fields), GEMINI_EMBEDDINGS_PATH)
