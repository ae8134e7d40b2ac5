"""evaluator.py URL GROUP ID KEYS INTERVAL

An alarm evaluator of aodh, as aodh.evaluator.AlarmEvaluationService runs it: a partition coordinator, heartbeats, and an
evaluation of its part of the alarms once in each interval. Alarm n has the id "alarm-<n>".

Commands: {"do": "join"}, {"do": "leave"}. It says when it asks for its part, and what the answer is.
"""

import sys
import threading

from oslo_config import cfg

from aodh import coordination

import peer


class Coordinator(coordination.PartitionCoordinator):
    """Counts how often it joins."""

    joins = 0

    def join_group(self, group_id):
        self.joins += 1
        return super().join_group(group_id)


class Service:
    """One life of the service, from its start to its end."""

    def __init__(self, url, group, member, keys, interval):
        conf = cfg.ConfigOpts()
        conf.register_opts(coordination.OPTS, group="coordination")
        conf([], project="aodh")
        conf.set_override("backend_url", url, group="coordination")
        self._group, self._keys, self._interval = group, keys, interval
        self._coordinator = Coordinator(conf, member.encode())
        self._ends = threading.Event()
        self._coordinator.start()
        self._coordinator.join_group(group)
        # Its name in old versions was another.
        options = {option.name.removesuffix("_interval"): option.default for option in coordination.OPTS}
        heartbeat = min(options["heartbeat"], interval / 4)
        self._threads = [
            threading.Thread(target=self._repeat, args=(self._evaluate, interval, interval), daemon=True),
            threading.Thread(target=self._repeat, args=(self._coordinator.heartbeat, 0, heartbeat), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._ends.set()
        for thread in self._threads:
            thread.join()
        peer.say(asks=peer.now())
        self._coordinator.stop()

    def _repeat(self, call, first, interval):
        pause = first
        while not self._ends.wait(pause):
            call()
            pause = interval

    def _evaluate(self):
        peer.say(asks=peer.now())
        error, joins = None, self._coordinator.joins
        try:
            mine = self._coordinator.extract_my_subset(self._group, [f"alarm-{n}" for n in range(self._keys)])
        except Exception as raised:
            # As in the service: the cycle has failed, and the next one comes.
            mine, error = [], f"{type(raised).__name__}: {raised}"
        at, has_joined = peer.now(), self._coordinator.joins > joins
        keys = [int(alarm.removeprefix("alarm-")) for alarm in mine]
        peer.say(at=at, keys=keys, has_joined=has_joined, error=error)


def main():
    url, group, member, keys, interval = sys.argv[1:]
    service = None
    peer.ready("aodh", "tooz", "kazoo")
    for command in peer.commands():
        if command["do"] == "join":
            service = Service(url, group, member, int(keys), float(interval))
            peer.say(joined=peer.now())
        else:
            service.stop()
            peer.say(left=peer.now())


main()
