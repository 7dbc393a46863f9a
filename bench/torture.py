#!/usr/bin/python3
"""Every point of a hand-over with every fault, end to end, and round trips that leave nothing.

The cases are test/e2e/crash.py's: each is judged by design 9's table over the journals, by an observer
that looks for two running instances, and by the vm's memory counter. Exit status 1 if one failed.
"""

import argparse
import os
import pathlib
import re
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "demo"), str(ROOT / "test" / "e2e")]

import pytest  # noqa: E402
from conftest import Lab, build_directory, wait_until  # noqa: E402
from crash import RACES, WITH_DISK, Case, Matrix, NotReached  # noqa: E402
from fleet import HOSTS, Fleet  # noqa: E402
from stage import performed, write_rows  # noqa: E402

MOST_SERVING_S = 5.0  # from the death of an agent to a guest that serves again
AGENTS = ("source_agent", "target_agent", "both_agents")
QUICK_CASES, QUICK_TRIPS = 6, 3
WARM_TRIPS = 3  # what the first of all make once: memory comes to the allocator in steps of 2 MiB
UNITS = {"kill_to_serving_s": "s", "kill_to_serving_most_s": "s", "rss_kib_more": "KiB"}  # else a count
# Of what an agent has after round trips more than before: the journal's entries are kept, and shown.
MOST_NEW_FDS, MOST_RSS_KIB_PER_TRIP = 0, 40


def say(text=""):
    print(text, flush=True)


class Torture:
    def __init__(self, fleet, matrix):
        self.fleet, self.matrix = fleet, matrix
        self.vm = None
        self.passed, self.failed, self.passed_by = [], [], []
        self.serving_s = []

    def run_case(self, point, fault):
        name = f"{point}:{fault}"
        if self.vm is None or not self.fleet.where(self.vm.name):
            self.fleet.tidy()
            self.vm = self.fleet.run_vm(**WITH_DISK)
        case, began = Case(self.fleet, self.matrix, self.vm, point, fault), time.monotonic()
        try:
            outcome = case.run()
        except NotReached:
            self.passed_by.append(name)
            outcome = "not reached"
        except (AssertionError, pytest.fail.Exception) as error:
            self.failed.append(name)
            outcome = f"FAILED: {str(error)[:2000]}"
            self.vm = None
        else:
            self.passed.append(name)
            if fault in AGENTS and case.serving_s is not None:
                self.serving_s.append(case.serving_s)
        say(f"{name:<70} {outcome} ({time.monotonic() - began:.0f} s)")
        self.fleet.calm()

    def rows(self):
        cases = len(self.passed) + len(self.failed)
        yield from (("matrix", metric, value) for metric, value in (
            ("points", len({c.split(":")[0] for c in self.passed + self.failed})),
            ("points_passed", len({c.split(":")[0] for c in self.passed} -
                                  {c.split(":")[0] for c in self.failed})),
            ("cases", cases), ("cases_passed", len(self.passed)),
            ("cases_not_reached", len(self.passed_by))))
        if self.serving_s:
            yield "matrix", "kill_to_serving_s", statistics.median(self.serving_s)
            yield "matrix", "kill_to_serving_most_s", max(self.serving_s)


class Possessions:
    """What an agent has: descriptors, memory, files, and everything of vms in its host."""

    def __init__(self, fleet, host):
        pid = fleet.agent(host)
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        self.fds = len(os.listdir(f"/proc/{pid}/fd"))
        self.rss_kib = int(status.split("VmRSS:", 1)[1].split()[0])
        self.left = re.sub(r"(?m)^qemu \d+", "qemu", fleet.left_at(host))  # each stay is another process


def round_trips(fleet, count):
    """(failures, the possessions before and after by host)."""
    fleet.tidy()
    vm = fleet.run_vm()
    for host in ("w1", "e1") * WARM_TRIPS:
        fleet.move(vm, fleet.where(vm.name)[0], host)
    settle(fleet, vm)
    before, failures = {host: Possessions(fleet, host) for host in HOSTS}, 0
    for number in range(2 * count):
        here = fleet.where(vm.name)[0]
        there = next(host for host in HOSTS if host != here)
        state = fleet.move(vm, here, there)["state"]
        if state not in ("committed", "draining", "done") or fleet.where(vm.name) != [there]:
            failures += 1
            say(f"move {number + 1}: {state}")
    settle(fleet, vm)
    vm.wait_until_it_counts()
    return failures, before, {host: Possessions(fleet, host) for host in HOSTS}


