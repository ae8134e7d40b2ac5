"""partitioner.py URL GROUP ID KEYS INTERVAL WEIGHT

A member of a partitioned group of tooz, as services that use tooz.partitioner run it: it joins with a weight, and once in
each interval it runs its watchers, and works on those keys that belong to it. Key n is "alarm-<n>".

Commands: {"do": "join"}, {"do": "leave"}. It says when it asks for its part, and what the answer is.
"""

import sys

from tooz import coordination

import cycle


class Service(cycle.Service):
    """One life of the service, from its start to its end."""

    def __init__(self, url, group, member, keys, interval, weight):
        self._coordinator = coordination.get_coordinator(url, member.encode())
        self._coordinator.start(start_heart=True)
        self._partitioner = self._coordinator.join_partitioned_group(group, weight=int(weight))
        super().__init__(int(keys), float(interval))

    def part(self, keys):
        self._coordinator.run_watchers()
        return [key for key in keys if self._partitioner.belongs_to_self(key)]

    def end(self):
        self._coordinator.stop()


cycle.main(lambda: Service(*sys.argv[1:]))
