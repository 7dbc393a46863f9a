#!/usr/bin/python3
"""A switch joins a client, a desk at another site and a vm. The vm moves, and back: its wire follows it to the switch,
which learns nothing new, and no frame is lost. Then VLANs part the desk from the vm.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import contextlib
import sys

from stage import CLIENT_PORT, HOSTS, VM, VM_ADDRESS, VM_PORT, WAYS, Client, Godwit, Lab, Load, all_kept, demo, wait_until

DESK, DESK_ADDRESS = "desk0", "10.9.0.9"


def say(text=""):
    print(text, flush=True)


def introduce():
    say(f"""
    east: client, e1 ==== 400 Mbit/s, 40 ms RTT ==== west: w1

  sw1     a switch at client, with four ports
  wires   sw1-client - {CLIENT_PORT} at client     sw1-vm - {VM_PORT}, the vm {VM}'s, at e1     sw1-desk - {DESK} at w1
  job     {VM} moves e1 -> w1 and back, while the client talks to it through the switch
""")


def join(lab):
    """Through the switch, what Godwit.start() has joined by one wire; and the desk."""
    for words in (("component", "add", "sw1", *(w for p in ("client", "vm", "desk", "spare") for w in ("--port", p))),
                  ("disconnect", CLIENT_PORT, VM_PORT),
                  ("connect", CLIENT_PORT, "sw1-client"),
                  ("connect", VM_PORT, "sw1-vm")):
        say(f"  client$ godwit {' '.join(words)}")
        lab.run("client", "godwit", *words)
    lab.run("w1", "godwit", "port", "add", DESK, "--uplink", "--address", f"{DESK_ADDRESS}/24")
    lab.run("w1", "godwit", "connect", DESK, "client/sw1-desk")
    wait_until(lambda: pings(lab, 1), 30, "the vm answers the desk")


def pings(lab, count):
    """Answers of the vm to the desk."""
    process = lab.start("w1", "ping", "-q", "-i0.05", f"-c{count}", "-W1", VM_ADDRESS, stdout=-1)
    text, _ = process.communicate(timeout=60)
    return int(text.split(" received", 1)[0].rsplit(" ", 1)[1])


def known(lab):
    """Ports of the addresses that the switch knows, in their order; how often one was at another port."""
    ports = sorted(each["port"] for each in lab.ask("client", "component", "macs", "sw1"))
    return ports, lab.ask("client", "component", "show", "sw1")["moved_macs"]


def show(options):
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(options.lab))
        introduce()
        godwit = Godwit(lab, Load(memory="256MiB", dirty="2mbit", working_set="4MiB"))
        godwit.start()
        join(lab)
        client = stack.enter_context(Client(lab))
        windows = []
        for target in (HOSTS["west"], HOSTS["east"]):
            (_, text), window = client.watch(f"to-{target}", lambda to=target: godwit.move(to))
            say(text)
            windows.append(window)
        answered = pings(lab, 20)
        ports, moved = known(lab)
        say(lab.run("client", "godwit", "component", "show", "sw1"))
        say(lab.run("client", "godwit", "component", "macs", "sw1"))
        total = client.stop()
        say("  client$ godwit component set sw1 --port vm,access=10 --port client,access=10 --port desk,access=20")
        lab.run("client", "godwit", "component", "set", "sw1", "--port", "vm,access=10", "--port", "client,access=10",
                "--port", "desk,access=20")
        parted = pings(lab, 5)
        say(f"  the vm answers the desk {answered} times of 20, and {parted} of 5 when they are of two VLANs")
    return all_kept([
        ("frames lost in two moves", sum(window[way]["lost"] for window in windows for way in WAYS), 0),
        ("TCP connections reset", total["tcp"]["resets"], 0),
        ("addresses that are unknown, or at another port than theirs", int(ports != ["client", "desk", "vm"]), 0),
        ("addresses that were at another port before", moved, 0),
        ("pings of the desk without an answer", 20 - answered, 0),
        ("pings answered over a border of VLANs", parted, 0),
    ])


if __name__ == "__main__":
    sys.exit(demo("switch", __doc__, show))