def settle(fleet, vm):
    """The leases of the moves are over."""
    for host in HOSTS:
        wait_until(lambda h=host: all(m["state"] in ("done", "aborted")
                                      for m in fleet.json(h, "migration", "ls")), 60,
                   f"an end of all moves at {host}")
    fleet.wait_for_nothing_of(vm, next(h for h in HOSTS if h != fleet.where(vm.name)[0]))


def trip_rows(count, failures, before, after):
    yield "round_trips", "count", count
    yield "round_trips", "failures", failures
    for metric in ("fds", "rss_kib"):
        yield "round_trips", f"{metric}_more", max(
            getattr(after[host], metric) - getattr(before[host], metric) for host in HOSTS)
    yield "round_trips", "left_behind", sum(after[h].left != before[h].left for h in HOSTS)


def targets(rows):
    values = {(case, metric): value for case, metric, value in rows}
    trips = values["round_trips", "count"]
    yield "every case passes", values["matrix", "cases"] == values["matrix", "cases_passed"]
    serving = values.get(("matrix", "kill_to_serving_most_s"), 0)
    yield f"an agent dies: the guest serves again within {MOST_SERVING_S:.0f} s", \
        serving <= MOST_SERVING_S
    yield "round trips do not fail", values["round_trips", "failures"] == 0
    yield "nothing is left behind", (values["round_trips", "left_behind"] == 0 and
                                     values["round_trips", "fds_more"] <= MOST_NEW_FDS and
                                     values["round_trips", "rss_kib_more"] <=
                                     MOST_RSS_KIB_PER_TRIP * trips + 1024)


def run(options):
    matrix = Matrix()
    cases = matrix.some(options.seed, QUICK_CASES) if options.quick else matrix.cases()
    cases = [case for case in cases if options.points in case[0]]
    if options.share:
        cases = cases[options.share[0] - 1::options.share[1]]
    trips = QUICK_TRIPS if options.quick else options.trips
    lab = Lab(build_directory() / "bin" / "godwit-lab")
    try:
        fleet = Fleet(lab)
        torture = Torture(fleet, matrix)
        for point, fault in cases:
            torture.run_case(point, fault)
        rows = [*torture.rows(), *trip_rows(trips, *round_trips(fleet, trips))]
    finally:
        lab.down()
    for case, metric, value in rows:
        say(f"{case:<12} {metric:<24} {value:.6g}")
    if options.json:
        write_rows(options.json, [{"bench": "torture", "case": case, "system": "godwit",
                                   "metric": metric, "value": value,
                                   "unit": UNITS.get(metric, "")}
                                  for case, metric, value in rows])
    for name in torture.failed:
        say(f"failed: ./dev e2e -k test_fault_at_point --fault-case {name}")
    surprises = [name for name in torture.passed_by
                 if name.split(":")[0].rsplit(".", 1)[0] not in RACES]
    for name in surprises:
        say(f"not reached: {name}")
    met = [(text, kept) for text, kept in targets(rows)]
    for text, kept in met:
        say(f"  {'met   ' if kept else 'MISSED'}  {text}")
    return all(kept for _, kept in met) and not surprises


def share(text):
    number, _, of = text.partition("/")
    return int(number), int(of)


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench torture", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="some cases, some round trips")
    parser.add_argument("--seed", type=int, default=1, help="which cases --quick takes")
    parser.add_argument("--points", default="", metavar="TEXT", help="only points with this in them")
    parser.add_argument("--share", type=share, metavar="N/M", help="the N-th of M parts of the cases")
    parser.add_argument("--trips", type=int, default=100, metavar="N", help="round trips")
    parser.add_argument("--json", metavar="FILE", help="write all figures as rows")
    return parser.parse_args()


def main():
    options = arguments()
    return performed("bench torture", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
