"""What the programs of the tests have in common: lines of JSON on stdin and stdout, and an end when stdin ends."""

import json
import os
import sys
import threading
import time

_LOCK = threading.Lock()


def say(**line):
    """Writes one line of JSON."""
    with _LOCK:
        print(json.dumps(line), flush=True)


def now():
    """The clock of the host that counts suspend, in nanoseconds: one for all processes, also for those in Rust."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def commands():
    """The lines of JSON on stdin. Ends the process after the last, whatever else is going on."""
    for line in sys.stdin:
        yield json.loads(line)
    os._exit(0)


def end_with_stdin():
    """Ends the process when the test that started it is gone."""

    def wait():
        for _ in commands():
            pass

    threading.Thread(target=wait, daemon=True).start()
