#!/usr/bin/python3
"""Two fleets that know nothing of each other join one port of each: a vm of the one is reached from the other, moves, and
is gone for it when trust ends.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import json
import pathlib
import sys

from stage import Lab, StageError, all_kept, build_directory, demo, guest_image, wait_until

CONFIG = pathlib.Path(__file__).with_name("trust.yaml")
ADDRESS, OTHER = "10.9.0.2", "10.9.0.1"
SETTLE_S = 30
PINGS = 400


def say(text=""):
    print(text, flush=True)


class Operators:
    def __init__(self, lab):
        self.lab = lab
        self.announced = {node["name"]: node["announced"] for node in lab.describe()["nodes"] if not node["router"]}

    def godwit(self, host, *words, ok=(0,), told=""):
        """What a command says, shown as it is typed."""
        process = self.lab.start(host, "godwit", *words, stdin=-1, stdout=-1, stderr=-2)
        text, _ = process.communicate(told, timeout=120)
        say(f"  {host}$ godwit {' '.join(map(str, words))}"[:100])
        for line in text.splitlines()[-4:]:
            say(f"      {line[:110]}")
        if process.returncode not in ok:
            raise StageError(f"godwit {words[0]}: status {process.returncode}")
        return text

    def start(self, host):
        self.lab.run(host, "sh", "-c", f"exec setsid {build_directory()}/bin/godwitd --name {host} --site {host[0]} "
                     f"--address {self.announced[host][0]} > /var/log/godwitd.log 2>&1 &")
        wait_until(lambda: self.lab.start(host, "godwit", "host", "ls", stdout=-1, stderr=-1).wait() == 0, SETTLE_S,
                   f"the agent on {host}")

    def found(self):
        """Each fleet by itself: a1 with a2, and b1."""
        for host in self.announced:
            self.start(host)
        line = self.lab.ask("a1", "host", "invite")["command"]
        self.lab.run("a2", "godwit", "join", "-", told=line.rsplit(" ", maxsplit=1)[-1])
        self.lab.run("b1", "godwit", "host", "invite")

    def trust(self, host, other, name, port):
        """One takes the other's card, whose fingerprint they compare."""
        card = self.lab.run(other, "godwit", "host", "trust", "offer")
        self.godwit(host, "host", "trust", "add", "-", "--as", name, "--port", port, told=card)
        return json.loads(card)["fingerprint"]

    def is_up(self, host, peer):
        return any(h["name"] == peer and h["state"] == "up"
                   for fleet in self.lab.ask(host, "host", "trust", "ls") for h in fleet["hosts"])

    def reaches(self):
        return self.lab.start("b1", "ping", "-c1", "-W1", ADDRESS, stdout=-3).wait() == 0


def lost(pings):
    text, _ = pings.communicate(timeout=120)
    return PINGS - int(text.split(" received", 1)[0].rsplit(" ", 1)[1])


def show(options):
    with Lab(options.lab, agents=False, config=CONFIG) as lab:
        all_of = Operators(lab)
        say("\n    fleet alpha: a1, a2  ==== 400 Mbit/s, 20 ms RTT ====  fleet beta: b1\n")
        all_of.found()
        kernel, initrd = guest_image()
        all_of.godwit("a1", "vm", "run", "web", "--memory", "96MiB", "--kernel", kernel, "--initrd", initrd,
                      "--append", f"console=ttyS0 quiet godwit.ip={ADDRESS}/24 godwit.dirty=5mbit", "--nic", "web0")
        all_of.godwit("a1", "port", "add", "secret")
        all_of.godwit("b1", "port", "add", "lan0", "--uplink", "--address", f"{OTHER}/24")
        say("\nboth trust each other, for one port each")
        told = all_of.trust("a1", "b1", "beta", "web0")
        same = next(f for f in lab.ask("a1", "host", "trust", "ls"))["fingerprint"] == told
        early = all_of.godwit("b1", "connect", "lan0", "a1@alpha/web0", ok=(1,))
        all_of.trust("b1", "a1", "alpha", "lan0")
        all_of.trust("a2", "b1", "beta", "web0")
        wait_until(lambda: all_of.is_up("a1", "b1@beta") and all_of.is_up("a2", "b1@beta"), SETTLE_S, "sessions")
        all_of.godwit("b1", "connect", "lan0", "a1@alpha/web0")
        wait_until(all_of.reaches, SETTLE_S, "the vm answers")
        say("\nand for nothing else")
        hidden = all_of.godwit("b1", "connect", "lan0", "a1@alpha/secret", ok=(1,))
        absent = all_of.godwit("b1", "connect", "lan0", "a1@alpha/absent", ok=(1,))
        say("\nthe vm moves within its fleet")
        pings = lab.start("b1", "ping", "-q", "-i0.02", f"-c{PINGS}", ADDRESS, stdout=-1)
        all_of.godwit("a1", "migrate", "web", "--to", "a2", "--max-downtime", "300ms")
        missing = lost(pings)
        wait_until(lambda: lab.ask("b1", "wire", "ls")[0]["b"]["host"] == "a2@alpha", SETTLE_S, "b1 hears of it")
        all_of.godwit("b1", "wire", "ls")
        say("\nalpha ends it")
        all_of.godwit("a2", "host", "trust", "rm", "beta")
        after = all_of.reaches()
    return all_kept([
        ("fingerprints that differ", int(not same), 0),
        ("wires made before both had trusted", int("no session" not in early), 0),
        ("untrusted ports that were shown", int(hidden.replace("secret", "absent") != absent), 0),
        ("pings lost by the move", missing, 0),
        ("pings answered after the end of trust", int(after), 0),
    ])


if __name__ == "__main__":
    sys.exit(demo("trust", __doc__, show))
