#!/usr/bin/python3
"""Vms made from one image that move at once over a WAN: a group of Godwit's against QEMUs side by side.

Debian guests (bench/debian_guest.py) that have booted alike and read their files, four of them. Peers move
all at once, each by its own connection, as a script of an operator's would.

  total_s     until the last vm runs at the target and its source has completed
  pause_ms    of the vm that stood longest
  spread_ms   between the first and the last that ran there (QEMU: unknown)
  wan_bytes   all frames on the link between the sites, both ways
  cpu_s       Godwit's agents at both ends, and QEMU's migration threads, with the main thread at the target
  rss_mib     by which agents and the sources' QEMUs grew

`godwit-apart` moves the same vms by a migration each, with nothing in common.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))

from debian_guest import debian_guest  # noqa: E402
from memory import LINKS, QUICK_LINK, RETURN, QEMUS, say  # noqa: E402
from stage import (HOSTS, MAX_DOWNTIME_MS, MOVE_LIMIT_S, Lab, Load, StageError, guest_image,  # noqa: E402
                   performed, wait_until, warm_memory, write_rows)
from stock import MIGRATION_PORT, StockVm  # noqa: E402
from usage import PYTHON, Usage  # noqa: E402

COUNT = 4
PEERS = {name: QEMUS[name] for name in ("qemu-plain", "qemu-multifd-zstd")}
UNITS = {"total_s": "s", "pause_ms": "ms", "spread_ms": "ms", "wan_bytes": "bytes", "cpu_s": "s", "rss_mib": "MiB"}
BOOT_LIMIT_S, LOOK_S, IDLE = 600, 3.0, 0.3  # of a CPU each: an emulated one sleeps at 0.2
WARM_BYTES = 6 << 30


class Clones:
    limit_s = MOVE_LIMIT_S

    def __init__(self, lab, load):
        self.lab, self.load, self.names = lab, load, [f"clone{i + 1}" for i in range(COUNT)]
        self.host = HOSTS["east"]

    def start(self):
        kernel, _ = guest_image()
        for name in self.names:
            self.lab.run(self.host, "godwit", "vm", "run", name, "--memory", self.load.memory, "--kernel", kernel,
                         "--initrd", self.load.initrd, "--append", self.load.append())
        wait_until_idle(self.lab, self.host)

    def argvs(self):
        pids = {vm["name"]: vm["pid"] for vm in self.lab.ask(self.host, "vm", "ls")}
        return [self.lab.run(self.host, "cat", f"/proc/{pids[name]}/cmdline").split("\0")[:-1]
                for name in self.names]

    def migrate(self, host, *names):
        moving = self.lab.start(self.host, "godwit", "migrate", *names, "--to", host, "--max-downtime",
                                f"{MAX_DOWNTIME_MS:.0f}ms", "--on-diverge", "pause", "--no-known", "--json",
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            said = moving.communicate(timeout=self.limit_s)[0]
        finally:
            moving.terminate()
        if moving.returncode != 0:
            reasons = re.findall(r'"reason": "(.*)"', said)
            raise StageError(f"godwit migrate ended with status {moving.returncode}: {'; '.join(reasons)}")
        return json.loads(said)

    def move_as_a_group(self, host):
        group = self.migrate(host, *self.names)
        self.host = host
        return group["members"], {"spread_ms": group["spread_ms"]}

    def move_apart(self, host):
        with ThreadPoolExecutor(COUNT) as pool:
            moves = list(pool.map(lambda name: self.migrate(host, name), self.names))
        self.host = host
        return moves, {}


VCPU_SECONDS = """
import pathlib
total = 0
for comm in pathlib.Path("/proc").glob("[0-9]*/task/*/comm"):
    if comm.read_text().startswith("CPU "):
        total += int((comm.parent / "schedstat").read_text().split()[0])
