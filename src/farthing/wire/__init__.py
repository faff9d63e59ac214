"""What providers and clients say: bytes to facts, and back. Pure: no I/O, no tokens counted, no price."""
