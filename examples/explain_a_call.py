"""
Would it pass? ``explain`` says what would become of a call now, why not, and when; nothing is sent or held.

Output::

    yes, with at most 192 tokens of output
      clamped to 192 tokens: all that fits in budget 'run'
    no: 'day' has 700 tokens left, and 2008 are asked
      It would not pass by itself. …
"""

from farthing import budget, explain, hold

messages = [{"role": "user", "content": "hi"}]

with budget("day", tokens=1_000, per="day"), budget("run", tokens=500, on_exceed="clamp"):
    with hold(tokens=300) as call:
        call.settle(tokens=300)

    answer = explain("gpt-4o", messages, max_tokens=400)
    print("yes, with at most", answer.output_tokens, "tokens of output")
    print("  " + "\n  ".join(answer.steps))

    answer = explain("gpt-4o", messages, max_tokens=2_000)
    no = answer.decision
    print(f"no: {no.budget!r} has {no.remaining} tokens left, and {no.asked} are asked")
    print(f"  {answer.passes}")
