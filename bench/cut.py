#!/usr/bin/python3
"""A link that is cut in the middle of a move, for a minute: what the cut costs beyond itself.

Each system moves the same vm twice: with the link whole, then cut for --for seconds once 8 MB have crossed
(copying/...), or while the memory follows the vm (postcopy/...).

  completed      1: the vm runs at the target
  total_s        of the move, with the cut in it
  after_heal_s   from the healing of the link to the end of the move
  wan_bytes      all frames on the link between the sites, both ways
  extra_percent  more of them after the moment of the cut than there in the move without one, of all of that move's

QEMU moves by its own TCP connection, which the kernel keeps for a quarter of an hour; Godwit's agents give a lane up
after 15 s and make another. QEMU's own post-copy stays as it is when its connection breaks, until somebody has it
recover: it is no peer here.
"""

import argparse
import pathlib
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))

from postcopy import LOAD as DIVERGES, single_pages  # noqa: E402
from stage import (HOSTS, LINK, MOVE_LIMIT_S, Godwit, Lab, Load, StageError, performed,  # noqa: E402
                   wait_until, write_rows)
from stock import StockVm  # noqa: E402

WAN, FAST = ("rate=100mbit", "delay=10ms"), ("rate=1gbit", "delay=1ms")
LOAD = Load(memory="256MiB", dirty="1mbit", working_set="1MiB")
UNDER_WAY = 8_000_000  # bytes
UNITS = {"completed": "moves", "total_s": "s", "after_heal_s": "s", "wan_bytes": "bytes", "extra_percent": "%"}
MOST_EXTRA_PERCENT = 5


def say(text=""):
    print(text, flush=True)


class Cut:
    """Waits in a thread of its own for `begun`, then cuts the link for so long; 0: it only looks."""

    def __init__(self, lab, begun, length_s):
        self.lab, self.begun, self.length_s = lab, begun, length_s
        self.before = self.at_cut = lab.wan()
        self.healed_s, self.error = None, None
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            wait_until(lambda: self.begun(self), MOVE_LIMIT_S, "the moment of the cut")
            self.at_cut = self.lab.wan()
            if self.length_s:
                self.lab.cut(LINK)
                time.sleep(self.length_s)
                self.lab.heal(LINK)
        except StageError as error:
            self.error = error
        finally:
            self.healed_s = time.monotonic()

    def of(self, move):
        """The figures of move(), and the bytes that crossed after the moment of the cut."""
        began = time.monotonic()
        self.thread.start()
        try:
            move()
            ended, after = time.monotonic(), self.lab.wan()
        finally:
            self.thread.join()
        if self.error or self.healed_s > ended:
            raise StageError(f"the move was over before the cut: {self.error or ''}")
        return {"completed": 1, "total_s": ended - began, "after_heal_s": ended - self.healed_s,
                "wan_bytes": after.since(self.before).bytes}, after.since(self.at_cut).bytes


def under_way(cut):
    return cut.lab.wan().since(cut.before).bytes > UNDER_WAY


def memory_follows(cut):
    return any(move["state"] == "postcopy" for move in cut.lab.ask(HOSTS["east"], "migration", "ls"))


def whole_and_cut(lab, begun, length_s, move, back):
    """The figures of a move with a cut, compared with one without; before both the vm boots while it moves about."""
    lab.set_link(*FAST)
    move()
    back()
    lab.set_link(*WAN)
    whole, whole_after = Cut(lab, begun, 0).of(move)
    lab.set_link(*FAST)
    back()
    lab.set_link(*WAN)
    figures, after = Cut(lab, begun, length_s).of(move)
    return figures | {"extra_percent": (after - whole_after) / whole["wan_bytes"] * 100}


def godwits(options, load, begun, *words):
    """The figures, and the command line of the vm's QEMU."""
    with Lab(options.lab) as lab:
        godwit = Godwit(lab, load)
        godwit.start()
        argv = godwit.qemu_argv()
        limit_s = MOVE_LIMIT_S + options.length_s

        def move(host, *more):
            godwit.move(host, subprocess.DEVNULL, ("--no-known", *more), limit_s)
        return whole_and_cut(lab, begun, options.length_s, lambda: move(HOSTS["west"], *words),
                             lambda: move(HOSTS["east"], "--on-diverge", "pause")), argv


def qemus(options, load, argv):
    with Lab(options.lab, agents=False) as lab:
        vm = StockVm(lab, load, argv)

        def move(host):
            vm.move(host, limit_s=MOVE_LIMIT_S + options.length_s)
            vm.end_source()

        try:
            vm.start()
            return whole_and_cut(lab, under_way, options.length_s, lambda: move(HOSTS["west"]),
                                 lambda: move(HOSTS["east"]))
        finally:
            vm.stop()


def run(options):
    figures = {}

    def keep(case, system, of_it):
        figures[f"{case}/{options.length_s:.0f}s", system] = of_it
        say(f"  {case:<10} {system:<12} " + "  ".join(f"{metric} {value:.6g}" for metric, value in of_it.items()))

    say(f"{LOAD.memory}, {' '.join(WAN)}, cut for {options.length_s:.0f} s")
    ours, argv = godwits(options, LOAD, under_way)
    keep("copying", "godwit", ours)
    keep("copying", "qemu-plain", qemus(options, LOAD, argv))
    with single_pages():
        keep("postcopy", "godwit",
             godwits(options, DIVERGES, memory_follows, "--on-diverge", "postcopy")[0])
    if options.json:
        write_rows(options.json, [{"bench": "cut", "case": case, "system": system, "metric": metric, "value": value,
                                   "unit": UNITS[metric]}
                                  for (case, system), of_it in figures.items() for metric, value in of_it.items()])
    return judge(figures)


def judge(figures):
    """Shows what was to be reached; whether it was."""
    met = True
    for (case, system), of_it in figures.items():
        if system == "godwit":
            kept = of_it["extra_percent"] <= MOST_EXTRA_PERCENT
            met = met and kept
            say(f"{case:<14} {of_it['extra_percent']:+.1f} % bytes (to reach: <= {MOST_EXTRA_PERCENT} %): "
                f"{'met' if kept else 'MISSED'}")
    return met


def main():
    parser = argparse.ArgumentParser(prog="./dev bench cut", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--for", dest="length_s", type=float, metavar="SECONDS",
                        help="how long the link is cut (default 60; --quick: 20)")
    parser.add_argument("--quick", action="store_true", help="a cut of 20 s")
    parser.add_argument("--json", metavar="FILE", help="write the figures as rows")
    parser.add_argument("--lab", default="bench-cut", metavar="NAME", help="the lab's name")
    options = parser.parse_args()
    options.length_s = options.length_s or (20.0 if options.quick else 60.0)
    return performed("bench cut", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
