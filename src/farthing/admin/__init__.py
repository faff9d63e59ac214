"""What an operator sets and changes on a ledger: standing budgets, keys, and holds that nobody ended."""
