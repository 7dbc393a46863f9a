#!/usr/bin/python3
"""A vm's disks are at the other site before it moves: a replica takes over, every few seconds, what the guest
writes to one of them, each block on stable storage before the next; then the vm moves, and sends what is left.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import contextlib
import subprocess
import sys

from disks import RATE, disk_of, move, say
from stage import HOSTS, VM, WAYS, Client, Godwit, Lab, Load, all_kept, demo, wait_until

ARCHIVE_MIB = 128  # of noise
EVERY = "5s"
RUNS = 3
# What the guest writes in some seconds, of 64 KiB of which most are zeroes, and its vm's tables.
MOST_SENT_MB = 24


def introduce():
    say(f"""
    east: client, e1 ==== 400 Mbit/s, 40 ms RTT ==== west: w1

  vm       {VM}, at e1: disk data, to which the guest writes at {RATE}, at random, and disk archive,
           {ARCHIVE_MIB} MiB of noise
  replica  of both at w1, brought up to date every {EVERY}
  job      e1 -> w1: what the replica has does not cross again
""")


def replica_of(lab):
    return lab.ask("e1", "replica", "ls")[0]


def replicate(lab):
    adding = lab.start("e1", "godwit", "replica", "add", VM, "--to", "west", "--every", EVERY,
                       stdin=subprocess.DEVNULL)
    if adding.wait(120) != 0:
        raise RuntimeError("godwit replica add failed")
    first = replica_of(lab)
    wait_until(lambda: replica_of(lab)["runs"] >= 1 + RUNS, 120, "runs of the replica")
    say("\n" + lab.run("e1", "godwit", "replica", "ls") + "\nat w1:\n" + lab.run("w1", "godwit", "disk", "ls"))
    return first["last_run"], replica_of(lab)["last_run"]


def show(options):
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(options.lab))
        introduce()
        godwit = Godwit(lab, Load(memory="256MiB", dirty="2mbit", working_set="4MiB",
                                  disks=("data,size=1GiB", f"archive,size={ARCHIVE_MIB}MiB,format=raw"),
                                  words=f"godwit.disk=vda godwit.disk-rate={RATE}"))
        godwit.start()
        archive = next(disk["path"] for disk in lab.ask("e1", "disk", "ls") if disk["name"] == "archive")
        lab.run("e1", "dd", "if=/dev/urandom", f"of={archive}", "bs=1M", f"count={ARCHIVE_MIB}", "conv=notrunc",
                "status=none")
        client = stack.enter_context(Client(lab))
        wait_until(lambda: disk_of(lab, "report")["written"] > 1000, 60, "writes of the guest")
        first, last = replicate(lab)
        report, window, damaged, _ = move(lab, client, godwit, HOSTS["west"])
        total = client.stop()
    return all_kept([
        ("blocks of the disk that are not as the guest wrote them", damaged, 0),
        ("MB sent by the last run, of " + f"{first['sent_bytes'] / 1e6:.0f} by the first", last["sent_bytes"] / 1e6,
         MOST_SENT_MB),
        ("MB sent for the disks by the move", report["disks"]["sent_bytes"] / 1e6, MOST_SENT_MB),
        ("frames lost", sum(window[way]["lost"] for way in WAYS), 0),
        ("TCP connections reset", total["tcp"]["resets"], 0),
    ])


if __name__ == "__main__":
    sys.exit(demo("replica", __doc__, show))
