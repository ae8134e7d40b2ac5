"""femto_queue.py HOSTS ROOT WHO

The dispatcher and the slave of femto-mesos, as far as they speak to ZooKeeper: the same names, values and order of requests.

Commands: {"do": "put", "dataset": d, "groupid": g, "priority": p}, {"do": "take"}, {"do": "finish"}: what was taken last,
{"do": "stop"}.
"""

import json
import sys

from kazoo import client
from kazoo import exceptions

import peer

PENDING, STAGING, RUNNING, SUCCESSFUL, FAILED = range(1, 6)


class Queue:
    def __init__(self, hosts, root, who):
        self._client = client.KazooClient(hosts=hosts, timeout=2.0)
        self._client.start()
        self._root, self._who = root, who
        for folder in ("unowned", "owned", "done"):
            self._client.ensure_path(f"{root}/{folder}")
        self._owned = None

    def _children(self, folder):
        return self._client.get_children(f"{self._root}/{folder}")

    def _create(self, folder, priority, value):
        name = f"entry-{priority:03d}-{value['dataset']}:{value['groupid']}-"
        path = f"{self._root}/{folder}/{name}"
        return self._client.create(path, json.dumps(value).encode(), sequence=True).rsplit("/", 1)[1]

    def put(self, dataset, groupid, priority):
        """The dispatcher: adds what no slave has, and what does not wait."""
        known = {name.split("-")[2] for name in self._children("owned") + self._children("unowned")}
        if f"{dataset}:{groupid}" in known:
            return None
        return self._create("unowned", priority, {"dataset": dataset, "groupid": groupid, "state": PENDING})

    def take(self):
        """The slave: gets the first entry, deletes it, and creates its own."""
        for name in sorted(self._children("unowned"), key=lambda it: (-int(it.split("-")[1]), it.split("-")[-1])):
            path = f"{self._root}/unowned/{name}"
            try:
                data, _ = self._client.get(path)
                self._client.delete(path)
            except exceptions.NoNodeError:
                continue
            value = json.loads(data)
            value.update(worker=self._who, state=RUNNING)
            self._owned = self._create("owned", 100, value)
            return {"name": name, "value": json.loads(data)}
        return None

    def finish(self):
        data, _ = self._client.get(f"{self._root}/owned/{self._owned}")
        value = json.loads(data)
        value["state"] = SUCCESSFUL
        done = self._create("done", 100, value)
        self._client.delete(f"{self._root}/owned/{self._owned}")
        return done


def main():
    queue = Queue(*sys.argv[1:])
    peer.say(ready=True)
    for command in peer.commands():
        match command.pop("do"):
            case "put":
                peer.say(put=queue.put(**command))
            case "take":
                peer.say(taken=queue.take())
            case "finish":
                peer.say(done=queue.finish())


main()
