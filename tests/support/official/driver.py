"""Runs inside the environment of an official client: Python text in, JSON out, one line each.

Started as ``python -u driver.py``; imports nothing of this project. Each line of standard input is JSON text of Python
code, run in one namespace; the value it leaves in ``result`` comes back, or the error that ended it.
"""

import contextlib
import io
import json
import sys

namespace: dict = {}
out = sys.stdout
for line in sys.stdin:
    namespace.pop("result", None)
    said = io.StringIO()
    reply = {}
    try:
        with contextlib.redirect_stdout(said):
            exec(json.loads(line), namespace)
        reply["result"] = namespace.get("result")
        text = json.dumps(reply)
    except BaseException as error:  # noqa: BLE001 - told to the test, which raises it
        text = json.dumps({"error": f"{type(error).__name__}: {error}"})
    out.write(text + "\n")
    out.flush()
