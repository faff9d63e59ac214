def demo() -> None:
    """Show."""
