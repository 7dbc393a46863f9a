#!/usr/bin/python3
"""A network moves: NAT, switch, firewall and DHCP server go together to another site, and come back, while a desk talks
through them. Its connection stays up, no packet is lost, its lease and its flow are known where they are.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import re
import sys

from router import TAKE, build, introduce, say
from stage import Lab, all_kept, demo, wait_until

COMPONENTS = ("gw", "home", "dhcp1", "fw")
ECHO = ("import socket\n"
        "server = socket.create_server(('192.0.2.9', 7000))\n"
        "while True:\n"
        "    peer, _ = server.accept()\n"
        "    while data := peer.recv(1000): peer.sendall(data)\n")
# A line there and back, fifty times a second, until it is told to stop; says how often, or fails.
TALK = ("import select, socket, sys\n"
        "peer = socket.create_connection(('192.0.2.9', 7000), 10)\n"
        "lines = peer.makefile('rw')\n"
        "count = 0\n"
        "while not select.select([sys.stdin], [], [], 0.02)[0]:\n"
        "    lines.write(f'{count}\\n'); lines.flush()\n"
        "    if lines.readline() != f'{count}\\n': sys.exit('the connection broke')\n"
        "    count += 1\n"
        "print(count)\n")
PINGS = 600  # a hundred a second


def talk_while(lab, act):
    """Lines that the desk exchanged over one connection, and packets that it lost, while `act` went on."""
    talk = lab.start("client", "/usr/bin/python3", "-c", TALK, stdin=-1, stdout=-1, stderr=-1)
    ping = lab.start("client", "ping", "-q", "-i0.01", f"-c{PINGS}", "-W2", "192.0.2.9", stdout=-1)
    act()
    sent, came = re.search(r"(\d+) packets transmitted, (\d+) received", ping.communicate(timeout=60)[0]).groups()
    lines, broken = talk.communicate("stop\n", timeout=30)
    if broken:
        say(f"  the desk: {broken.splitlines()[-1]}")
    return int(lines or 0), int(sent) - int(came)


def names_at(lab, host):
    return {each["name"] for each in lab.ask(host, "component", "ls")}


def move(lab, source, target):
    words = ("migrate", *(f"component/{name}" for name in COMPONENTS), "--to", target)
    say(f"  {source}$ godwit {' '.join(words)}")
    say(lab.run(source, "godwit", *words))


def show(options):
    with Lab(options.lab) as lab:
        introduce()
        build(lab)
        lab.run("client", "sh", "-c", 'printf %s "$1" > /tmp/take; chmod 755 /tmp/take', "sh", TAKE)
        lab.run("client", "busybox", "udhcpc", "-i", "desk", "-f", "-q", "-n", "-t9", "-T1", "-s", "/tmp/take")
        server = lab.start("w1", "/usr/bin/python3", "-c", ECHO)
        try:
            wait_until(lambda: lab.run("w1", "ss", "-Htln", "sport = 7000").strip(), 20, "the outside listens")
            lab.run("client", "ping", "-q", "-c2", "192.0.2.9")
            say("\n  the desk talks to the outside; meanwhile\n")
            there = {}

            def go_and_return():
                move(lab, "e1", "w1")
                there.update(names=names_at(lab, "w1"), leases=lab.ask("w1", "component", "leases", "dhcp1"),
                             flows=lab.run("w1", "godwit", "component", "flows", "gw"))
                say(f"  w1$ godwit component flows gw\n{there['flows']}")
                move(lab, "w1", "e1")

            lines, lost = talk_while(lab, go_and_return)
        finally:
            server.kill()
            server.wait()
        say(f"  the desk exchanged {lines} lines over one connection, and {PINGS} packets\n")
        return all_kept([
            ("components that did not arrive", len(set(COMPONENTS) - there["names"]), 0),
            ("components that did not return", len(set(COMPONENTS) - names_at(lab, "e1")), 0),
            ("connections that broke", int(lines == 0), 0),
            ("packets lost", lost, 0),
            ("leases forgotten on the way", 1 - len(there["leases"]), 0),
            ("flows forgotten on the way", int("192.0.2.9" not in there["flows"]), 0),
        ])


if __name__ == "__main__":
    sys.exit(demo("fabric", __doc__, show))
