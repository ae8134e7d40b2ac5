"""What the Python members of groups of tooz have in common: they ask for their part once in each interval."""

import sys
import threading

import tooz

import peer


class Service:
    """One life of a service, from its start to its end. A subclass has joined when it calls this."""

    def __init__(self, keys, interval):
        self._keys = [f"alarm-{number}" for number in range(keys)]
        self._interval = interval
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)
        self._thread.start()

    def stop(self):
        self._ends.set()
        self._thread.join()
        peer.say(asks=peer.now())
        try:
            self.end()
        except tooz.ToozError as error:
            # It was not in the group any more.
            print(error, file=sys.stderr)

    def _repeat(self):
        pause = 0
        while not self._ends.wait(pause):
            self._ask()
            pause = self._interval

    def _ask(self):
        peer.say(asks=peer.now())
        error = None
        try:
            mine = self.part(self._keys)
        except Exception as raised:
            # As in the services: the cycle has failed, and the next one comes.
            mine, error = [], f"{type(raised).__name__}: {raised}"
        peer.say(at=peer.now(), keys=[int(key.removeprefix("alarm-")) for key in mine], error=error)


def main(start):
    service = None
    peer.say(ready=True)
    for command in peer.commands():
        if command["do"] == "join":
            service = start()
            peer.say(joined=peer.now())
        else:
            service.stop()
            peer.say(left=peer.now())
