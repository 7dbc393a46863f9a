"""How the guest of nat_moves.py changes racks and keeps its address, by each system.

    a1 [web1 10.66.1.20] --move--> c2          both in racks with networks of their own, routers between them

  godwit-nat    `godwit migrate --strategy nat`: its uplink goes with it, devices rewrite the address
  naive         configured after the move, as an operator's script does: its uplink is made anew at c2, then the rules
                of godwit-nat's plan are written by nft and ip, one device after the other

godwit-wire and nothing: guest_systems.py.
"""

import json

from guest_systems import GodwitWire, Nothing, announce, segment
from stage import StageError


class GodwitNat(GodwitWire):
    name = "godwit-nat"

    def move(self):
        return self.guest.move(self.target, "nat")

    def rules(self):
        return len(self.guest.settled_rules())

    def clean(self):
        """Home again, no rule may be left."""
        self.guest.move(self.home, "nat")
        if left := self.guest.settled_rules():
            raise StageError(f"{self.guest.name} is home again, and there are still rules: {left}")
        self.guest.end()
        self.lab.run(self.home, "godwit", "port", "rm", self.guest.uplink)


class Naive(Nothing):
    name = "naive"

    def __init__(self, lab, guest, target):
        super().__init__(lab, guest, target)
        # What is to be written is known before: an operator has it in the script.
        plan = json.loads(lab.run(self.home, "godwit", "migrate", guest.name, "--to", target, "--strategy", "nat",
                                  "--dry-run", "--json"))["network"][0]
        self._locator = plan["addresses"][0]["to_locator"]
        last = {}
        for phase in plan["phases"]:
            for device in phase["devices"]:
                rules = last.setdefault(device["agent"], [])
                rules += device["add"]
                last[device["agent"]] = [rule for rule in rules if rule not in device["remove"]]
        self._plan = {host: [rule for rule in rules if not rule.get("staged")] for host, rules in last.items()}

    def configure(self):
        for host, rules in self._plan.items():
            for rule in rules:
                if rule["kind"] == "claim":
                    self._claim(host, rule["match"])
                else:
                    # Before conntrack, or behind it: as Godwit's own, it sees the guest's address only.
                    self._rewrite(host, rule["match"], rule["becomes"], -300 if rule["kind"] == "arrive" else -150)

    def _claim(self, host, address):
        """The host has it in its rack's network, and lets pass what the guest sends from it."""
        interface = segment(self.lab, host)
        self.lab.run(host, "sysctl", "-qw", "net.ipv4.conf.all.accept_local=1")
        self.written.append((host, ("sysctl", "-qw", "net.ipv4.conf.all.accept_local=0")))
        self.lab.run(host, "ip", "address", "add", f"{address}/32", "dev", interface)
        self.written.append((host, ("ip", "address", "del", f"{address}/32", "dev", interface)))
        announce(self.lab, host, address)

    def _rewrite(self, host, address, becomes, priority):
        self.lab.run(host, "nft", f"add table ip script; add chain ip script c {{ type filter hook prerouting "
                                  f"priority {priority}; }}; add rule ip script c ip daddr {address} "
                                  f"ip daddr set {becomes}")
        self.written.append((host, ("nft", "delete table ip script")))


SYSTEMS = {system.name: system for system in (GodwitNat, GodwitWire, Naive, Nothing)}
