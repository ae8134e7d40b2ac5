"""How long keys have no owner, or two: members of tooz beside ours, on one server. See scripts/bench-python.

A member is a process of its own. It calls run_watchers() every 0.1 s, then asks belongs_to_self() of each key, and
prints what has changed, with the time of the clock that all processes share.
"""

import collections
import json
import math
import queue
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import version

from tooz import coordination

TIMEOUT = 3
POLL = 0.1
KEYS = range(300)
GROUP = b"bench"
STAYING = ["member-0", "member-1", "member-2"]
COMING = "member-3"
# How long work goes on after its key has got another owner. It has no end of its own that a member of tooz would see.
WORK = 2
PATIENT = 60


class Worker:
    """A member, in its own process. Commands come from stdin."""

    def __init__(self, hosts, me):
        self.me, self.hosts = me, hosts
        self.commands = queue.Queue()
        self.partitioner, self.held, self.said = None, set(), None
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in sys.stdin:
            self.commands.put(line.split())
        self.commands.put(["end"])

    def run(self):
        print(json.dumps("ready"), flush=True)
        due = time.monotonic()
        while True:
            try:
                command = self.commands.get(timeout=max(0, due - time.monotonic()))
            except queue.Empty:
                due += POLL
                if self.partitioner:
                    self.coordinator.run_watchers()
            else:
                if command[0] == "end":
                    return
                getattr(self, command[0])(*command[1:])
            self.say()

    def say(self):
        nodes, owns = 0, set()
        if self.partitioner:
            nodes = len(self.partitioner.ring.nodes)
            owns = {key for key in KEYS if self.partitioner.belongs_to_self(key)}
        state = [nodes, sorted(owns | self.held)]
        if state != self.said:
            self.said = state
            print(json.dumps([time.monotonic(), *state]), flush=True)

    def open(self):
        url = "zookeeper://%s?timeout=%d" % (self.hosts, TIMEOUT)
        self.coordinator = coordination.get_coordinator(url, self.me.encode())
        self.coordinator.start(start_heart=True)

    def join(self):
        while True:
            try:
                self.partitioner = self.coordinator.join_partitioned_group(GROUP)
                return
            except coordination.MemberAlreadyExist:
                time.sleep(POLL)

    def leave(self):
        # As it should be done: the work ends first.
        partitioner, self.partitioner = self.partitioner, None
        self.say()
        self.coordinator.leave_partitioned_group(partitioner)

    def close(self):
        self.coordinator.stop()

    def hold(self, key):
        self.held.add(int(key))

    def release(self):
        self.held.clear()


class Member:
    """The process of a member, as the one that measures sees it."""

    def __init__(self, hosts, me):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "member", hosts, me], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.records, self.is_alive = [(0, 0, frozenset())], True
        self.process.stdout.readline()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            at, nodes, owns = json.loads(line)
            self.records.append((at, nodes, frozenset(owns)))

    def tell(self, *commands):
        for command in commands:
            self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.is_alive = False
        self.records.append((time.monotonic(), 0, frozenset()))

    def end(self):
        self.process.stdin.close()
        self.process.wait()

    def owns(self):
        return self.records[-1][2]


class Figures:
    def __init__(self):
        self.rounds, self.first, self.all, self.gaps, self.doubles = 0, [], [], [], []

    def row(self):
        times = [(self.first, (50, 100)), (self.all, (50, 100)), (self.gaps, (50, 99, 100)), (self.doubles, (50, 100))]
        fields = [str(self.rounds)]
        for found, percents in times:
            fields += [percentile(found, percent) for percent in percents]
        return [*fields, str(len(self.doubles))]


def percentile(times, percent):
    if not times:
        return "-"
    return "%.0f" % (1000 * sorted(times)[max(1, math.ceil(percent / 100 * len(times))) - 1])


