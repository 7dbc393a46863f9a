#!/usr/bin/python3
"""Connections that outlive an address (strategy endpoint): what a move costs them, and what it costs to have them live on.

moves      a guest goes to a subnet where its address means nothing, under traffic: mobility_moves.py
many       10,000 connections of one guest: mobility_many.py
second-nic when a guest can use its new address, configured before or after its move: mobility_second_nic.py
latency    correspondent -- guest's host -- guest, network namespaces on one machine: a datagram there and back by a
           connection whose addresses the hosts at both ends rewrite, against one that they leave alone; interleaved

Exit status 1 if a target is missed.
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "demo"))

import guest_moves  # noqa: E402
import mobility_latency  # noqa: E402
import mobility_many  # noqa: E402
import mobility_second_nic  # noqa: E402
from mobility_moves import SCENE  # noqa: E402
from stage import performed, write_rows  # noqa: E402

PARTS = {  # (how it is measured, how judged)
    "moves": (lambda options: guest_moves.measure(SCENE, options), lambda rows: guest_moves.judge(SCENE, rows)),
    "many": (mobility_many.measure, mobility_many.judge),
    "second-nic": (mobility_second_nic.measure, mobility_second_nic.judge),
    "latency": (mobility_latency.measure, mobility_latency.judge),
}


def run(options):
    rows, met = [], True
    for part in options.part or PARTS:
        measure, judge = PARTS[part]
        of_part = measure(options)
        met = judge(of_part) and met
        rows += of_part
    if options.json:
        write_rows(options.json, rows)
    return met


def main():
    parser = argparse.ArgumentParser(prog="./dev bench mobility", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="moves: one round, of two correspondents and the loads "
                        "udp-1000 and ssh (of others by --load), instead of 3 of all; latency: 3 rounds instead of 15; second-nic: 1 instead of 5")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one")
    guest_moves.add_options(parser, SCENE, "bench-mobility")
    options = parser.parse_args()
    return performed("bench mobility", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
