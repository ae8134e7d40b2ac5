"""partitioner.py URL GROUP ID KEYS INTERVAL WEIGHT

A member of a partitioned group of tooz, as services that use tooz.partitioner run it: it joins with a weight, and once in
each interval it runs its watchers, and works on those keys that belong to it. Key n is "alarm-<n>".

Commands: {"do": "join"}, {"do": "leave"}. It says when it asks for its part, and what the answer is.
"""

import sys
from importlib import metadata

from tooz import coordination

import cycle


class Key(str):
    """A key that each version of tooz hashes alike.

    Tooz 1.58 hashes hash(key) of other objects, which for a text is different in each process.
    """

    def __tooz_hash__(self):
        return self.encode()


class Service(cycle.Service):
    """One life of the service, from its start to its end."""

    def __init__(self, url, group, member, keys, interval, weight):
        self._url, self._group, self._member, self._weight = url, group, member.encode(), int(weight)
        super().__init__(keys, interval, Key if metadata.version("tooz").startswith("1.") else str)

    def begin(self):
        self._coordinator = coordination.get_coordinator(self._url, self._member)
        self._coordinator.start(start_heart=True)
        self._partitioner = self._coordinator.join_partitioned_group(self._group, weight=self._weight)

    def part(self, keys):
        self._coordinator.run_watchers()
        return [key for key in keys if self._partitioner.belongs_to_self(key)]

    def is_in(self):
        return self._member in self._partitioner.ring.nodes

    def end(self):
        self._coordinator.stop()


cycle.main(lambda: Service(*sys.argv[1:]), "tooz")