print(total / 1e9)
"""


def wait_until_idle(lab, host, count=COUNT):
    """Booted and through with its files, a guest sleeps; `count` of them are there."""
    def look():
        return float(lab.run(host, PYTHON, "-c", VCPU_SECONDS)), time.monotonic()

    seen = look()

    def idle():
        nonlocal seen
        if time.monotonic() - seen[1] < LOOK_S:
            return False
        (before, then), seen = seen, look()
        return (seen[0] - before) / (seen[1] - then) < count * IDLE

    wait_until(idle, BOOT_LIMIT_S, "the guests are idle")


def measured(lab, move):
    """`move` returns what it knows itself."""
    warm_memory(WARM_BYTES)
    with Usage(lab, HOSTS["east"], HOSTS["west"]) as usage:
        before = lab.wan()
        figures = move()
        figures["wan_bytes"] = lab.wan().since(before).bytes
    return figures | {"cpu_s": usage.cpu_s(), "rss_mib": usage.rss_mib()}


def of_godwit(result):
    moves, more = result
    reports = [move["report"] for move in moves]
    shared = [use["pages"] for report in reports for use in report["encodings"] if use["name"] == "group"]
    say(f"    pages that were sent for another vm: {', '.join(map(str, shared))}")
    return {"total_s": max(report["total_ms"] for report in reports) / 1000,
            "pause_ms": max(report["pause_ms"] for report in reports)} | more


def godwits(options, load, figures):
    """The command lines of the vms' QEMUs."""
    with Lab(options.lab) as lab:
        clones = Clones(lab, load)
        clones.start()
        argvs = clones.argvs()
        lab.set_link(*LINKS[options.link], "loss=0%")
        keep(figures, "godwit", measured(lab, lambda: of_godwit(clones.move_as_a_group(HOSTS["west"]))))
        keep(figures, "godwit-apart", measured(lab, lambda: of_godwit(clones.move_apart(HOSTS["east"]))))
    return argvs


def qemus(options, load, argvs, figures):
    with Lab(options.lab, agents=False) as lab, ThreadPoolExecutor(COUNT) as pool:
        vms = [StockVm(lab, load, argv, MIGRATION_PORT + i) for i, argv in enumerate(argvs)]

        def move(settings):
            began = time.monotonic()
            results = list(pool.map(lambda vm: vm.move(HOSTS["west"], settings), vms))
            return {"total_s": time.monotonic() - began, "pause_ms": max(result[1] for result in results)}

        try:
            for vm in vms:
                vm.start()
            wait_until_idle(lab, HOSTS["east"])
            for system, settings in PEERS.items():
                lab.set_link(*LINKS[options.link], "loss=0%")
                vms[0].commands.clear()
                keep(figures, system, measured(lab, lambda settings=settings: move(settings)))
                say("".join(f"      {line}\n" for line in vms[0].commands) + "      likewise for the others")
                lab.set_link(*QUICK_LINK)
                for vm in vms:
                    vm.end_source()
                    vm.move(HOSTS["east"], RETURN)
                    vm.end_source()
        finally:
            for vm in vms:
                vm.stop()


def keep(figures, system, of_it):
    figures[system] = of_it
    say(f"  {system:<18} " + "  ".join(f"{metric} {value:.6g}" for metric, value in of_it.items()))


def run(options):
    load = Load(memory="512MiB" if options.quick else "1GiB", dirty="0bit", working_set="1MiB",
                initrd=debian_guest("idle"), words="bench.workload=idle")
    case = f"{COUNT}-idle/{options.link}/0%"
    say(f"{case}: {COUNT} vms of {load.memory}")
    figures = {}
    qemus(options, load, godwits(options, load, figures), figures)
    if options.json:
        write_rows(options.json, [{"bench": "clones", "case": case, "system": system, "metric": metric, "value": value,
                                   "unit": UNITS[metric]}
                                  for system, of_it in figures.items() for metric, value in of_it.items()])
    return judge(figures)


def judge(figures):
    """Shows what was to be reached; whether the group took fewer bytes than any QEMU."""
    ours = figures["godwit"]
    best = {metric: min(figures[peer][metric] for peer in PEERS) for metric in ("wan_bytes", "total_s")}
    plain = figures["qemu-plain"]
    for metric, limit, to, whose in (("wan_bytes", 0.4, best["wan_bytes"], "the best QEMU"),
                                     ("total_s", 0.45, best["total_s"], "the best QEMU"),
                                     ("wan_bytes", 0.5, plain["wan_bytes"], "plain QEMU"),
                                     ("total_s", 0.35, plain["total_s"], "plain QEMU")):
        share = ours[metric] / to
        say(f"{metric:<10} {share:.3f} of {whose} (to reach: {limit}): {'met' if share <= limit else 'MISSED'}")
    return ours["wan_bytes"] < best["wan_bytes"]


def main():
    parser = argparse.ArgumentParser(prog="./dev bench clones", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="vms of 512 MiB")
    parser.add_argument("--json", metavar="FILE", help="write all figures as rows")
    parser.add_argument("--link", default="465mbit-27ms", choices=LINKS, help="between the sites")
    parser.add_argument("--lab", default="bench-clones", metavar="NAME", help="the lab's name")
    options = parser.parse_args()
    return performed("bench clones", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
