#!/usr/bin/python3
"""A vm moves with its disks, and back to what it left: one is an overlay on an image that both hosts have, two
are its own. The guest writes to one of these all the time, each block on stable storage before the next.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import contextlib
import json
import sys

from stage import HOSTS, VM, VM_ADDRESS, WAYS, Client, Godwit, Lab, Load, all_kept, demo, wait_until

IMAGE_MIB = 128
RATE = "4mbit"      # of the guest's writes
CHECK_LIMIT_S = 60
# A write whose word from the target does not come is done without it.
MOST_WAIT_MS = 2200
# Of the image nothing crosses; of the disk that the guest writes to, 32 MiB of noise at most.
MOST_SENT_MB = 48
ARCHIVE_MIB = 64  # of noise; crosses once
IMAGE = "/var/lib/base.raw"
NOISE = ("import random, sys\n"
         "same = random.Random(1)\n"
         "with open(sys.argv[1], 'wb') as file:\n"
         f"    for _ in range({IMAGE_MIB}):\n"
         "        file.write(same.randbytes(1 << 20))\n")
ASK = ("import socket, sys\n"
       "s = socket.create_connection((sys.argv[1], 7008), 5)\n"
       f"s.settimeout({CHECK_LIMIT_S})\n"
       "s.sendall(sys.argv[2].encode() + b'\\n')\n"
       "print(s.makefile().readline())\n")


def say(text=""):
    print(text, flush=True)


def introduce():
    say(f"""
    east: client, e1 ==== 400 Mbit/s, 40 ms RTT ==== west: w1

  vm      {VM}, at e1: disk root, an overlay on the image base ({IMAGE_MIB} MiB, at both hosts), and
          disk data, to which the guest writes at {RATE}, at random, and remembers what must be where;
          disk archive, {ARCHIVE_MIB} MiB of noise
  job     e1 -> w1, and back, to what it left there: of that only what differs crosses
""")


def disk_of(lab, verb):
    """What the guest says of its disk; after "check" it has read all that it ever wrote."""
    return json.loads(lab.run("client", "/usr/bin/python3", "-c", ASK, VM_ADDRESS, verb))["disk"]


def move(lab, client, godwit, target):
    """(the report, the client's window, damaged blocks, the guest's slowest write in ms)"""
    disk_of(lab, "forget")  # from here on its slowest write is one of the move
    (migration, text), window = client.watch(f"to-{target}", lambda: godwit.move(target))
    slowest = disk_of(lab, "report")["slowest_us"] / 1e3
    say(text)
    damaged = disk_of(lab, "check")["damaged"]
    say(f"  the guest reads back what it wrote: {damaged} blocks are not as it left them; its slowest write "
        f"took {slowest:.0f} ms\n")
    return migration["report"], window, damaged, slowest


def show(options):
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(options.lab))
        introduce()
        for host in HOSTS.values():
            lab.run(host, "/usr/bin/python3", "-c", NOISE, IMAGE)
            lab.run(host, "godwit", "image", "add", "base", IMAGE, "--format", "raw")
        godwit = Godwit(lab, Load(memory="256MiB", dirty="2mbit", working_set="4MiB",
                                  disks=("root,image=base", "data,size=1GiB", f"archive,size={ARCHIVE_MIB}MiB,format=raw"),
                                  words=f"godwit.disk=vdb godwit.disk-rate={RATE}"))
        godwit.start()
        archive = next(disk["path"] for disk in lab.ask("e1", "disk", "ls") if disk["name"] == "archive")
        lab.run("e1", "dd", "if=/dev/urandom", f"of={archive}", "bs=1M", f"count={ARCHIVE_MIB}", "conv=notrunc",
                "status=none")
        client = stack.enter_context(Client(lab))
        wait_until(lambda: disk_of(lab, "report")["written"] > 1000, 60, "writes of the guest")
        moves = [move(lab, client, godwit, HOSTS["west"])]
        say("what it left at e1:\n" + lab.run("e1", "godwit", "disk", "ls"))
        moves.append(move(lab, client, godwit, HOSTS["east"]))
        total = client.stop()
    reports, windows, damaged, slowest = zip(*moves)
    return all_kept([
        ("blocks of the disk that are not as the guest wrote them", sum(damaged), 0),
        ("MB sent for the disks", reports[0]["disks"]["sent_bytes"] / 1e6, MOST_SENT_MB + ARCHIVE_MIB * 1.05),
        ("MB sent for the disks on the way back", reports[1]["disks"]["sent_bytes"] / 1e6, MOST_SENT_MB),
        ("pause for the disks alone, ms", max(report["disks"]["settle_ms"] for report in reports), 60),
        ("the guest's slowest write, ms (its clock stands in the pause)", max(slowest), MOST_WAIT_MS),
        ("frames lost in two moves", sum(window[way]["lost"] for window in windows for way in WAYS), 0),
        ("TCP connections reset", total["tcp"]["resets"], 0),
    ])


if __name__ == "__main__":
    sys.exit(demo("disks", __doc__, show))
