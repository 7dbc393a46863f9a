"""Crash cases end to end: at a point of a hand-over (`godwit_sim --points`, found in the machines) a
fault, and what may then have become of the vm (`godwit_sim --table`, over the journals that are on
the disks when it strikes). Used by test_faults.py and bench/torture.py.

An agent freezes at the point (GODWIT_FAULT); then the fault strikes, and what still lives goes on.
How a move comes to a point off the straight way the simulation knows too (`--stories`).
"""

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass

import pytest
from conftest import build_directory, wait_until
from fleet import HOSTS, Observer

REACHED_LIMIT_S = 60
SETTLED_LIMIT_S = 90
CHECK_LIMIT_S = 60
# Of the vm: what the guest wrote it reads back at the end.
WITH_DISK = {"disks": ["root,size=32MiB"], "disk_rate": "2mbit"}
# Two words that come at the same time from two processes: not every move comes this way.
RACES = ("target.preparing.wait", "target.loaded.take_commit", "target.refused.record",
         "source.aborted.abort_target")
# Where an operator's story needs the other agent to stand still.
HELD_AT = {"late_give_up": "source.released.commit_target.before",
           "resolve": "target.loaded.note.before"}
DRAINING = ("source.draining", "source.done")  # as long as the lease of the wires, 30 s
QUICK_S = 5
REFUSED_S = 2  # a move that cannot be recorded
AWAY_S = {"cut_1s": 1, "cut_30s": 30, "cut_for_ever": 20}  # a link; sessions end after 15 s


