"""What the Python members of groups of tooz have in common: they ask for their part once in each interval."""

import sys
import threading
import time

import tooz

import peer


class Service:
    """One life of a service, from its start to its end. A subclass connects, joins, and says which part is its own."""

    def __init__(self, keys, interval, key=str):
        self._keys = [key(f"alarm-{number}") for number in range(int(keys))]
        self._interval = float(interval)
        self._ends = threading.Event()
        self._has_joined = False
        self._begin()
        self._thread = threading.Thread(target=self._repeat, daemon=True)
        self._thread.start()

    def stop(self):
        self._ends.set()
        self._thread.join()
        peer.say(asks=peer.now())
        self._end()

    def _begin(self):
        """As a supervisor starts a service: again until it runs. Tooz fails if a member goes while it reads the group."""
        while True:
            try:
                return self.begin()
            except tooz.ToozError as error:
                print(f"not started: {error!r}", file=sys.stderr)
                self._end()
                time.sleep(self._interval / 5)

    def _end(self):
        try:
            self.end()
        except tooz.ToozError as error:
            # It was not in the group any more.
            print(f"ended: {error!r}", file=sys.stderr)

    def _repeat(self):
        pause = 0
        while not self._ends.wait(pause):
            self._ask()
            pause = self._interval

    def _ask(self):
        peer.say(asks=peer.now())
        error, has_joined, self._has_joined = None, self._has_joined, False
        try:
            mine = self.part(self._keys)
            is_in = self.is_in()
        except Exception as raised:
            # As in the services: the cycle has failed, and the next one comes.
            mine, is_in, error = [], True, f"{type(raised).__name__}: {raised}"
        at, keys = peer.now(), [int(key.removeprefix("alarm-")) for key in mine if is_in]
        peer.say(at=at, keys=keys, has_joined=has_joined, error=error)
        if not is_in:
            # After the end of its session, tooz does not join again, and its member has no part any more.
            self._end()
            self._begin()
            self._has_joined = True


def main(start, *packages):
    service = None
    peer.ready(*packages)
    for command in peer.commands():
        if command["do"] == "join":
            service = start()
            peer.say(joined=peer.now())
        else:
            service.stop()
            peer.say(left=peer.now())
