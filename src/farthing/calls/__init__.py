"""The use cases: the life of a call, written once as a generator, and what surrounds it. Every door drives this."""
