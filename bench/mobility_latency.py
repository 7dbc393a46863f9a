"""What the rewriting of the strategy endpoint adds to a datagram's round trip, under `./dev bench mobility`.

mobility_rows.cc makes the correspondent, the guest's host and the guest, each a network namespace, and measures.
added_latency_us is the median of the rounds' differences: the two ways take turns within each.
"""

import json
import statistics
import subprocess

from stage import StageError, build_directory

MOST_ADDED_US = 10


def measure(options):
    program = build_directory() / "bench" / "mobility_rows"
    done = subprocess.run([program, *(["--quick"] if options.quick else [])], stdout=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode != 0:
        raise StageError(f"{program.name} ended with {done.returncode}")
    return rows_of([json.loads(line) for line in done.stdout.splitlines()])


def rows_of(measured):
    """`measured`: rows of rounds, one of each system in each."""
    of_system = {}
    for row in measured:
        of_system.setdefault(row["system"], []).append(row["value"])
    added = [with_it - without for with_it, without in zip(of_system["godwit-endpoint"], of_system["nothing"])]
    figures = [(system, "round_trip_us", statistics.median(values)) for system, values in of_system.items()]
    figures.append(("godwit-endpoint", "added_latency_us", statistics.median(added)))
    rows = [{"bench": "mobility", "case": "latency", "system": system, "metric": metric, "value": value, "unit": "us"}
            for system, metric, value in figures]
    for row in rows:
        print(f"  latency {row['system']:<16} {row['metric']:<17} {row['value']:8.2f} us", flush=True)
    return rows


def judge(rows):
    added = next(row["value"] for row in rows if row["metric"] == "added_latency_us")
    met = added <= MOST_ADDED_US
    print(f"  {'met' if met else 'MISSED'}: {added:+.2f} us, at most {MOST_ADDED_US}", flush=True)
    return met
