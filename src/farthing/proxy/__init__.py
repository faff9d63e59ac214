"""
The proxy: a door for clients in any language. They point their base URL here and get hard budgets.

It holds no rule of its own: it reads a request, drives the life of a call, and relays bytes. Raw ASGI; whatever
answers in a form of its own (keys, balances, health) hangs on :mod:`.pages`, off the path of a call.
"""
