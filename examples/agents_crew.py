"""
A crew of four on one pool: whoever matters more borrows from the others before a call, and gives back what it left.

Output::

    researcher: 708 of 708 tokens used
    writer: 108 of 400 tokens used
    critic: 0 of 300 tokens used
    editor: 0 of 92 tokens used
    the editor is told: Agent 'editor' requested 308 tokens, but only 92 tokens were available…
    the provider billed 816 tokens
"""

from openai import OpenAI

from farthing import BudgetExceededError, BudgetManager, instrument
from farthing.testing import FakeProvider, Reply

manager = BudgetManager()
manager.register_agent("researcher", priority=4, max_tokens=500)
manager.register_agent("writer", priority=3, max_tokens=400)
manager.register_agent("critic", priority=2, max_tokens=300)
manager.register_agent("editor", priority=1, max_tokens=300)

with FakeProvider(Reply(output_tokens=1_000)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    def ask(words: int) -> str:
        answer = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}], max_tokens=words
        )
        return answer.choices[0].message.content or ""

    research = manager.govern("researcher")(ask)
    write = manager.govern("writer")(ask)
    edit = manager.govern("editor")(ask)

    research(700)
    write(100)
    for name, figures in manager.report().items():
        print(f"{name}: {figures['consumed']} of {figures['allocated']} tokens used")
    try:
        edit(300)
    except BudgetExceededError as no:
        print("the editor is told:", no)
    print("the provider billed", provider.billed_tokens, "tokens")
