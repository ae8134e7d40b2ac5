"""What the programs here have in common: lines of JSON on stdout, and an end when stdin ends."""

import json
import os
import sys
import threading

_LOCK = threading.Lock()


def say(**line):
    """Writes one line of JSON."""
    with _LOCK:
        print(json.dumps(line), flush=True)


def end_with_stdin():
    """Ends the process when the test that started it is gone, whatever else is going on."""

    def wait():
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
