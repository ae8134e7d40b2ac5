"""job_board.py HOSTS PATH WHO [USER PASSWORD]

A worker of a TaskFlow job board. Each job says in its details what becomes of it: {"number": n, "fate": "consume", "trash"
or "abandon"}, where one to abandon is abandoned once by each worker that gets it first, and consumed by the next.

Commands: {"do": "post", "jobs": [[number, fate, priority]...]}, {"do": "work"}, {"do": "hold"}: keep the next job that is
claimed, {"do": "claim", "number": n}, {"do": "end", "number": n}: consume what was claimed, {"do": "stop"}.
"""

import sys
import threading

from kazoo import client
from kazoo import security
from taskflow import exceptions
from taskflow.jobs import base
from taskflow.jobs.backends import impl_zookeeper

import peer


class Worker:
    def __init__(self, hosts, path, who, user=None, password=None):
        options = {}
        if user:
            options["auth_data"] = [("digest", f"{user}:{password}")]
            options["default_acl"] = [security.make_digest_acl(user, password, all=True)]
        self._client = client.KazooClient(hosts=hosts, timeout=4.0, **options)
        self._client.start()
        self._board = impl_zookeeper.ZookeeperJobBoard("interop", {"path": path}, client=self._client)
        self._board.connect()
        self._who = who
        self._abandoned = set()
        self._holds = threading.Event()
        self._ends = threading.Event()
        self._claimed = {}
        self._thread = threading.Thread(target=self._work, daemon=True)

    def do(self, command):
        match command["do"]:
            case "post":
                for number, fate, priority in command["jobs"]:
                    details, options = {"number": number, "fate": fate}, {}
                    # It came with taskflow 1.32.
                    if hasattr(base, "JobPriority"):
                        options["priority"] = base.JobPriority[priority]
                    self._board.post(f"job-{number}", details=details, **options)
                peer.say(posted=len(command["jobs"]))
            case "work":
                self._thread.start()
            case "hold":
                self._holds.set()
            case "claim":
                jobs = self._board.iterjobs(ensure_fresh=True)
                job = next(job for job in jobs if job.details["number"] == command["number"])
                self._board.claim(job, self._who)
                self._claimed[command["number"]] = job
                peer.say(claimed=command["number"])
            case "end":
                peer.say(ended=self._try(self._board.consume, self._claimed[command["number"]]))
            case "find":
                jobs = self._board.iterjobs(ensure_fresh=True)
                job = next(job for job in jobs if job.details["number"] == command["number"])
                self._claimed[command["number"]] = job
                peer.say(owner=self._board.find_owner(job))
            case "stop":
                self._ends.set()
                if self._thread.ident:
                    self._thread.join()
                self._board.close()
                self._client.stop()
                peer.say(stopped=True)

    def _try(self, end, job):
        try:
            end(job, self._who)
        except (exceptions.NotFound, exceptions.JobFailure) as error:
            return f"{type(error).__name__}: {error}"
        return None

    def _work(self):
        while not self._ends.wait(0.02):
            for job in self._board.iterjobs(only_unclaimed=True, ensure_fresh=True):
                if self._ends.is_set():
                    return
                try:
                    self._board.claim(job, self._who)
                except (exceptions.UnclaimableJob, exceptions.NotFound):
                    continue
                self._act(job)

    def _act(self, job):
        number, fate = job.details["number"], job.details["fate"]
        if self._holds.is_set():
            peer.say(holds=number)
            self._ends.wait()
        if fate == "trash":
            did, end = "trashed", self._board.trash
        elif fate == "abandon" and number not in self._abandoned:
            self._abandoned.add(number)
            did, end = "abandoned", self._board.abandon
        else:
            did, end = "consumed", self._board.consume
        error = self._try(end, job)
        peer.say(number=number, did="lost" if error else did, why=error)


def main():
    worker = Worker(*sys.argv[1:])
    peer.ready("taskflow", "kazoo")
    for command in peer.commands():
        worker.do(command)


main()
