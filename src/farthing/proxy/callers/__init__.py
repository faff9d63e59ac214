"""Who calls: the identity that budgets match, from the headers of a request and the keys of a ledger."""
