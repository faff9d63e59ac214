"""Goal: an image is held for what it can cost, or said to be open; its tokens are priced as image tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farthing.kernel.usage import Usage
from farthing.wire.facts import AnswerFacts, RequestFacts
from farthing.wire.openai.images import IMAGE_TOKENS, OPEN_IMAGE_TOKENS, OpenAIImages

from .recorded_bodies import body, recorded

DIALECT = OpenAIImages()


def read(**fields: Any) -> RequestFacts:
    return DIALECT.read_request(body(**{"model": "gpt-image-1-mini", "prompt": "a coin", **fields}))


def test_the_first_generations_images_have_a_published_maximum() -> None:
    facts = DIALECT.read_request(recorded("openai_images_request.json"))
    assert facts.text == ["A farthing of 1936, wren side up"]
    # All or nothing: nothing on the wire could make the image cheaper.
    assert facts.output_ceiling == facts.min_output_tokens == IMAGE_TOKENS
    assert (facts.choices, facts.open_reasons) == (1, ())
    assert read(n=3).choices == 3
    assert read(stream=True, partial_images=3).output_ceiling == IMAGE_TOKENS + 300


@pytest.mark.parametrize("model", ["gpt-image-1.5", "gpt-image-2", "gpt-image-2.5-sunburst", "chatgpt-image-latest"])
def test_later_models_images_are_open(model: str) -> None:
    facts = read(model=model)
    assert tuple(facts.open_reasons) == (f"image output of {model}",)
    assert facts.output_ceiling == OPEN_IMAGE_TOKENS


def test_images_given_are_open() -> None:
    assert tuple(read(images=[{"file_id": "f"}]).open_reasons) == ("image input",)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (body(model="dall-e-3", prompt="x"), "dall-e-3"),
        (body(prompt="x"), "model"),
        (b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n--b--\r\n', "multipart"),
        (body(model="gpt-image-1-mini", prompt="x", output_format="svg"), "svg"),
        (body(model="gpt-image-1-mini", prompt="x", output_format="gif"), "gif"),
    ],
)
def test_what_reports_no_tokens_is_refused_with_the_reason(raw: bytes, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        DIALECT.read_request(raw)


def test_nothing_but_the_model_is_ever_rewritten() -> None:
    raw = recorded("openai_images_request.json")
    facts = DIALECT.read_request(raw)
    changed = DIALECT.rewrite(facts, model="gpt-image-1", output_ceiling=5, ask_usage=True)
    assert json.loads(changed) == {**json.loads(raw), "model": "gpt-image-1"}


def test_the_recorded_answer_is_image_output() -> None:
    answer = DIALECT.read_answer(read(), 200, recorded("openai_images_answer.json"))
    assert answer == AnswerFacts(usage=Usage(input=18, output_image=272), complete=True)


def test_told_apart_text_and_images_stay_apart() -> None:
    usage = {
        "input_tokens": 30, "input_tokens_details": {"text_tokens": 10, "image_tokens": 20}, "output_tokens": 300,
        "output_tokens_details": {"text_tokens": 28, "image_tokens": 272}, "total_tokens": 330,
    }  # fmt: skip
    answer = DIALECT.read_answer(read(), 200, body(data=[], usage=usage))
    assert answer.usage == Usage(input=10, input_image=20, output=28, output_image=272)


def test_an_answer_without_a_figure_is_not_complete() -> None:
    """Nothing here counts an image: it costs what was held."""
    answer = DIALECT.read_answer(read(), 200, body(data=[{"b64_json": "x"}]))
    assert (answer.usage, answer.complete, answer.error) == (None, False, False)
    assert DIALECT.read_answer(read(), 400, body(error={"message": "no"})).error


def test_the_images_of_a_stream_add_up() -> None:
    meter = DIALECT.meter(read(n=2, stream=True), strip_usage=False)
    stream = recorded("openai_images_stream.sse")
    assert meter.feed(stream) == stream
    assert (meter.complete, meter.facts().usage) == (False, None)
    meter.feed(stream)
    assert (meter.complete, meter.facts().usage) == (True, Usage(input=36, output_image=744))
