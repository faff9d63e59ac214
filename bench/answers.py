"""What the bench's provider answers: one chat completion, plain or as a stream."""

from __future__ import annotations

import json

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello"},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10},
    }
).encode()
_COMMON = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06"}


def sse_body(chunks: int) -> list[bytes]:
    """A chat stream of so many chunks of text, each as the bytes that arrive at once; with its usage at the end."""
    deltas = [{"content": f"word{number} "} for number in range(chunks)]
    frames = [{**_COMMON, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    usage = {"prompt_tokens": 8, "completion_tokens": chunks, "total_tokens": 8 + chunks}
    frames.append({**_COMMON, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    frames.append({**_COMMON, "choices": [], "usage": usage})
    return [f"data: {json.dumps(frame)}\n\n".encode() for frame in frames] + [b"data: [DONE]\n\n"]
