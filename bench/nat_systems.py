"""How the guest of nat_moves.py changes racks and keeps its address, by each system.

    a1 [web1 10.66.1.20] --move--> c2          both in racks with networks of their own, routers between them

  godwit-nat    `godwit migrate --strategy nat`: its uplink goes with it, devices rewrite the address
  godwit-wire   `--strategy wire`: its uplink stays at a1, its wire is stretched
  naive         configured after the move, as an operator's script does: its uplink is made anew at c2, then the rules
                of godwit-nat's plan are written by nft and ip, one device after the other. The wire serves until the
                script begins, as no pause is to be told apart from the script
  nothing       likewise, with a gratuitous ARP instead of rules
"""

import json

from component_moves import migrate
from stage import StageError, guest_image, wait_until

VM, UPLINK = "web1", "web1-net"
HOME, TARGET, ADDRESS = "a1", "c2", "10.66.1.20"
DRAIN_LIMIT_S = 60


class RoutedGuest:
    """A vm with an uplink of its own in the network of its host's rack."""

    def __init__(self, lab, name, host, address, initrd=None, memory="96MiB", words=""):
        self.lab, self.name, self.host, self.address = lab, name, host, address
        self.uplink = f"{name}-net"
        kernel, lab_initrd = guest_image()
        gateway = address.rsplit(".", 1)[0] + ".1"
        lab.run(host, "godwit", "port", "add", self.uplink, "--uplink", "--guest", address)
        lab.run(host, "godwit", "vm", "run", name, "--memory", memory, "--kernel", kernel,
                "--initrd", initrd or lab_initrd, "--append", f"console=ttyS0 quiet nokaslr godwit.ip={address}/24 "
                f"godwit.gw={gateway} {words}".strip(), "--nic", f"{name}-eth0")
        self.connect()

    def move(self, host, strategy):
        """The report."""
        report = migrate(self.lab, self.host, self.name, "--to", host, "--strategy", strategy,
                         "--max-downtime", "300ms", "--on-diverge", "pause")["report"]
        self.host = host
        return report

    def rules(self):
        """What all devices have for it."""
        return [rule for rule in self.lab.ask(HOME, "rule", "ls", "--all")["rules"] if rule["name"] == self.uplink]

    def settled_rules(self):
        """Once nothing is left to be done."""
        wait_until(lambda: all(rule["phase"] == "settled" for rule in self.rules()), DRAIN_LIMIT_S,
                   f"{self.name}: the rules of its move are settled")
        return self.rules()

    def connect(self):
        """With the uplink at its host."""
        self.lab.run(self.host, "godwit", "connect", f"{self.host}/{self.name}-eth0", f"{self.host}/{self.uplink}")

    def disconnect(self, uplink_at=None):
        self.lab.run(self.host, "godwit", "disconnect", f"{self.host}/{self.name}-eth0",
                     f"{uplink_at or self.host}/{self.uplink}")

    def end(self, uplink_at=None):
        self.disconnect(uplink_at)
        self.lab.run(self.host, "godwit", "vm", "stop", self.name, "--force")
        self.lab.run(self.host, "godwit", "vm", "purge", self.name)
        self.lab.run(self.host, "godwit", "port", "rm", f"{self.name}-eth0")


class GodwitNat:
    name = "godwit-nat"

    def __init__(self, lab, guest):
        self.lab, self.guest = lab, guest

    def move(self):
        return self.guest.move(TARGET, "nat")

    def rules(self):
        return len(self.guest.settled_rules())

    def clean(self):
        """Home again, no rule may be left."""
        self.guest.move(HOME, "nat")
        if left := self.guest.settled_rules():
            raise StageError(f"{self.guest.name} is home again, and there are still rules: {left}")
        self.guest.end()
        self.lab.run(HOME, "godwit", "port", "rm", UPLINK)


class GodwitWire(GodwitNat):
    name = "godwit-wire"

    def move(self):
        return self.guest.move(TARGET, "wire")

    def rules(self):
        return len(self.guest.rules())

    def clean(self):
        self.guest.end(uplink_at=HOME)
        self.lab.run(HOME, "godwit", "port", "rm", UPLINK)


class Nothing(GodwitWire):
    name = "nothing"

    def __init__(self, lab, guest):
        super().__init__(lab, guest)
        self.written = []  # (host, words that undo it)

    def move(self):
        report = super().move()
        self.guest.disconnect(uplink_at=HOME)
        self.lab.run(HOME, "godwit", "port", "rm", UPLINK)
        self.lab.run(TARGET, "godwit", "port", "add", UPLINK, "--uplink", "--guest", ADDRESS)
        self.guest.connect()
        self.configure()
        return report

    def configure(self):
        announce(self.lab, TARGET)

    def rules(self):
        return sum(words[0] != "sysctl" for _, words in self.written)

    def clean(self):
        self.guest.end()
        self.lab.run(TARGET, "godwit", "port", "rm", UPLINK)
        for host, words in self.written:
            self.lab.run(host, *words)


class Naive(Nothing):
    name = "naive"

    def __init__(self, lab, guest):
        super().__init__(lab, guest)
        # What is to be written is known before: an operator has it in the script.
        plan = json.loads(lab.run(HOME, "godwit", "migrate", VM, "--to", TARGET, "--strategy", "nat", "--dry-run",
                                  "--json"))["network"][0]
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


def segment(lab, host):
    """The interface of a host in its rack's network."""
    for link in json.loads(lab.run(host, "ip", "-j", "address")):
        for each in link["addr_info"]:
            if each["local"].startswith("10.66.") and each["prefixlen"] == 24:
                return link["ifname"]
    raise StageError(f"{host} is in no rack's network")


def announce(lab, host, address=ADDRESS):
    """Gratuitous ARP, also for an address that is a guest's."""
    lab.run(host, "sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1")
    lab.run(host, "busybox", "arping", "-U", "-c", "1", "-w", "1", "-I", segment(lab, host), address)


SYSTEMS = {system.name: system for system in (GodwitNat, GodwitWire, Naive, Nothing)}
