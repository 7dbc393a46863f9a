#!/usr/bin/python3
"""A routed data centre: a vm changes racks twice and keeps its address, while its rack, other pods and the outside talk to
it; no layer 2 is stretched, no tunnel is left. Then it comes home, and no rule is left either.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import re
import signal
import sys

from stage import ROOT, Lab, all_kept, demo, guest_image, wait_until

EXAMPLE = ROOT / "examples" / "data-centre"
ADDRESS, GATEWAY = "10.66.1.20", "10.66.1.1"
CORRESPONDENTS = {"a2": "in its rack", "b1": "in its pod", "d1": "in another pod", "x1": "outside"}
SETTLE_S = 60


def say(text=""):
    print(text, flush=True)


def shown(lab, host, *words, last=0):
    say(f"  {host}$ godwit {' '.join(map(str, words))}"[:110])
    text = lab.run(host, "godwit", *words)
    for line in text.splitlines()[-last:]:
        say(f"      {line[:112]}")
    return text


class Pings:
    """From everywhere, fifty a second; afterwards by whom: how many were lost, and the longest gap between answers."""

    def __init__(self, lab):
        self.lab = lab

    def __enter__(self):
        self.running = {host: self.lab.start(host, "ping", "-n", "-D", "-i", "0.02", ADDRESS, stdout=-1)
                        for host in CORRESPONDENTS}
        return self

    def __exit__(self, *_):
        self.told = {}
        for host in CORRESPONDENTS:
            self.lab.start(host, "pkill", "-INT", "-x", "ping").wait()
        for host, process in self.running.items():
            text, _ = process.communicate(timeout=30)
            answers = [(float(at), int(number)) for at, number in re.findall(r"\[([\d.]+)\].*icmp_seq=(\d+) ttl=", text)]
            numbers, times = [number for _, number in answers], sorted(at for at, _ in answers)
            gap = max((b - a for a, b in zip(times, times[1:])), default=float("inf"))
            self.told[host] = max(numbers, default=1) - len(set(numbers)), gap * 1000

    @property
    def lost(self):
        return sum(lost for lost, _ in self.told.values())


def settled(lab, host):
    wait_until(lambda: not lab.ask(host, "fabric", "show")["relocations"], SETTLE_S, f"{host} has settled")


def move(lab, source, target):
    """The migration, and what the correspondents saw."""
    with Pings(lab) as pings:
        shown(lab, source, "migrate", "web", "--to", target, last=1)
        settled(lab, target)
    migration = lab.ask(source, "migration", "ls")[-1]
    steps = migration["network"][0]
    say(f"      paused for {migration['report']['pause_ms']:.0f} ms; staged in {steps['staged_ms']:.0f} ms before that, "
        f"and {steps['flipped_ms']:.0f} ms after it all lead to {target}")
    for host, (lost, gap) in pings.told.items():
        say(f"      {host}, {CORRESPONDENTS[host]:<15} {lost} lost, longest without an answer {gap:.0f} ms")
    return migration, pings


def show(options):
    with Lab(options.lab, config=EXAMPLE / "lab.yaml") as lab:
        say("\n      core1  core2 ── x1, outside          10 routers and 8 hosts, each with its agent;"
            "\n     /  |  \\/  |  \\                          racks a, b | c, d; packets take all equally"
            "\n  agg1 agg2  agg3 agg4                       short ways\n   a,b racks   c,d racks\n")
        shown(lab, "a1", "fabric", "set", EXAMPLE / "fabric.yaml", last=1)
        kernel, initrd = guest_image()
        shown(lab, "a1", "port", "add", "web-net", "--uplink", "--guest", ADDRESS)
        lab.run("a1", "godwit", "vm", "run", "web", "--memory", "96MiB", "--kernel", kernel, "--initrd", initrd, "--append",
                f"console=ttyS0 quiet godwit.ip={ADDRESS}/24 godwit.gw={GATEWAY} godwit.dirty=5mbit", "--nic", "web0")
        shown(lab, "a1", "connect", "web0", "web-net")
        for host in CORRESPONDENTS:
            wait_until(lambda h=host: lab.start(h, "ping", "-c1", "-W1", ADDRESS, stdout=-3).wait() == 0, SETTLE_S,
                       f"{host} reaches the vm")
        wait_until(lambda: lab.ask("c2", "fabric", "show")["file"], SETTLE_S, "c2 knows the fabric")
        say("\nwhat a move to the other pod would write")
        shown(lab, "a1", "migrate", "web", "--to", "c2", "--dry-run", last=30)
        say("\nit goes there, on to another rack, and home")
        moves = [move(lab, source, target) for source, target in (("a1", "c2"), ("c2", "d2"))]
        say()
        rules = shown(lab, "x1", "rule", "ls", "--all", last=14)
        verdict = shown(lab, "x1", "rule", "verify", last=1)
        say()
        moves.append(move(lab, "d2", "a1"))
        left = lab.ask("x1", "rule", "ls", "--all")["rules"]
    excess = max(gap - migration["report"]["pause_ms"] for migration, pings in moves for _, gap in pings.told.values())
    return all_kept([
        ("pings lost, of all three moves", sum(pings.lost for _, pings in moves), 0),
        ("moves that were not by strategy nat", sum(m["strategy"] != "nat" for m, _ in moves), 0),
        ("rules missing or foreign while it was away", int("as they shall be" not in verdict or ADDRESS not in rules), 0),
        ("rules left when it is home", len(left), 0),
        ("longest gap beyond the pause, in ms", excess, 250),
    ])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(demo("racks", __doc__, show))
