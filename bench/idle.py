#!/usr/bin/python3
"""What an agent costs that has 100 idle wires: CPU of a core and memory.

    e1: 100 uplink ports  ==( wires over the WAN )==  w1: 100 uplink ports

Exit status 1 if a target is missed.
"""

import argparse
import os
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))

from stage import HOSTS, Lab, StageError, performed, wait_until, write_rows  # noqa: E402

MOST_CPU_PERCENT, MOST_RSS_MIB = 1.0, 64.0
CONNECT_LIMIT_S = 60


def agent_pid(lab, host):
    return lab.run(host, "pidof", "godwitd").split()[0]


def cpu_s(lab, host, pid):
    words = lab.run(host, "cat", f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(lab, host, pid):
    status = lab.run(host, "cat", f"/proc/{pid}/status")
    return int(status.split("VmRSS:", 1)[1].split()[0]) / 1024


def connects(lab, here, there):
    """False as long as the other host's port is not known here: that takes a moment."""
    try:
        lab.run(HOSTS["east"], "godwit", "connect", here, there)
    except StageError:
        return False
    return True


def make_wires(lab, count):
    for number in range(count):
        for site, host in HOSTS.items():
            lab.run(host, "godwit", "port", "add", f"{site}{number}", "--uplink")
    for number in range(count):
        wait_until(lambda: connects(lab, f"east{number}", f"west{number}"), CONNECT_LIMIT_S,
                   f"port west{number} becomes known at {HOSTS['east']}")
    for host in HOSTS.values():
        wait_until(lambda: [w["state"] for w in lab.ask(host, "wire", "ls")] == ["up"] * count,
                   CONNECT_LIMIT_S, f"{count} wires come up at {host}")


def measure(lab, count, length_s):
    """Rows of both agents over `length_s` seconds in which nothing is asked of them."""
    pids = {host: agent_pid(lab, host) for host in HOSTS.values()}
    before = {host: cpu_s(lab, host, pid) for host, pid in pids.items()}
    begun = time.monotonic()
    time.sleep(length_s)
    after = {host: cpu_s(lab, host, pid) for host, pid in pids.items()}
    took = time.monotonic() - begun
    rows = []
    for host, pid in pids.items():
        figures = {"cpu_percent": (100 * (after[host] - before[host]) / took, "% of a core"),
                   "rss_mib": (rss_mib(lab, host, pid), "MiB")}
        rows += [{"bench": "idle", "case": f"{count} wires, {host}", "system": "godwit",
                  "metric": metric, "value": value, "unit": unit}
                 for metric, (value, unit) in figures.items()]
    return rows


def judge(rows):
    limits = {"cpu_percent": MOST_CPU_PERCENT, "rss_mib": MOST_RSS_MIB}
    all_met = True
    for row in rows:
        limit = limits[row["metric"]]
        met = row["value"] <= limit
        all_met = all_met and met
        print(f"  met     {row['case']:<18} {row['metric']:<12} "
              f"{row['value']:.2f} <= {limit:g} {row['unit']}" if met else
              f"  MISSED  {row['case']:<18} {row['metric']:<12} "
              f"{row['value']:.2f} > {limit:g} {row['unit']}", flush=True)
    return all_met


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench idle", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 wires, 5 seconds")
    parser.add_argument("--json", metavar="FILE", help="write the figures as rows")
    parser.add_argument("--lab", default="bench-idle", metavar="NAME", help="the lab's name")
    return parser.parse_args()


def run(options):
    count, length_s = (20, 5) if options.quick else (100, 30)
    with Lab(options.lab) as lab:
        make_wires(lab, count)
        rows = measure(lab, count, length_s)
    if options.json:
        write_rows(options.json, rows)
    return judge(rows)


def main():
    options = arguments()
    return performed("bench idle", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
