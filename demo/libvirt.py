#!/usr/bin/python3
"""A domain of libvirt's moves, and back: with its memory, its disk, its definition, and the network that its bridge
is a part of. libvirt drives QEMU at both ends, and sees nothing of the WAN.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import contextlib
import sys

from disks import disk_of
from domains import BRIDGE, DISK, DOMAIN, Libvirt, is_installed
from stage import (CLIENT_ADDRESS, HOSTS, MOVE_LIMIT_S, Client, Lab, Load, StageError, all_kept,
                   demo, guest_image, wait_until)

RATE = "2mbit"  # of the guest's writes
MOST_PAUSE_MS = 1500  # libvirt's own hand-over, and TCG's loading


def say(text=""):
    print(text, flush=True)


def introduce():
    say(f"""
    east: client, e1 ==== 400 Mbit/s, 40 ms RTT ==== west: w1

  domain  {DOMAIN} of the libvirt of e1, its NIC on the bridge {BRIDGE}, its disk {DISK}
  wires   {BRIDGE} of e1 to {BRIDGE} of w1, and to the client
  job     godwit migrate libvirt:{DOMAIN}, e1 -> w1, and back
""")


def connect(lab):
    """The bridges are one network, and the client is in it."""
    for host, port in (("e1", "lan-e1"), ("w1", "lan-w1"), ("e1", "lan-out")):
        lab.run(host, "godwit", "port", "add", port, "--bridge", BRIDGE)
    lab.run("client", "godwit", "port", "add", "lan-client", "--uplink", "--address", f"{CLIENT_ADDRESS}/24")
    lab.run("e1", "godwit", "connect", "lan-e1", "lan-w1")
    lab.run("e1", "godwit", "connect", "lan-out", "lan-client")
    wait_until(lambda: all(wire["state"] == "up" for wire in lab.ask("e1", "wire", "ls")), 60, "the wires come up")


def migrate(lab, source, target):
    return lab.run(source, "timeout", str(MOVE_LIMIT_S), "godwit", "migrate", f"libvirt:{DOMAIN}", "--to", target)


def move(lab, client, source, target):
    """(the report, the client's window, damaged blocks)"""
    text, window = client.watch(f"to-{target}", lambda: migrate(lab, source, target))
    say(text)
    migration = next(each for each in lab.ask(source, "migration", "ls")
                     if each["to"] == target and each["state"] == "done")
    damaged = disk_of(lab, "check")["damaged"]
    say(f"  the guest reads back what it wrote: {damaged} blocks are not as it left them\n")
    return migration["report"], window, damaged


def show(options):
    if not is_installed():
        raise StageError("libvirt is not installed: apt-get install libvirt-daemon-system libvirt-clients")
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(options.lab))
        introduce()
        libvirt = Libvirt(lab.run, lab.start, HOSTS.values())
        stack.callback(libvirt.stop)
        connect(lab)
        load = Load(dirty="2mbit", working_set="4MiB", words=f"godwit.disk=vda godwit.disk-rate={RATE}")
        libvirt.start_domain("e1", guest_image(), load.append())
        client = stack.enter_context(Client(lab))
        wait_until(lambda: disk_of(lab, "report")["written"] > 300, 60, "writes of the guest")
        moves = [move(lab, client, "e1", "w1")]
        say("virsh list at w1:\n" + libvirt.virsh("w1", "list", "--all"))
        moves.append(move(lab, client, "w1", "e1"))
        total = client.stop()
    reports, windows, damaged = zip(*moves)
    return all_kept([
        ("blocks of the disk that are not as the guest wrote them", sum(damaged), 0),
        ("longest pause, ms", max(report["pause_ms"] for report in reports), MOST_PAUSE_MS),
        ("TCP connections reset", total["tcp"]["resets"], 0),
    ])


if __name__ == "__main__":
    sys.exit(demo("libvirt", __doc__, show))
