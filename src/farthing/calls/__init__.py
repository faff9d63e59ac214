"""The life of a call, written once as a generator, and what it asks on its way. Every door drives this."""
