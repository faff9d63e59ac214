"""
One file for the limits: its budgets bind every call, without a ``with``, and are changed in the file only.

Output::

    alice paid $0.0002 of $0.0003
    alice: each-user says no, 0.0001 remain
    bob paid $0.0002 of $0.0003
    farthing.toml: line 4: budgets.each-user.perr: unknown key; did you mean 'per'?
"""

from pathlib import Path

from farthing import BudgetExceeded, ConfigError, budget, configure, hold, track

file = Path("farthing.toml")
file.write_text("""
[[budgets]]
name = "each-user"
per = "day"
each = ["user"]
usd = "0.0003"
""")
configure(file)

for user in ["alice", "alice", "bob"]:
    with track(user=user):
        try:
            with hold(usd=0.0002, tokens=100) as call:
                call.settle(usd=0.0002, tokens=90)
            print(user, f"paid ${budget('each-user').spent.usd} of $0.0003")
        except BudgetExceeded as no:
            print(f"{user}: {no.budget} says no, {no.remaining} remain")

file.write_text(file.read_text().replace("per =", "perr ="))
try:
    configure(file)
except ConfigError as mistake:
    print(mistake)
