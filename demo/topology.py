#!/usr/bin/python3
"""A network of two sites from one file: made, looked at, changed while a client talks through it, and taken away.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import json
import sys
import time

from stage import Lab, StageError, all_kept, demo, wait_until

SHOP = """name: shop
components:
  sw-east: {type: switch, host: e1, ports: {lan: {access: 10}, west: {stretched: true, trunk: [10, 20]}}}
  sw-west: {type: switch, host: west, ports: {desk: {access: 10}, east: {stretched: true, trunk: [10, 20]}}}
ports:
  lan: {host: client, kind: uplink, address: 10.8.0.1/24}
  desk: {host: w1, kind: uplink, address: 10.8.0.9/24}
wires:
  - [lan, sw-east-lan]
  - [desk, sw-west-desk]
  - [sw-east-west, sw-west-east]
"""
PRINTER = "  printer: {host: client, kind: uplink, address: 10.8.0.7/24}\n"
WITH_PRINTER = (SHOP.replace("desk: {access: 10}", "desk: {access: 10}, printer: {access: 10}")
                .replace("wires:\n", PRINTER + "wires:\n  - [printer, sw-west-printer]\n"))


def say(text=""):
    print(text, flush=True)


class Hosts:
    def __init__(self, lab):
        self.lab = lab

    def write(self, name, text):
        self.lab.run("e1", "sh", "-c", f"cat > /tmp/{name}", told=text)

    def godwit(self, *words, ok=(0,)):
        """Output of a command at e1, shown as it is typed; and how long it took."""
        begun = time.monotonic()
        process = self.lab.start("e1", "godwit", *words, stdout=-1, stderr=-2)
        text, _ = process.communicate(timeout=60)
        took = time.monotonic() - begun
        say(f"  e1$ godwit {' '.join(words)}")
        for line in text.splitlines():
            say(f"      {line}")
        if process.returncode not in ok:
            raise StageError(f"godwit {' '.join(words)}: status {process.returncode}")
        return text, took

    def answers(self, address, count):
        process = self.lab.start("client", "ping", "-q", "-i0.05", f"-c{count}", "-W1", "-I", "lan", address, stdout=-1)
        text, _ = process.communicate(timeout=60)
        return int(text.split(" received", 1)[0].rsplit(" ", 1)[1])


def show(options):
    with Lab(options.lab) as lab:
        hosts = Hosts(lab)
        say("\n    east: client, e1 ==== 400 Mbit/s, 40 ms RTT ==== west: w1\n")
        say("\n".join("  " + line for line in SHOP.splitlines()) + "\n")
        wait_until(lambda: all(host["state"] != "down" for host in lab.ask("e1", "host", "ls")), 20, "all sessions")
        hosts.write("shop.yaml", SHOP)
        hosts.godwit("diff", "/tmp/shop.yaml", ok=(6,))
        _, made = hosts.godwit("apply", "/tmp/shop.yaml")
        wait_until(lambda: hosts.answers("10.8.0.9", 1), 20, "the desk answers")
        _, again = hosts.godwit("apply", "/tmp/shop.yaml")
        # Changed while there is traffic.
        pings = lab.start("client", "ping", "-q", "-i0.02", "-c250", "-W1", "10.8.0.9", stdout=-1)
        hosts.write("shop.yaml", WITH_PRINTER)
        hosts.godwit("apply", "/tmp/shop.yaml")
        text, _ = pings.communicate(timeout=60)
        lost = 250 - int(text.split(" received", 1)[0].rsplit(" ", 1)[1])
        exported, _ = hosts.godwit("export", "--topology", "shop")
        hosts.write("exported.yaml", exported)
        same, _ = hosts.godwit("apply", "--dry-run", "--prune", "/tmp/exported.yaml")
        hosts.write("none.yaml", "name: shop\n")
        hosts.godwit("apply", "--prune", "/tmp/none.yaml")
        left = json.loads(lab.run("e1", "godwit", "export", "--json"))
    return all_kept([
        ("seconds until the network is there", made, 5),
        ("seconds of an apply that changes nothing", again, 1),
        ("pings lost while it was changed", lost, 0),
        ("steps from an export to what it is of", int("nothing to do" not in same), 0),
        ("things left when all was pruned", sum(len(left[kind]) for kind in ("ports", "components", "wires")), 0),
    ])


if __name__ == "__main__":
    sys.exit(demo("topology", __doc__, show))
