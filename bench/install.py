#!/usr/bin/python3
"""Two hosts without Godwit to the first finished migration, by README's quick start.

The hosts are machines with systemd (test/e2e/machine.py); what apt would download is there already, so
that the time is that of installing, joining, booting a vm and moving it. Needs root.
"""

import argparse
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "test" / "e2e"), str(ROOT / "demo")]

from conftest import Lab, build_directory  # noqa: E402
from machine import Machine  # noqa: E402
from packages import built  # noqa: E402
from stage import write_rows  # noqa: E402
from test_install import LAB, run_quick_start  # noqa: E402


def measure():
    lab, machines = Lab(build_directory() / "bin" / "godwit-lab"), {}
    with tempfile.TemporaryDirectory() as directory:
        try:
            lab.up(LAB, directory)
            for host in ("east", "west"):
                machines[host] = Machine(lab, host)
            return run_quick_start(machines, built())
        finally:
            for machine in machines.values():
                machine.end()
            lab.down()


def main():
    parser = argparse.ArgumentParser(prog="./dev bench install", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the same: it is one run")
    parser.add_argument("--json", metavar="FILE", help="write the figure as a row")
    options = parser.parse_args()
    seconds = measure()
    print(f"fresh two hosts -> first migration: {seconds:.1f} s")
    if options.json:
        write_rows(options.json, [{"bench": "install", "case": "quick-start", "system": "godwit",
                                   "metric": "first_migration_s", "value": seconds, "unit": "s"}])


if __name__ == "__main__":
    main()
