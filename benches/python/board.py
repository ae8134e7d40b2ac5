"""Takes turns with the peer: TaskFlow's job board and kazoo's LockingQueue against ours, on one server.

See scripts/bench-python. Every time is wall-clock time: what is measured is mostly waiting for the server.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version

from kazoo.client import KazooClient
from kazoo.recipe.queue import LockingQueue
from taskflow import exceptions
from taskflow.jobs import backends

ROUNDS = 5
JOBS = 1000
WORKERS = 4
LISTED = 10_000
ENTRIES = 1000


def connect_board(hosts, path):
    # A server with the default whitelist answers no `envi`, which the check asks for.
    conf = {"board": "zookeeper", "hosts": [hosts], "path": path, "check_compatible": False}
    board = backends.fetch("bench", conf)
    board.connect()
    return board


def conduct(hosts, path, count):
    """A conductor's loop, as taskflow.conductors does it, with jobs that take no time.

    One thing is better: it leaves out jobs that others have. Iteration asks for the state of each job anyway.
    """
    board = connect_board(hosts, path)
    while board.job_count < int(count):
        time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.readline()
    me, done, before = "worker-%d" % os.getpid(), 0, None
    while done != before:
        before = done
        # Lazily: each job is looked at when its turn comes.
        for job in board.iterjobs(only_unclaimed=True, ensure_fresh=True):
            try:
                board.claim(job, me)
            except (exceptions.UnclaimableJob, exceptions.NotFound):
                continue
            board.consume(job, me)
            done += 1
    print(done, flush=True)
    sys.stdin.readline()
    board.close()


def post(hosts, path, count):
    board = connect_board(hosts, path)
    start = time.perf_counter()
    for number in range(count):
        board.post("job-%d" % number, details={"number": number})
    elapsed = time.perf_counter() - start
    board.close()
    return elapsed


def consume(hosts, path, count):
    command = [sys.executable, __file__, "conduct", hosts, path, str(count)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(WORKERS)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    start = time.perf_counter()
    for worker in workers:
        print("go", file=worker.stdin, flush=True)
    done = sum(int(worker.stdout.readline()) for worker in workers)
    elapsed = time.perf_counter() - start
    for worker in workers:
        worker.communicate("end\n")
    assert done == count, (done, count)
    return elapsed


def iterate(hosts, path, count):
    """From no connection to all jobs that nobody has claimed; and the same again, read anew.

    Iteration asks for the state of each job, once. To tell it as well, job.state would ask again.
    """
    start = time.perf_counter()
    board = connect_board(hosts, path)
    for _ in range(2):
        jobs = list(board.iterjobs(only_unclaimed=True, ensure_fresh=True))
        yield time.perf_counter() - start
        assert len(jobs) == count, (len(jobs), count)
        start = time.perf_counter()
    board.close()


def queue(hosts, path, count):
    client = KazooClient(hosts)
    client.start()
    entries = LockingQueue(client, path)
    start = time.perf_counter()
    for number in range(count):
        entries.put(json.dumps({"number": number}).encode(), priority=100)
    put = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(count):
        assert entries.get(timeout=10) is not None
        assert entries.consume()
    take = time.perf_counter() - start
    client.stop()
    return put, take


class Peer:
    """Ours: answers a command with seconds."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hosts = self.process.stdout.readline().strip()

    def ask(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().split()
        assert answer, "the peer has ended"
        return [float(word) for word in answer]

    def end(self):
        self.process.communicate()


def main(peer):
    peer = Peer([peer, "serve"])
    print("taskflow %s, kazoo %s; %d rounds" % (version("taskflow"), version("kazoo"), ROUNDS))
    times = {}
    fresh = ("/bench%d/jobs" % number for number in itertools.count())

    def note(what, theirs, ours):
        times.setdefault(what, []).append((theirs, ours))

    for _ in range(ROUNDS):
        theirs, ours = next(fresh), next(fresh)
        posted = post(peer.hosts, theirs, JOBS), *peer.ask("post", ours, JOBS)
        note("post %d jobs" % JOBS, *posted)
        consumed = consume(peer.hosts, theirs, JOBS), *peer.ask("consume", ours, WORKERS, JOBS)
        note("claim and consume them, %d workers" % WORKERS, *consumed)
        note("post, claim and consume", *(sum(pair) for pair in zip(posted, consumed)))
        theirs, ours = next(fresh), next(fresh)
        put, take = queue(peer.hosts, theirs, ENTRIES)
        our_put, our_take = peer.ask("queue", ours, ENTRIES)
        note("queue: put %d" % ENTRIES, put, our_put)
        note("queue: take and finish them", take, our_take)
        note("queue: put and take", put + take, our_put + our_take)
    listed = next(fresh)
    peer.ask("post", listed, LISTED)
    for _ in range(ROUNDS):
        both = zip(iterate(peer.hosts, listed, LISTED), peer.ask("iterate", listed, LISTED))
        for what, pair in zip(["open and iterate %d jobs", "iterate them again, fresh"], both):
            note(what % LISTED if "%" in what else what, *pair)
    peer.end()
    print("%-36s %10s %10s %8s   %s" % ("median of the rounds, seconds", "Python", "Rust", "ratio", "from .. to"))
    for what, pairs in times.items():
        theirs, ours = (statistics.median(side) for side in zip(*pairs))
        ratios = [their / our for their, our in pairs]
        spread = statistics.median(ratios), min(ratios), max(ratios)
        print("%-36s %10.3f %10.3f %8.1f   %.1f .. %.1f" % (what, theirs, ours, *spread))


if __name__ == "__main__":
    if sys.argv[1] == "conduct":
        conduct(*sys.argv[2:])
    else:
        main(sys.argv[1])
