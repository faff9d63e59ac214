"""What the proxy answers itself, beside calls: its health, its figures, what callers and admins may ask."""
