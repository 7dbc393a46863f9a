#!/usr/bin/python3
"""What the rules of the strategy nat cost: to plan, to write, to keep, and each packet.

plan-1000, install-1000   1,000 displaced guests on 8 devices, each a network namespace: planned, staged, flipped,
                          read back
scale-100k                100,000 hosts in 50 pods, 1,000 guests displaced: rules at the devices of each tier,
                          with and without detours, against a route for each guest at every device that needs one
through                   client -- device -- host: TCP and a datagram there and back to an address that the device
                          rewrites (it has 1,001) and the host rewrites back, against the same way without; interleaved
moves                     a guest that changes racks in examples/data-centre: nat_moves.py, which says what its cases are

Exit status 1 if a target is missed.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))

import guest_moves  # noqa: E402
from nat_moves import SCENE  # noqa: E402
from stage import StageError, performed, write_rows  # noqa: E402

PROGRAM = pathlib.Path(os.environ.get("GODWIT_BUILD", ROOT / "build/release")) / "bench/nat_rows"
MOST_PLAN_MS = 100
MOST_INSTALL_S = 2
LEAST_THROUGHPUT = 0.95
MOST_ADDED_US = 10
PARTS = ("rules", "moves")


def measured(quick):
    """The program's rows, each figure the median of its rounds."""
    with subprocess.Popen([PROGRAM, *(["--quick"] if quick else [])], stdout=subprocess.PIPE, text=True) as program:
        values = {}
        for line in program.stdout:
            row = json.loads(line)
            values.setdefault((row["case"], row["system"], row["metric"], row["unit"]), []).append(row["value"])
    if program.returncode != 0:
        raise StageError(f"{PROGRAM.name} ended with {program.returncode}")
    rows = []
    for (case, system, metric, unit), of_rounds in values.items():
        rows.append({"bench": "nat", "case": case, "system": system, "metric": metric,
                     "value": statistics.median(of_rounds), "unit": unit})
        print(f"  {case:<13} {system:<19} {metric:<24} {rows[-1]['value']:10.3f} {unit}", flush=True)
    return rows


def judge(rows):
    value = {(row["case"], row["system"], row["metric"]): row["value"] for row in rows}

    def of(metric, system="godwit-nat"):
        return value["through", system, metric]

    stage, flip = (value["install-1000", "godwit-nat", f"{step}_s"] for step in ("stage", "flip"))
    added = of("round_trip_us") - of("round_trip_us", "nothing")
    checks = [
        (value["plan-1000", "godwit-nat", "plan_ms"] <= MOST_PLAN_MS, "1,000 guests planned",
         f"{value['plan-1000', 'godwit-nat', 'plan_ms']:.0f} ms, to reach {MOST_PLAN_MS}"),
        (stage + flip <= MOST_INSTALL_S, "written to 8 devices, twice",
         f"{stage + flip:.2f} s, to reach {MOST_INSTALL_S}"),
        (of("gbps") / of("gbps", "nothing") >= LEAST_THROUGHPUT, "throughput",
         f"{of('gbps') / of('gbps', 'nothing'):.3f} of that without, to reach {LEAST_THROUGHPUT}"),
        (added <= MOST_ADDED_US, "latency", f"{added:+.2f} us, to reach {MOST_ADDED_US}"),
    ]
    for met, what, text in checks:
        print(f"  {'met' if met else 'MISSED'}: {what}: {text}", flush=True)
    return all(met for met, _, _ in checks)


def run(options):
    rows, met = [], True
    for part in options.part or PARTS:
        of_part = guest_moves.measure(SCENE, options) if part == "moves" else measured(options.quick)
        rows += of_part
        met = (guest_moves.judge(SCENE, of_part) if part == "moves" else judge(of_part)) and met
    if options.json:
        write_rows(options.json, rows)
    return met


def main():
    parser = argparse.ArgumentParser(prog="./dev bench nat", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="rules: 3 rounds of 1 s, instead of 7 of 3; moves: one round, of two correspondents and "
                        "the loads udp-1000 and ssh (of others by --load), instead of 3 of all")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one")
    guest_moves.add_options(parser, SCENE, "bench-nat")
    options = parser.parse_args()
    return performed("bench nat", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