class Fleet:
    def __init__(self, hosts):
        self.hosts, self.figures = hosts, collections.defaultdict(Figures)
        self.staying = []
        for me in STAYING:
            member = Member(hosts, me)
            member.tell("open", "join")
            self.staying.append(member)
            self.settle([])
        before = [member.owns() for member in self.staying]
        fourth = self.come()
        self.moving = [min(owns & fourth.owns()) for owns in before]
        self.go(fourth)

    def settle(self, others, ignored=()):
        members, deadline = [*self.staying, *others], time.monotonic() + PATIENT
        while time.monotonic() < deadline:
            counts = collections.Counter(key for member in members for key in member.owns())
            agree = all(member.records[-1][1] == len(members) for member in members)
            if agree and all(counts[key] == 1 for key in KEYS if key not in ignored):
                return
            time.sleep(0.002)
        sys.exit("the group does not settle: %s" % [member.records[-1][:2] for member in members])

    def note(self, event, begin, members, newcomer=None, ignored=()):
        """As benches/support/handover/recorder.rs does it."""
        end, figures = time.monotonic(), self.figures[event]
        members = [*self.staying, *members]
        moments = sorted({begin, *(at for member in members for at, *_ in member.records if at > begin)})
        owners = []
        for moment in moments:
            states = [[owns for at, _, owns in member.records if at <= moment][-1] for member in members]
            owners.append([tuple(number for number, owns in enumerate(states) if key in owns) for key in KEYS])
        figures.rounds += 1
        if newcomer:
            figures.first.append(next(at for at, _, owns in newcomer.records if at > begin and owns) - begin)
        changes = [
            now
            for number, now in enumerate(moments[1:], 1)
            if any(owners[number][key] != owners[number - 1][key] for key in KEYS if key not in ignored)
        ]
        figures.all.append(changes[-1] - begin)
        for key in KEYS:
            gap = double = 0
            for number, moment in enumerate(moments):
                until = moments[number + 1] if number + 1 < len(moments) else end
                gap += (until - moment) * (not owners[number][key])
                double += (until - moment) * (len(owners[number][key]) > 1)
            has_moved = owners[0][key] != owners[-1][key] or gap
            if has_moved and key not in ignored:
                figures.gaps.append(gap)
            if double:
                figures.doubles.append(double)

    def new(self):
        return Member(self.hosts, COMING)

    def come(self):
        fourth = self.new()
        fourth.tell("open", "join")
        self.settle([fourth])
        return fourth

    def go(self, fourth):
        fourth.tell("leave")
        self.settle([])
        fourth.tell("close")
        fourth.end()

    def come_and_go(self):
        fourth = self.new()
        fourth.tell("open")
        time.sleep(0.3)
        begin = time.monotonic()
        fourth.tell("join")
        self.settle([fourth])
        self.note("join", begin, [fourth], fourth)

        begin = time.monotonic()
        self.go(fourth)
        self.note("leave", begin, [fourth])

        fourth, again = self.new(), self.new()
        begin = time.monotonic()
        fourth.tell("open", "join")
        self.settle([fourth])
        self.note("open a session, and join", begin, [fourth], fourth)

        begin = time.monotonic()
        fourth.tell("leave", "close")
        fourth.end()
        again.tell("open", "join")
        self.settle([again])
        self.note("restart under the same id", begin, [fourth, again], again)

        begin = time.monotonic()
        self.go(again)
        self.note("leave while others have work in progress", begin, [again])

        fourth = self.new()
        fourth.tell("open")
        for member, key in zip(self.staying, self.moving):
            member.tell("hold %d" % key)
        time.sleep(0.3)
        begin = time.monotonic()
        fourth.tell("join")
        self.settle([fourth], self.moving)
        time.sleep(max(0, begin + WORK - time.monotonic()))
        for member in self.staying:
            member.tell("release")
        self.settle([fourth])
        self.note("join while others have work in progress", begin, [fourth], fourth, self.moving)
        self.go(fourth)

    def crash(self):
        fourth = self.come()
        begin = time.monotonic()
        fourth.kill()
        self.settle([])
        self.note("crash", begin, [fourth])

        stuck = self.moving[0]
        self.staying[0].tell("hold %d" % stuck)
        fourth = self.new()
        fourth.tell("open", "join")
        self.settle([fourth], [stuck])
        begin = time.monotonic()
        fourth.kill()
        self.settle([])
        self.note("crash while another member is stuck", begin, [fourth])
        self.staying[0].tell("release")

        fourth, again = self.come(), self.new()
        begin = time.monotonic()
        fourth.kill()
        again.tell("open", "join")
        while not again.owns():
            time.sleep(0.002)
        self.settle([again])
        self.note("crash, and restart under the same id", begin, [fourth, again], again)
        self.go(again)


def main(program, rounds=10, crashes=5):
    print("Python %s, tooz %s, kazoo %s" % (sys.version.split()[0], version("tooz"), version("kazoo")))
    peer = subprocess.Popen([program, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    fleet = Fleet(peer.stdout.readline().strip())
    rows = collections.defaultdict(list)
    for event_of in (fleet.come_and_go, fleet.crash):
        for _ in range(int(rounds) if event_of == fleet.come_and_go else int(crashes)):
            event_of()
    for event, figures in fleet.figures.items():
        rows[event].append(["tooz", *figures.row()])
    for member in fleet.staying:
        member.tell("leave", "close")
        member.end()
    peer.stdin.write("%s %s\n" % (rounds, crashes))
    peer.stdin.flush()
    for line in iter(peer.stdout.readline, "\n"):
        if not line:
            sys.exit("the peer gave up")
        mode, event, *row = line.rstrip("\n").split("\t")
        rows[event].append([mode, *row])
    peer.stdin.close()
    print("\nT = %d s, %d keys, 4 members, tooz asked every %g s; milliseconds\n" % (TIMEOUT, len(KEYS), POLL))
    print(
        "| event | members | first key of the member that comes, p50 / max | every key owned, p50 / max |"
        " a key that moves has no owner, p50 / p99 / max | keys with two owners, a round | for how long, p50 / max |"
    )
    print("|---|---|---|---|---|---|---|")
    for event, found in rows.items():
        for mode, count, *row in found:
            cells = [row[0:2], row[2:4], row[4:7], ["%.1f" % (int(row[9]) / int(count))], row[7:9]]
            print("| %s | %s | %s |" % (event, mode, " | ".join(" / ".join(cell) for cell in cells)))


if sys.argv[1] == "member":
    Worker(*sys.argv[2:]).run()
else:
    main(*sys.argv[1:])
