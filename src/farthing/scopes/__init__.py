"""What a program puts around its calls: ``with budget(...)``, ``with track(...)``, and the decorators of both."""
