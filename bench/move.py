#!/usr/bin/python3
"""Godwit against stock practice (bench/stock.py): same vm, load and WAN, rounds interleaved.

Each round boots the vm anew under either system, in turn, watches it with the same client, and
moves it east -> west and back. Exit status 1 if Godwit missed a target.
"""

import argparse
import contextlib
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))

from promises import blackout_target, promises_of  # noqa: E402
from stage import (HOSTS, Client, Godwit, Lab, Load,  # noqa: E402
                   measure, performed, write_rows)
from stock import Stock  # noqa: E402

CASES = {"there": "west", "back": "east"}
AT_MOST_TIMES_STOCK = 1.05
COLUMNS = ("total_s", "pause_ms", "blackout_ms", "idle_gap_ms", "in_vm_ms", "frames_lost", "frames_duplicated",
           "frames_reordered", "resets", "rto", "wan_bytes", "cpu_s")


def say(text=""):
    print(text, flush=True)


class Runner:
    """All rounds in one lab; either system's vm exists only in its own turn."""

    def __init__(self, lab, load, cases):
        self.lab, self.load, self.cases = lab, load, cases
        self.qemu_argv = None  # Godwit's, from its first vm
        self.stock_commands = None
        self.moves = []

    def round(self, number):
        self._godwit(number)
        self._stock(number)

    def _godwit(self, number):
        godwit = Godwit(self.lab, self.load)
        godwit.start()
        try:
            self.qemu_argv = self.qemu_argv or godwit.qemu_argv()
            with Client(self.lab) as client:
                for name in self.cases:
                    self._keep(measure(self.lab, client, f"round{number}-{name}", "godwit",
                                       lambda: self._godwit_move(godwit, HOSTS[CASES[name]])))
        finally:
            godwit.stop()

    @staticmethod
    def _godwit_move(godwit, host):
        report = godwit.move(host, progress=subprocess.DEVNULL, options=("--no-known",))[0]["report"]
        return report["total_ms"] / 1000, report["pause_ms"], report

    def _stock(self, number):
        stock = Stock(self.lab, self.load, self.qemu_argv)
        try:
            stock.start()
            with Client(self.lab) as client:
                for name in self.cases:
                    self._keep(measure(self.lab, client, f"round{number}-{name}", "stock",
                                       lambda: stock.move(HOSTS[CASES[name]])))
                    stock.end_source()
                    self.stock_commands = self.stock_commands or list(stock.commands)
        finally:
            stock.stop()

    def _keep(self, move):
        self.moves.append(move)
        say(f"{move.case:<14} {move.system:<7} " + "  ".join(
            f"{row['metric']} {row['value']:.6g}" for row in move.rows("move")))


def values_of(moves, system, metric):
    return [row["value"] for move in moves if move.system == system
            for row in move.rows("move") if row["metric"] == metric]


def show_comparison(moves):
    say(f"\n{'medians (all values)':<20}{'godwit':>34}{'stock':>34}   ratio")
    for metric in COLUMNS:
        cells, medians = [], []
        for system in ("godwit", "stock"):
            values = values_of(moves, system, metric)
            medians.append(statistics.median(values))
            if metric == "wan_bytes":
                text = f"{medians[-1] / 1e6:.1f}e6"
            else:
                text = f"{medians[-1]:.4g} (" + " ".join(f"{value:.3g}" for value in values[:6]) + ")"
            cells.append(text)
        ratio = f"{medians[0] / medians[1]:.3f}" if medians[1] else "-"
        say(f"{metric:<20}{cells[0]:>34}{cells[1]:>34}   {ratio}")


def targets(moves, loss):
    """(text, met, detail) of each target of the main job."""
    godwit = [move for move in moves if move.system == "godwit"]
    out = []
    of_moves = [promises_of(m, m.wan.udp_drops if loss else 0) + [blackout_target(m)] for m in godwit]
    for checked in zip(*of_moves):
        met = sum(promise.kept for promise in checked)
        broken = [promise.detail for promise in checked if not promise.kept]
        out.append((checked[0].text, met == len(checked),
                    f"{met} of {len(checked)} moves; " + "; ".join(broken)))
    if not loss:
        for metric in ("total_s", "wan_bytes"):
            ratio = (statistics.median(values_of(moves, "godwit", metric)) /
                     statistics.median(values_of(moves, "stock", metric)))
            out.append((f"{metric} <= {AT_MOST_TIMES_STOCK} x stock", ratio <= AT_MOST_TIMES_STOCK,
                        f"{ratio:.3f} x"))
    return out


def show_targets(moves, loss):
    say("\ntargets (godwit)")
    all_met = True
    for text, met, detail in targets(moves, loss):
        all_met = all_met and met
        say(f"  {'met   ' if met else 'MISSED'}  {text:<66} {detail}")
    return all_met


def show_stock(commands):
    say("\nstock practice, the first move, as typed:")
    for line in commands:
        say(f"  {line}")
    say("  (memory as Godwit's vm has it: QEMU 7.2 under TCG misses dirty pages when it is a multiple "
        "of 256 KiB;\n   totals of both count from starting the target's QEMU until the vm runs there)")


def run(options):
    cases = ("there",) if options.quick else tuple(CASES)
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(options.lab))
        if options.loss:
            lab.set_link(f"loss={options.loss}")
        runner = Runner(lab, Load(dirty=options.dirty), cases)
        try:
            for number in range(1, (1 if options.quick else options.rounds) + 1):
                runner.round(number)
        finally:
            if options.json:
                write_rows(options.json, [r for m in runner.moves for r in m.rows("move")])
        delay = lab.describe()["delay_error_us"]
    show_stock(runner.stock_commands)
    show_comparison(runner.moves)
    say(f"\nWAN: 40 ms RTT, 400 Mbit/s, loss {options.loss or '0'}; the emulator's delay error: "
        f"p99 {delay['p99']:.0f} us")
    return show_targets(runner.moves, options.loss)


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench move", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, one move of each")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--loss", metavar="PERCENT", help="of the WAN's packets, like 0.1%%")
    parser.add_argument("--dirty", default="20mbit", metavar="RATE")
    parser.add_argument("--json", metavar="FILE", help="write all figures as rows")
    parser.add_argument("--lab", default="bench-move", metavar="NAME", help="the lab's name")
    return parser.parse_args()


def main():
    options = arguments()
    return performed("bench move", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
