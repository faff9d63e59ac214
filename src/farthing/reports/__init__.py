"""Read models: what was, what is, and what would be. Nothing here changes what is asked about."""