def simulation(*options):
    done = subprocess.run([build_directory() / "test" / "sim" / "godwit_sim", *options],
                          capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


@dataclass(frozen=True)
class Story:
    """How a move comes to a point: `kind` as in test/sim/crash_matrix.hh; `killed_at`: where the agent
    whose point it is was killed before."""

    kind: str
    killed_at: str | None


# The simulation comes here by an abort at a moment that a real move does not offer for long.
SURE = {"source.aborted.post_resume": Story("plain", "source.switching.note.after"),
        "source.aborted.abort_target": Story("abort", "source.aborting.abort_target.before")}


class Matrix:
    """All points and faults, the stories of the points, and the outcomes that are allowed."""

    def __init__(self):
        self.stories = {}
        for line in simulation("--stories"):
            point, kind, killed_at = line.split()
            if kind.startswith("postcopy"):
                continue  # see test_postcopy.py: real ones take half a minute
            self.stories[point] = SURE.get(point.rsplit(".", 1)[0],
                                           Story(kind, None if killed_at == "-" else killed_at))
        self.table, faults = {}, []
        for line in simulation("--table"):
            source, target, fault, *outcomes = line.split()
            self.table[source, target, fault] = set(outcomes)
            faults.append(fault)
        self.faults = list(dict.fromkeys(faults))

    def cases(self):
        return [(point, fault) for point in sorted(self.stories) for fault in self.faults]

    def some(self, seed, count):
        """`count` cases, all faults in turn but those that wait long."""
        dice = random.Random(seed)
        points = [p for p in sorted(self.stories) if p.rsplit(".", 1)[0] not in RACES]
        points = dice.sample(points, count)
        quick = [fault for fault in self.faults if AWAY_S.get(fault, 0) <= QUICK_S]
        faults = dice.sample(quick, len(quick))
        return [(point, faults[i % len(faults)]) for i, point in enumerate(points)]


class NotReached(Exception):
    """The move went by without coming to the point: a race that was not run that way."""


class Case:
    """One fault at one point, in a fleet, on a vm (WITH_DISK) that runs at one of its two hosts."""

    def __init__(self, fleet, matrix, vm, point, fault):
        self.fleet, self.vm, self.point, self.fault = fleet, vm, point, fault
        self.story, self.table = matrix.stories[point], matrix.table
        self.source = fleet.where(vm.name)[0]
        self.target = next(host for host in HOSTS if host != self.source)
        self.host = self.source if point.startswith("source") else self.target
        self.identifier = self.struck = None
        self.earlier = set()  # moves
        self.outcome = self.serving_s = None

    def run(self):
        """Comes to the point, strikes, and returns the outcome; fails if it is not allowed."""
        if self.fault.endswith("_disk"):
            self.fleet.small_disk(self.source if self.fault == "source_disk" else self.target)
        self.earlier = {move["id"] for move in self.moves()}
        counter = self.vm.counted()
        with Observer(self.vm):
            self.come_to_the_point()
            journals = self.journals()
            allowed = self.table[*journals, self.fault]
            # As in test/sim/crash_matrix.cc: what an operator decided is no part of the table.
            if self.fault == "source_qemu" and (self.story.killed_at or
                                                self.story.kind == "give_up"):
                allowed = allowed | {"lost"}
            if self.story.kind == "resolve" and self.fault in ("source_qemu", "source_power"):
                allowed = {"lost"}  # the operator saw to it that the target has nothing
            if not self.strike():
                allowed = {"source", "target"}  # there is no such process
            if "waiting" in allowed:  # as it may as long as the link was cut
                allowed = allowed - {"waiting"} | {"target"}
            self.outcome = self.settle()
        told = f"{self.fault} at {self.point} ({journals}): the vm is {self.outcome}"
        if self.outcome not in allowed:
            pytest.fail(f"{told}, not {allowed}\n{self.fleet.logs()}")
        if self.outcome in ("source", "target"):
            self.expect_order(told, counter)
        return self.outcome

    # ---- to the point ----

    def come_to_the_point(self):
        first = self.story.killed_at or self.point
        if first.startswith(DRAINING):
            self.wait_for_earlier_moves()
        if self.story.kind in HELD_AT:
            other = self.target if self.host == self.source else self.source
            self.fleet.restart_agent(other, fault=HELD_AT[self.story.kind])
        self.fleet.restart_agent(self.host, fault=first)
        command = self.begin()
        try:
            self.wait_until_frozen(first)
            if self.story.killed_at:
                self.fleet.kill_agent(self.host)
                self.fleet.start_agent(self.host, fault=self.point, patient=False)
                self.wait_until_frozen(self.point)
        finally:
            command.kill()
            command.wait()

    def wait_for_earlier_moves(self):
        """One that still drains comes to the same point when its agent starts."""
        wait_until(lambda: all(entry["state"] in ("done", "aborted")
                               for entry in self.journal(self.source, "migration-source")),
                   SETTLED_LIMIT_S, "the end of the moves before")

    def begin(self):
        """The command runs on: a source that freezes when it is asked never answers."""
        options = {"hold": ["--hold"], "abort": ["--bandwidth", "20mbit"],
                   "give_up": ["--bandwidth", "20mbit"]}.get(self.story.kind, [])
        command = self.fleet.popen(self.source, self.fleet.bin / "godwit", "migrate", self.vm.name,
                                   "--to", self.target, *self.fleet.PATIENT, "--on-restart", "abort",
                                   "--detach", *options,
                                   stdin=subprocess.DEVNULL)
        if self.story.kind in ("plain", "hold"):
            return command
        command.wait(30)
        if self.story.kind in HELD_AT:
            return self.begin_held()
        identifier = self.last_move()
        self.fleet.wait_for_state(self.source, identifier, "copying")
        return self.say(self.source if self.story.kind == "abort" else self.target, "abort",
                        identifier)

    def say(self, host, *words):
        return self.fleet.popen(host, self.fleet.bin / "godwit", "migration", *words,
                                stdin=subprocess.DEVNULL)

    def begin_held(self):
        """The source's word does not reach the target, which stands still or has nobody to hear."""
        if self.story.kind == "resolve":
            identifier = self.last_move()
            self.fleet.wait_for_state(self.source, identifier, "undecided")
            self.kill_qemus(self.target)  # the operator sees to it ...
            return self.say(self.source, "resolve", identifier, "--target-destroyed")  # ... and says so
        wait_until(lambda: self.fleet.agent_stopped(self.source), REACHED_LIMIT_S, "the release")
        moves = [m for m in self.fleet.json(self.target, "migration", "ls")
                 if m["vm"] == self.vm.name]
        return self.say(self.target, "abort", moves[-1]["id"])

    def last_move(self):
        return self.fleet.last_migration(self.source, self.vm)["id"]

    def wait_until_frozen(self, point):
        began = time.time()
        late = point.startswith(DRAINING)

        def frozen_or_over():
            if self.fleet.agent_stopped(self.host):
                return "frozen"
            entries = [e for e in self.journal(self.source, "migration-source")
                       if e["vm"] == self.vm.name and e["id"] not in self.earlier]
            ends = ("done", "aborted") if late else ("done", "draining", "aborted")
            over = entries and entries[-1]["state"] in ends
            return "over" if over and time.time() - began > 10 else None

        came = wait_until(frozen_or_over, REACHED_LIMIT_S,
                          lambda: f"{self.host} at {point}: {self.fleet.logs()}")
        if came == "over" and not self.fleet.agent_stopped(self.host):
            raise NotReached(point)

    # ---- the journals, as they are on the disks ----

    def journal(self, host, kind):
        """The entries of one kind, in the order in which the moves began. The agent may stand."""
        script = ("import json,os,shutil,sqlite3,sys,tempfile\n"
                  "d=tempfile.mkdtemp()\n"
                  "for n in ('agent.db','agent.db-wal'):\n"
                  "    p='/var/lib/godwit/'+n\n"
                  "    if os.path.exists(p): shutil.copy(p,d)\n"
                  "q='SELECT body FROM documents WHERE kind=?'\n"
                  "c=sqlite3.connect(d+'/agent.db')\n"
                  "print(json.dumps([json.loads(r[0]) for r in c.execute(q,(sys.argv[1],))]))\n"
                  "c.close()\n"
                  "shutil.rmtree(d)\n")
        done = self.fleet.lab.exec(host, "/usr/bin/python3", "-c", script, kind)
        return sorted(json.loads(done.stdout), key=lambda entry: entry["started"])

    def journals(self):
        def last(host, kind, name):
            entries = [e for e in self.journal(host, kind) if name(e) == self.vm.name]
            return entries[-1] if entries else None
        source = last(self.source, "migration-source", lambda e: e["vm"])
        target = last(self.target, "migration-target", lambda e: e["spec"]["name"])
        if source and source["state"] in ("done", "aborted") and "planned" in self.point:
            source = None  # of an earlier move
        self.identifier = source["id"] if source else None
        if target and (source is None or target["id"] != source["id"]):
            target = None
        return (source["state"] if source else "planned", target["state"] if target else "planned")

    # ---- the fault ----

    def strike(self):
        """False: what it ends is not there."""
        fleet, both = self.fleet, (self.source, self.target)
        self.struck = time.monotonic()
        if self.fault.endswith("_qemu"):
            hit = self.kill_qemus(self.source if self.fault == "source_qemu" else self.target)
            self.thaw()
            return hit
        if self.fault.startswith("cut"):
            fleet.lab.run("cut", "east-west")
            self.thaw()
            time.sleep(AWAY_S[self.fault])
            if self.fault == "cut_for_ever":
                wait_until(self.quiet, SETTLED_LIMIT_S,
                           lambda: f"an outcome while cut: {fleet.logs()}")
            fleet.lab.run("heal", "east-west")
            return True
        if self.fault.endswith("_disk"):
            host = self.source if self.fault == "source_disk" else self.target
            fleet.fill_disk(host)
            self.thaw()
            wait_until(self.over, SETTLED_LIMIT_S, lambda: f"an outcome with a full disk: {fleet.logs()}")
            fleet.free_disk(host)
            return True
        hosts = {"both_agents": both, "source_agent": both[:1], "target_agent": both[1:],
                 "source_power": both[:1], "target_power": both[1:]}[self.fault]
        for host in hosts:
            fleet.kill_agent(host)
            if self.fault.endswith("_power"):
                self.kill_qemus(host)
        for host in hosts:
            fleet.start_agent(host, patient=False)
        self.thaw()
        return True

    def thaw(self):
        for host in HOSTS:
            if self.fleet.agent_stopped(host):
                os.kill(self.fleet.agent(host), signal.SIGCONT)

    def kill_qemus(self, host):
        pids = [pid for pid, name in self.fleet.guests(host) if name == self.vm.name]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def quiet(self):
        """It runs at one host, or is lost, or its source is undecided as long as the link is cut."""
        if self.counts() or self.is_lost():
            return True
        # The cut also parts us from its counter, if it runs in the west.
        moves = self.moves()
        state = moves[-1]["state"] if moves else ""
        where = self.fleet.where(self.vm.name)
        return (state == "undecided" or where == [self.target] or
                where == [self.source] and state == "aborted")

    def over(self):
        """The move has come to its end, or as near to it as it gets; it goes over if it was held."""
        moves = self.moves()
        if not moves or moves[-1]["id"] in self.earlier:  # refused before it was one
            return time.monotonic() - self.struck > REFUSED_S
        self.end_hold(moves[-1])
        return moves[-1]["state"] in ("aborted", "undecided", "committed", "draining", "done")

    def end_hold(self, move):
        """One that is held goes over."""
        if move["state"] == "ready":
            self.fleet.godwit(self.source, "migration", "cutover", move["id"], expect=None)

    def moves(self):
        """Those of the vm, as the source's agent tells them."""
        of_vm = [m for m in self.fleet.get(self.source, "/migrations") or [] if m["vm"] == self.vm.name]
        return sorted(of_vm, key=lambda move: move["started"])

    # ---- what became of it ----

    def counts(self):
        first = self.vm.counter()
        if first is None:
            return False
        return (self.vm.counter() or 0) > first

    def is_lost(self):
        return not any(name == self.vm.name for host in HOSTS for _, name in self.fleet.guests(host))

    def settle(self):
        """The outcome, once it is one."""
        def come():
            if self.counts():
                return "runs"
            return "lost" if self.is_lost() else None
        deadline = time.monotonic() + SETTLED_LIMIT_S
        while (came := come()) is None:
            if time.monotonic() > deadline:
                return "waiting"
            time.sleep(0.05)
        if came == "lost":
            return came
        self.serving_s = time.monotonic() - self.struck
        # What still is undecided would change it: the source's word comes first.
        def decided():
            entries = [e for e in self.journal(self.source, "migration-source")
                       if e["vm"] == self.vm.name]
            if entries:
                self.end_hold(entries[-1])
            return not entries or entries[-1]["state"] in ("aborted", "draining", "done")
        for host in HOSTS:
            wait_until(lambda h=host: self.fleet.get(h, "/hosts") is not None,
                       20, f"the agent on {host}")
        wait_until(decided, SETTLED_LIMIT_S, lambda: f"an end of the move: {self.fleet.logs()}")
        where = wait_until(lambda: self.fleet.where(self.vm.name), 20, "the vm's host")
        return "source" if where == [self.source] else "target" if where == [self.target] else where

    def expect_order(self, told, counter):
        here = self.source if self.outcome == "source" else self.target
        other = self.target if self.outcome == "source" else self.source
        now = wait_until(self.vm.counter, 20, f"{told}: its counter")
        assert counter is None or now >= counter, f"{told}: its memory went back"
        assert self.fleet.where(self.vm.name) == [here], told
        disk = wait_until(lambda: self.vm.ask("check", CHECK_LIMIT_S), 20, f"{told}: what it reads back")["disk"]
        assert disk["damaged"] == 0, f"{told}: {disk}"
        self.fleet.wait_for_nothing_of(self.vm, other, limit_s=20)
