#!/usr/bin/python3
"""A vm whose disk is at a storage server moves, and back: the disk stays where it is, and the guest, which writes to
it all the time, finds all that it wrote. Then the same address leads to another server at the other site.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import contextlib
import subprocess
import sys

from disks import disk_of, move, say
from stage import HOSTS, VM, WAYS, Client, Godwit, Lab, Load, all_kept, demo, wait_until

SERVER = "10.66.1.11"  # client's address
FILE = "/var/lib/volume.raw"
SIZE_MIB = 1024
RATE = "512kbit"  # of the guest's writes
URI = f"nbd://{SERVER}/data"


def introduce():
    say(f"""
    east: client, e1 ==== 400 Mbit/s, 40 ms RTT ==== west: w1

  vm      {VM}, at e1: disk data, {SIZE_MIB} MiB at {URI}, which is QEMU's NBD server at client;
          the guest writes to it at {RATE}, at random, and remembers what must be where
  job     e1 -> w1, and back: of the disk nothing crosses
""")


@contextlib.contextmanager
def server(lab, host):
    """At the server's address, with noise where a file system would be."""
    lab.run(host, "truncate", "-s", f"{SIZE_MIB}M", FILE)
    lab.run(host, "dd", "if=/dev/urandom", f"of={FILE}", "bs=64k", "count=1", "conv=notrunc", "status=none")
    process = lab.start(host, "qemu-nbd", "--persistent", "--shared=0", "--format=raw", f"--bind={SERVER}",
                        "--export-name=data", FILE)
    try:
        wait_until(lambda: lab.start(host, "nbdinfo", URI, stdout=subprocess.DEVNULL).wait(10) == 0, 10, "the NBD server")
        yield
    finally:
        process.terminate()
        process.wait(10)


def refused(lab):
    """Whether a move is, to a host where the server's address is its own."""
    lab.run("w1", "ip", "address", "add", f"{SERVER}/32", "dev", "lo")
    with server(lab, "w1"):
        trying = lab.start("e1", "godwit", "migrate", VM, "--to", "west")
        return trying.wait(60) == 3


def show(options):
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(options.lab))
        introduce()
        stack.enter_context(server(lab, "client"))
        godwit = Godwit(lab, Load(memory="256MiB", dirty="2mbit", working_set="4MiB", disks=(f"data,uri={URI}",),
                                  words=f"godwit.disk=vda godwit.disk-rate={RATE}"))
        godwit.start()
        client = stack.enter_context(Client(lab))
        wait_until(lambda: disk_of(lab, "report")["written"] > 50, 60, "writes of the guest")
        moves = [move(lab, client, godwit, HOSTS["west"])]
        say(lab.run("w1", "godwit", "disk", "ls"))
        moves.append(move(lab, client, godwit, HOSTS["east"]))
        total = client.stop()
        say("now w1 has another server at that address:")
        was_refused = refused(lab)
    reports, windows, damaged, _ = zip(*moves)
    return all_kept([
        ("blocks of the disk that are not as the guest wrote them", sum(damaged), 0),
        ("MB sent for the disk", sum(report.get("disks", {}).get("sent_bytes", 0) for report in reports) / 1e6, 0),
        ("frames lost in two moves", sum(window[way]["lost"] for window in windows for way in WAYS), 0),
        ("TCP connections reset", total["tcp"]["resets"], 0),
        ("moves to another volume", int(not was_refused), 0),
    ])


if __name__ == "__main__":
    sys.exit(demo("volumes", __doc__, show))
