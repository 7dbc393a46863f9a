#!/usr/bin/python3
"""How fast memory moves where no link is in its way: two hosts on one switch, Godwit against QEMU's own TCP.

The same vm, in a lab with agents and in one without; systems take turns. It is `random` (pages that nothing
makes smaller) or `debian` (an idle one, bench/debian_guest.py).

  seconds      from the first page until the vm runs at the other host, its pause included; of QEMU its total-time
  stream_gbps  what QEMU wrote of its memory, by these

`godwit` encodes and encrypts, `godwit-no-compact` only relays, and encrypts; QEMU does neither. Exit status 1 if a
move failed.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
from contextlib import ExitStack

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))

from clones import wait_until_idle  # noqa: E402
from debian_guest import debian_guest  # noqa: E402
from stage import HOSTS, VM, Godwit, Lab, Load, performed, warm_memory, write_rows  # noqa: E402
from stock import StockVm  # noqa: E402

LAB = ROOT / "bench" / "local_lab.yaml"
GODWITS = {"godwit": (), "godwit-no-compact": ("--no-compact",)}  # and of each, nothing that the target knows
QEMU = "qemu-plain"
TO_REACH = {"godwit": 0.7, "godwit-no-compact": 0.9}  # of QEMU's rate
WARM_BYTES = 3 << 30


def say(text=""):
    print(text, flush=True)


def load_of(case, memory_mib):
    if case == "random":
        return Load(memory=f"{memory_mib}MiB", dirty="0bit", working_set=f"{memory_mib * 3 // 4}MiB")
    return Load(memory=f"{memory_mib}MiB", dirty="0bit", working_set="1MiB", initrd=debian_guest("idle"),
                words="bench.workload=idle")


class Ours:
    """A vm without a NIC, at an agent's host."""

    def __init__(self, lab, load):
        self.lab, self.moves = lab, Godwit(lab, load)
        kernel, initrd = load.files()
        lab.run(self.moves.host, "godwit", "vm", "run", VM, "--memory", load.memory, "--kernel", kernel,
                "--initrd", initrd, "--append", load.append())
        wait_until_idle(lab, self.moves.host, 1)

    def move(self, options):
        """(seconds, bytes of QEMU's stream)."""
        report = self.moves.move(other_than(self.moves.host), progress=subprocess.DEVNULL,
                                 options=("--no-known", *options))[0]["report"]
        return (report["copying_ms"] + report["pause_ms"]) / 1000, report["bytes"]["memory_stream"]


class Theirs:
    def __init__(self, lab, load, argv):
        self.vm = StockVm(lab, load, argv)
        self.vm.start()
        wait_until_idle(lab, self.vm.host, 1)

    def move(self):
        account = self.vm.move(other_than(self.vm.host))[2]
        self.vm.end_source()
        return account["total-time"] / 1000, account["ram"]["transferred"]


def other_than(host):
    return next(other for other in HOSTS.values() if other != host)


def measured(options, case):
    """By system, the moves of each: (seconds, bytes)."""
    load = load_of(case, options.memory_mib)
    moves = {system: [] for system in (*GODWITS, QEMU)}
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(options.lab, config=LAB))
        ours = Ours(lab, load)
        theirs = Theirs(stack.enter_context(Lab(f"{options.lab}-stock", agents=False, config=LAB)), load,
                        ours.moves.qemu_argv())
        stack.callback(theirs.vm.stop)
        for _ in range(options.rounds):
            for system, words in GODWITS.items():
                warm_memory(WARM_BYTES)
                moves[system].append(ours.move(words))
            warm_memory(WARM_BYTES)
            moves[QEMU].append(theirs.move())
    return moves


def gbps(move):
    seconds, size = move
    return size * 8 / seconds / 1e9


def show(case, moves):
    """The table of a case; whether what was to be reached is."""
    qemus, reached = statistics.median(map(gbps, moves[QEMU])), True
    say(f"\n{case:<24}{'Gbit/s':>8}  of QEMU's")
    for system, of_it in moves.items():
        rates = [gbps(move) for move in of_it]
        ratio = statistics.median(rates) / qemus
        to_reach = TO_REACH.get(system)
        reached = reached and (to_reach is None or ratio >= to_reach)
        told = "" if to_reach is None else f", to reach {to_reach}: {'met' if ratio >= to_reach else 'MISSED'}"
        say(f"  {system:<22}{statistics.median(rates):>8.2f}  {ratio:.2f}{told}  "
            f"({', '.join(f'{seconds:.2f} s' for seconds, _ in of_it)})")
    return reached


def rows_of(case, moves):
    for system, of_it in moves.items():
        for move in of_it:
            for metric, value, unit in (("seconds", move[0], "s"), ("stream_gbps", gbps(move), "Gbit/s")):
                yield {"bench": "local", "case": case, "system": system, "metric": metric, "value": value, "unit": unit}


def run(options):
    rows = []
    try:
        for case in options.case:
            moves = measured(options, case)
            rows += rows_of(case, moves)
            show(case, moves)
    finally:
        if options.json:
            write_rows(options.json, rows)
    return True


def main():
    parser = argparse.ArgumentParser(prog="./dev bench local", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="random only, a vm of 512 MiB, three rounds")
    parser.add_argument("--rounds", type=int, metavar="N", help="moves of each system (default 5; --quick: 3)")
    parser.add_argument("--case", action="append", choices=("random", "debian"), help="only this; may be repeated")
    parser.add_argument("--json", metavar="FILE", help="write all figures as rows")
    parser.add_argument("--lab", default="bench-local", metavar="NAME", help="the labs' name")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.memory_mib = 512 if options.quick else 1024
    options.case = options.case or (["random"] if options.quick else ["random", "debian"])
    return performed("bench local", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
