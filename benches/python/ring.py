"""Takes turns with the peer: the rings of aodh and tooz against ours, on the same keys. See scripts/bench-python."""

import platform
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from array import array
from importlib.metadata import version

import aodh.coordination
import tooz.hashring

ROUNDS = 9
ME = "agent-3"


def members(count):
    return ["agent-%d" % number for number in range(count)]


def extract_aodh(keys, count):
    """As PartitionCoordinator.extract_my_subset does it."""
    ring = aodh.coordination.HashRing(members(count))
    return len([v for v in keys if ring.get_node(str(v)) == ME])


def extract_tooz(keys, count):
    ring = tooz.hashring.HashRing(members(count), partitions=100)
    return len([v for v in keys if ME in ring.get_nodes(v.encode())])


def build_aodh(_, count):
    return len(set(aodh.coordination.HashRing(members(count))._sorted_keys))


def build_tooz(_, count):
    return len(tooz.hashring.HashRing(members(count), partitions=100)._partitions)


class Peer:
    def __init__(self, program, keys):
        self.keys = tempfile.NamedTemporaryFile("w")
        self.keys.write("\n".join(keys))
        self.keys.flush()
        self.process = subprocess.Popen(
            [program, self.keys.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, *command):
        self.process.stdin.write(" ".join(map(str, command)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            sys.exit("the peer gave up on %s" % (command,))
        return answer

    def time(self, *command):
        nanoseconds, found = self.ask(*command).split()
        return float(nanoseconds), int(found)

    def check_owners(self, keys, count):
        with tempfile.NamedTemporaryFile() as file:
            self.ask("owners", count, file.name)
            ours = array("H", open(file.name, "rb").read())
        ring = aodh.coordination.HashRing(members(count))
        numbers = {member: number for number, member in enumerate(members(count))}
        theirs = array("H", (numbers[ring.get_node(key)] for key in keys))
        if sys.byteorder == "big":
            ours.byteswap()
        if ours != theirs:
            sys.exit("%d members: some of the owners differ" % count)
        print("%d members: all %d owners are those of aodh" % (count, len(keys)))


def compare(title, peer, command, ways, keys, count, units):
    """Rounds in which all take turns. The first of `ways` has to come to the same as ours."""
    kernels = [kernel for kernel in peer.ask("kernels", 1, "-").strip("[]").split(", ") if kernel != "Portable"]
    times = {name: [] for name in [*kernels, *(name for name, _ in ways)]}
    for kernel in kernels:
        peer.time(command, count, kernel)
    for _ in range(ROUNDS):
        for kernel in kernels:
            took, found = peer.time(command, count, kernel)
            times[kernel].append(took)
        for number, (name, way) in enumerate(ways):
            start = time.process_time_ns()
            theirs = way(keys, count)
            times[name].append(time.process_time_ns() - start)
            if number == 0 and theirs != found:
                sys.exit("%s: ours came to %d, %s to %d" % (title, found, name, theirs))
    print("\n%s (%d rounds, CPU time)" % (title, ROUNDS))
    for name in times:
        print("  %-30s %10.1f ns a unit" % (name, statistics.median(times[name]) / units))
    for name, _ in ways:
        for kernel in kernels:
            ratios = sorted(theirs / ours for theirs, ours in zip(times[name], times[kernel]))
            print(
                "  %-30s %8.1f  (min %.1f, max %.1f)"
                % ("%s / ours, %s" % (name, kernel), statistics.median(ratios), ratios[0], ratios[-1])
            )


def main(program):
    print("Python %s, aodh %s, tooz %s" % (platform.python_version(), version("aodh"), version("tooz")))
    keys = [str(uuid.uuid4()) for _ in range(1_000_000)]
    peer = Peer(program, keys)
    for count in (1, 10, 1000):
        peer.check_owners(keys, count)
    both = [("aodh", extract_aodh), ("tooz", extract_tooz)]
    compare("subset of 1 000 000 uuids, 10 members", peer, "extract", both, keys, 10, len(keys))
    compare("the same, ours one key at a time", peer, "lookup", both[:1], keys, 10, len(keys))
    compare("subset of 1 000 000 uuids, 100 members", peer, "extract", both[:1], keys, 100, len(keys))
    both = [("aodh", build_aodh), ("tooz", build_tooz)]
    compare("build of a ring, 10 members, a point", peer, "build", both, keys, 10, 1_000)
    compare("build of a ring, 1000 members, a point", peer, "build", both, keys, 1000, 100_000)


main(sys.argv[1])
