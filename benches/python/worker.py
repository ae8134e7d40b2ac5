"""Takes turns with the peer: TaskFlow's worker-based executor and worker against ours, on one broker.

See scripts/bench-python. Every time is wall-clock time. On both sides the executor is one process and the worker
another; the task does nothing.
"""

import statistics
import subprocess
import sys
import threading
from importlib.metadata import version
from time import perf_counter

from futurist import waiters
from oslo_utils import uuidutils
from taskflow import task
from taskflow.engines.worker_based import executor, worker

ROUNDS = 7
# The same as in benches/worker_peer.rs.
THREADS = 16
EXCHANGE = "python"
TOPIC = "python-worker"
# How many requests are under way at a time, and how many of them a round of Python and of Rust has.
LOADS = [(1, 200, 1000), (16, 400, 4000)]


class Nothing(task.Task):
    def execute(self):
        return None


def work(url):
    """A TaskFlow worker, until stdin ends."""
    served = worker.Worker(EXCHANGE, TOPIC, [Nothing], threads_count=THREADS, url=url)

    def end():
        served.wait()
        print("ready", flush=True)
        sys.stdin.read()
        served.stop()

    threading.Thread(target=end, daemon=True).start()
    served.run(display_banner=False)


class Engine:
    """The executor as the worker-based engine uses it, without the engine's storage."""

    def __init__(self, url):
        command = [sys.executable, __file__, "work", url]
        self.worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.worker.stdout.readline() == "ready\n"
        self.executor = executor.WorkerTaskExecutor(uuidutils.generate_uuid(), EXCHANGE, [TOPIC], url=url)
        self.executor.start()
        assert self.executor.wait_for_workers(1, timeout=30) == 0

    def requests(self, count, in_flight):
        nothing = Nothing()
        start = perf_counter()
        opened, done = set(), 0
        for _ in range(count):
            if len(opened) == in_flight:
                ended, opened = waiters.wait_for_any(opened)
                done += check(ended)
            opened.add(self.executor.execute_task(nothing, uuidutils.generate_uuid(), {}))
        while opened:
            ended, opened = waiters.wait_for_any(opened)
            done += check(ended)
        elapsed = perf_counter() - start
        assert done == count, (done, count)
        return elapsed

    def end(self):
        self.executor.stop()
        self.worker.communicate()


def check(futures):
    for future in futures:
        assert future.result() == ("executed", None), future.result()
    return len(futures)


class Peer:
    """Ours: answers a command with seconds."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        assert self.url, "the peer has ended"

    def requests(self, count, in_flight):
        print("requests", count, in_flight, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, "the peer has ended"
        return float(answer)

    def end(self):
        self.process.communicate()


def main(peer):
    peer = Peer([peer, "executor"])
    engine = Engine(peer.url)
    versions = ", ".join("%s %s" % (name, version(name)) for name in ("taskflow", "kombu", "amqp"))
    print("%s; %d rounds" % (versions, ROUNDS))
    rates = {load: [] for load in LOADS}
    # The first round warms up.
    for number in range(ROUNDS + 1):
        for load in LOADS:
            in_flight, theirs, ours = load
            pair = theirs / engine.requests(theirs, in_flight), ours / peer.requests(ours, in_flight)
            if number > 0:
                rates[load].append(pair)
    engine.end()
    peer.end()
    print("%-36s %10s %10s %8s %16s" % ("median of the rounds, requests a second", "Python", "Rust", "ratio", "of the rounds"))
    for (in_flight, _, _), pairs in rates.items():
        theirs, ours = (statistics.median(side) for side in zip(*pairs))
        ratios = [our / their for their, our in pairs]
        spread = "%.1f .. %.1f" % (min(ratios), max(ratios))
        print("%-39s %10.0f %10.0f %8.1f %16s" % ("%d under way" % in_flight, theirs, ours, ours / theirs, spread))


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(sys.argv[2])
    else:
        main(sys.argv[1])
