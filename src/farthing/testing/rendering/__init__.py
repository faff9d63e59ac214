"""How the fake provider answers: one file for each family of endpoints, which renders what was generated."""
