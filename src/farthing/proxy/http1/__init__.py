"""
A lean HTTP/1.1 client towards providers: an ``asyncio.Protocol`` around ``httptools``, plain coroutines above it.

It knows nothing of budgets, dialects or this proxy: an URL, headers and a body go out, an answer comes back as it was
sent. :class:`~.client.Http1Client` is what :mod:`..upstream` asks for. Nothing is sent twice unless the kernel proves
that the first sending never arrived (:mod:`.delivery`).
"""
