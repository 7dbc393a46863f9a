#!/usr/bin/python3
"""How much of a long link that loses packets a move fills: 100 ms there and back, 0.1 % lost, unless told otherwise.

Each system copies the memory of the same vm, page for page (Godwit with --no-compact), in turns. The vm writes more
than the link carries, so that there is always something to send; after a while the move is called off.

  link_percent  all frames on the link, both ways, of what its rate allows one way, after the first seconds

QEMU moves by TCP connections of its own, with the kernel's congestion control (shown), as its operators have it.
"""

import argparse
import contextlib
import pathlib
import statistics
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))

from stage import HOSTS, Godwit, Lab, Load, StageError, performed, write_rows  # noqa: E402
from stock import NotConverged, Settings, StockVm  # noqa: E402

FAST = ("rate=unlimited", "delay=0ms", "loss=0%")
LOAD = Load(memory="512MiB", dirty="400mbit", working_set="400MiB")
BEGINNING_S = 6  # the first pages, many of them zero, and TCP's start
PEERS = {"qemu-plain": Settings(),
         "qemu-multifd": Settings(("multifd",), {"multifd-channels": 4})}
LANES = {"godwit": (), "godwit-2-lanes": ("--lanes", "2")}
LEAST_PERCENT = 95


def say(text=""):
    print(text, flush=True)


class Look:
    """A context: what crosses the link meanwhile, but for the beginning, looked at in a thread of its own."""

    def __init__(self, lab, length_s):
        self.lab, self.length_s, self.bits_per_second = lab, length_s, None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look)

    def _reading(self):
        before = time.monotonic()
        count = self.lab.wan().bytes
        return (before + time.monotonic()) / 2, count

    def _look(self):
        if self.over.wait(BEGINNING_S):
            return
        begun, first = self._reading()
        if self.over.wait(self.length_s):
            return
        ended, last = self._reading()
        self.bits_per_second = (last - first) * 8 / (ended - begun)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


class Bench:
    def __init__(self, options):
        self.options = options
        self.length_s = 5 if options.quick else 20
        self.limit_s = BEGINNING_S + self.length_s + 2
        self.link = (f"rate={options.mbit}mbit", f"delay={options.rtt_ms / 2:g}ms", f"loss={options.loss}",
                     f"queue={options.rtt_ms:g}ms")
        self.percent = {}  # a list by system

    def _measure(self, lab, system, move):
        lab.set_link(*self.link)
        with Look(lab, self.length_s) as look, contextlib.suppress(NotConverged, subprocess.TimeoutExpired):
            move()
        if look.bits_per_second is None:
            raise StageError(f"the move by {system} was over within {self.limit_s} s")
        self.percent.setdefault(system, []).append(look.bits_per_second / (self.options.mbit * 1e4))
        say(f"  {system:<14} {self.percent[system][-1]:.1f} %")
        lab.set_link(*FAST)

    def godwit(self):
        with Lab(self.options.lab) as lab:
            godwit = Godwit(lab, LOAD)
            godwit.start()
            for system, lanes in LANES.items():
                self._measure(lab, system, lambda: godwit.move(HOSTS["west"], subprocess.DEVNULL,
                                                               ("--no-compact", *lanes), self.limit_s))
            return godwit.qemu_argv()

    def peers(self, argv):
        with Lab(self.options.lab, agents=False) as lab:
            vm = StockVm(lab, LOAD, argv)
            try:
                vm.start()
                for system, settings in PEERS.items():
                    self._measure(lab, system, lambda: vm.move(HOSTS["west"], settings, self.limit_s))
            finally:
                vm.stop()

    def medians(self):
        return {system: statistics.median(each) for system, each in self.percent.items()}

    def rows(self):
        case = f"{self.options.mbit}mbit-{self.options.rtt_ms:g}ms/{self.options.loss}"
        return [{"bench": "fill", "case": case, "system": system, "metric": "link_percent", "value": value, "unit": "%"}
                for system, value in self.medians().items()]


def run(options):
    bench = Bench(options)
    control = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text("ascii").strip()
    say(f"{' '.join(bench.link)}; for {bench.length_s} s; the kernel's congestion control is {control}")
    for _ in range(options.rounds):
        bench.peers(bench.godwit())
    if options.json:
        write_rows(options.json, bench.rows())
    medians = bench.medians()
    say("\nmedians: " + ", ".join(f"{system} {value:.1f} %" for system, value in medians.items()))
    met = medians["godwit"] >= LEAST_PERCENT
    say(f"godwit fills {medians['godwit']:.1f} % of the link (to reach: >= {LEAST_PERCENT} %): "
        f"{'met' if met else 'MISSED'}")
    return met


def main():
    parser = argparse.ArgumentParser(prog="./dev bench fill", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbit", type=int, default=200, help="the link's rate (default 200)")
    parser.add_argument("--rtt-ms", type=float, default=100, help="there and back (default 100)")
    parser.add_argument("--loss", default="0.1%", help="of the frames (default 0.1%%)")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (default 3)")
    parser.add_argument("--quick", action="store_true", help="one round of 5 s each")
    parser.add_argument("--json", metavar="FILE", help="write the figures as rows")
    parser.add_argument("--lab", default="bench-fill", metavar="NAME", help="the lab's name")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    return performed("bench fill", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
