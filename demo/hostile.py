#!/usr/bin/python3
"""A stranger floods the agent that carries a vm's wire, and an operator's hooks see a move; a client watches.

Exit status: 0 everything went as promised, 1 not, 130 Ctrl-C.
"""

import argparse
import json
import subprocess
import sys

from stage import (HOSTS, ROOT, VM, Client, Godwit, Lab, Load, demonstrated, wait_until)

PORT = 4747
FLOOD_S = 4
KINDS = {"garbage": "random datagrams", "forged": "datagrams of the wire with bits turned",
         "replayed": "datagrams of the wire, sent again", "half-open": "TLS handshakes that go no further"}
HOOKS = "/var/lib/godwit/hooks"  # of each host of the lab its own; otherwise /etc/godwit/hooks
HOOK = """#!/bin/sh
echo "$GODWIT_MOMENT of $GODWIT_VM, $GODWIT_FROM -> $GODWIT_TO $GODWIT_OUTCOME" >>/var/lib/said
"""
REFUSING = """#!/bin/sh
echo "the backup of $GODWIT_VM has not ended" >&2
exit 1
"""


def say(text=""):
    print(text, flush=True)


class Promises:
    all_kept = True

    def check(self, text, kept, detail):
        self.all_kept = self.all_kept and kept
        say(f"  {'kept  ' if kept else 'BROKEN'}  {text:<52} {detail}")


def lost(window):
    return sum(window[way]["lost"] or 0 for way in ("to_vm", "from_vm"))


def flood(lab, client, promises):
    host = HOSTS["east"]
    address = lab.ask(host, "host", "show")["address"]
    attacker = (ROOT / "demo" / "attacker.py").read_text(encoding="utf-8")

    def dropped_by_socket():
        return lab.ask(host, "host", "show")["datagrams"]["socket_overflow"]
    say(f"--- a stranger beside {host}, at full rate for {FLOOD_S} s each\n")
    for kind, what in KINDS.items():
        before = dropped_by_socket()
        out, window = client.watch(kind, lambda k=kind: lab.run("client", "/usr/bin/python3", "-c", attacker, k,
                                                                address, str(PORT), str(FLOOD_S)))
        told, overflow = json.loads(out), dropped_by_socket() - before
        say(f"{told['sent'] / told['seconds']:9,.0f} a second  {what}")
        promises.check("no frame of the vm's lost but by the socket", lost(window) <= overflow,
                       f"{lost(window)} lost, the socket dropped {overflow}")
        promises.check("no connection of the vm's was reset", window["tcp"]["resets"] == 0,
                       f"{window['tcp']['resets']} resets")
    drops = lab.ask(host, "wire", "ls")[0]["drops"]
    say(f"\n  godwit wire ls, {host}: " + ", ".join(f"{count:,} {cause}" for cause, count in drops.items() if count))


def put_hook(lab, host, moment, text):
    lab.run(host, "sh", "-c", 'mkdir -p "$1" && printf %s "$2" >"$1/10-demo" && chmod 755 "$1" "$1/10-demo"', "sh",
            f"{HOOKS}/{moment}.d", text)


def said(lab, host):
    return lab.run(host, "sh", "-c", "cat /var/lib/said 2>/dev/null || :").strip()


def hooks(lab, godwit, client, promises):
    east, west = HOSTS["east"], HOSTS["west"]
    say(f"\n--- a pre-pause hook at {east} that refuses\n")
    put_hook(lab, east, "pre-pause", REFUSING)
    refused, window = client.watch("refused", lambda: subprocess.run(
        lab.command(east, "godwit", "migrate", VM, "--to", west), capture_output=True, text=True,
        stdin=subprocess.DEVNULL, check=False))
    say("  " + refused.stdout.strip().splitlines()[-1] if refused.stdout.strip() else "")
    promises.check("the move is aborted, the vm goes on", refused.returncode == 4, f"exit status {refused.returncode}")
    promises.check("no frame lost", lost(window) == 0, f"{lost(window)} lost")
    say(f"\n--- hooks before the pause at {east} and after the resume at {west}\n")
    put_hook(lab, east, "pre-pause", HOOK)
    put_hook(lab, west, "post-resume", HOOK)
    (moved, text), window = client.watch("moved", lambda: godwit.move(west))
    say(text)
    wait_until(lambda: said(lab, west), 10, "the hook at the target")
    say(f"  {east} said  {said(lab, east)}\n  {west} said  {said(lab, west)}\n")
    promises.check("the hook ran before the pause", "pre_pause" in moved.get("hooks", {}), said(lab, east))
    promises.check("no frame lost", lost(window) == 0, f"{lost(window)} lost")


def arguments():
    parser = argparse.ArgumentParser(prog="./dev demo hostile", description=__doc__)
    parser.add_argument("--lab", default="demo-hostile", metavar="NAME", help="the lab's name")
    return parser.parse_args()


def show(options):
    promises = Promises()
    with Lab(options.lab) as lab:
        godwit = Godwit(lab, Load(memory="256MiB", dirty="10mbit", working_set="16MiB"))
        say(f"vm {VM} boots at {HOSTS['east']}; a client talks to it, 1,000 packets/s each way and 4 TCP connections\n")
        godwit.start()
        with Client(lab) as client:
            flood(lab, client, promises)
            hooks(lab, godwit, client, promises)
    return promises.all_kept


def main():
    options = arguments()
    return demonstrated(lambda: show(options))


if __name__ == "__main__":
    sys.exit(main())
