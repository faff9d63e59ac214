"""
The index: every fault that was measured in the predecessors' coverage and counting, and the test that shows its case.

A row without a test fails here, and so does a test that is named and gone. Rows of other sections (races, policies,
modes) name their source in their own docstrings.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_OPENAI = "test_every_openai_entry_point_is_held_and_paid"
_ANTHROPIC = "test_every_anthropic_entry_point_is_held_and_paid"
_OTHERS = "test_no_other_endpoint_passes_a_budget_unseen"

FAULTS: dict[str, tuple[str, ...]] = {
    # 2.4: what an in-process guard saw of the calls of real SDKs
    "2.4 openai with_streaming_response: 0 tokens": (f"{_OPENAI}[streaming response]",),
    "2.4 openai stream helper: TypeError, sync and async": (f"{_OPENAI}[stream helper]", "test_async_clients_too"),
    "2.4 openai with_options, copy: unseen": (f"{_OPENAI}[with_options]", f"{_OPENAI}[copy]"),
    "2.4 openai beta parse: unseen": (f"{_OPENAI}[beta parse]",),
    "2.4 openai legacy completions: unseen": (f"{_OTHERS}[legacy completions]",),
    "2.4 openai images.generate: unseen": (f"{_OTHERS}[images]",),
    "2.4 openai raw post: unseen": (f"{_OPENAI}[raw post]",),
    "2.4 anthropic with_options: unseen": (f"{_ANTHROPIC}[with_options]",),
    "2.4 anthropic beta.messages.create: unseen": (f"{_ANTHROPIC}[beta]",),
    "2.4 anthropic beta.messages.stream: unseen": (f"{_ANTHROPIC}[beta stream]", "test_async_clients_too"),
    "2.4 anthropic batches.create: unseen": ("test_message_batches_are_refused",),
    "2.4 SDK-internal retries: invisible": (
        "test_the_sdks_own_retries_are_seen_one_by_one",
        "test_a_limit_on_requests_stops_the_sdks_own_retries",
    ),
    "2.4 un-instrumented client: no warning": (
        "test_an_uninstrumented_client_inside_a_hard_budget_is_said",
        "test_a_client_that_cannot_be_governed_is_said_loudly",
    ),
    "2.4 module-level client": ("test_the_module_level_client",),
    "2.4 not tested: google-genai": ("test_google_genai_sync_and_async_on_several_event_loops",),
    # 3.4: what was counted
    "S1 20 streams launched before any is drained": ("test_s1_twenty_streams_launched_before_any_is_drained",),
    "S2 streams interleaved": ("test_s2_streams_interleaved_under_clamp",),
    "S3 abandoned streams: 0": (
        "test_s3_abandoned_streams_are_counted",
        "test_s3_closed_by_the_client_after_some_chunks",
    ),
    "S4 a stream that raises: 0": ("test_s4_a_stream_that_breaks_is_counted",),
    "S5 tool-argument deltas not counted": ("test_s5_tool_arguments_are_output",),
    "B1 no max_tokens: a reserve of 256": ("test_b1_a_request_without_a_ceiling",),
    "B2 n ignored": ("test_b2_choices_multiply",),
    "B3 tool results, tool calls, documents, parts: 7 tokens": (
        "test_b3_b4_the_whole_chat_request_counts[tool result]",
        "test_b3_b4_the_whole_response_request_counts[function_call_output]",
        "test_b3_b4_the_whole_message_request_counts[document]",
        "test_b3_gemini_parts_count",
    ),
    "B4 system, tools, instructions, max_output_tokens not read": (
        "test_b3_b4_the_whole_message_request_counts[system]",
        "test_b3_b4_the_whole_chat_request_counts[tool schema]",
        "test_b3_b4_the_whole_response_request_counts[instructions]",
        "test_b4_max_output_tokens_is_read",
    ),
    "B5 clamp sends a field the endpoint rejects": ("test_b5_clamp_uses_the_field_that_the_endpoint_knows",),
    "E1 timeouts after billing, answers without usage: 0": ("test_e1_what_may_have_been_billed_is_counted",),
    "E2 a sink that fails; a locked file that stalls": (
        "test_e2_a_sink_that_fails_costs_neither_the_answer_nor_the_count",
        "test_a_locked_ledger_refuses_and_never_stalls_for_ever",
    ),
    "O1 first use needs the network": ("test_o1_first_use_needs_no_network",),
    "O2 special-token text": ("test_o2_special_token_text_is_text",),
    "P1 usage fields dropped": ("test_p1_every_kind_of_usage_is_kept",),
    "P2 Claude counted 1.66 times too low": ("test_p2_claudes_denser_tokeniser_stays_within_its_hold",),
    "U1 an unpriced model is free": ("test_u1_an_unpriced_model_is_not_free",),
}


def _tests() -> dict[str, str]:
    """The source of each test function in this folder, by name, and of its module's constants with it."""
    found = {}
    for path in HERE.glob("test_*.py"):
        text = path.read_text("utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                found[node.name] = text
    return found


TESTS = _tests()


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_test(fault: str) -> None:
    assert FAULTS[fault]
    for named in FAULTS[fault]:
        name, bracket, case = named.partition("[")
        assert name in TESTS, f"{fault}: no test is called {name}"
        if bracket:
            assert f'"{case[:-1]}":' in TESTS[name], f"{fault}: {name} has no case {case[:-1]!r}"
