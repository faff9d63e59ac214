"""
Runs the steps of one document, in an interpreter and a directory of its own: ``python driver.py DOCUMENT < steps``.

Reads a JSON list of ``{kind, line, text}`` and writes, for each step that ran, one JSON line ``{output, exit_code}`` to
its own standard output. What a step prints is caught at the file descriptor, so that threads and subprocesses count
too. A python step that raises ends the run with its traceback, whose line numbers are the document's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any


def main() -> None:
    document = sys.argv[1]
    steps = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for step in steps:
        with tempfile.TemporaryFile() as caught:
            os.dup2(caught.fileno(), 1)
            exit_code = 0
            if step["kind"] == "python":
                program = compile("\n" * (step["line"] - 1) + step["text"] + "\n", document, "exec")
                exec(program, namespace)
                sys.stdout.flush()
            else:
                exit_code = subprocess.run(step["text"], shell=True, stdin=subprocess.DEVNULL, check=False).returncode
            caught.seek(0)
            output = caught.read().decode("utf-8")
        print(json.dumps({"output": output, "exit_code": exit_code}), file=answers, flush=True)


if __name__ == "__main__":
    main()
