"""Guests of benches that move to another network, and how one gets there by systems that know nothing of strategies.

  godwit-wire   `--strategy wire`: its uplink stays at home, its wire is stretched
  nothing       moved likewise, then its uplink is made anew at the target, with a gratuitous ARP. The wire serves until
                then, as no pause is to be told apart from the script
"""

import json

from component_moves import migrate
from stage import StageError, guest_image, wait_until

DRAIN_LIMIT_S = 60


class RoutedGuest:
    """A vm with an uplink of its own in the network of its host's rack."""

    def __init__(self, lab, name, host, address, initrd=None, memory="96MiB", words="", options=()):
        self.lab, self.name, self.host, self.address = lab, name, host, address
        self.uplink = f"{name}-net"
        self.network = []  # what the last move tells of its steps
        kernel, lab_initrd = guest_image()
        gateway = address.rsplit(".", 1)[0] + ".1"
        lab.run(host, "godwit", "port", "add", self.uplink, "--uplink", "--guest", address)
        lab.run(host, "godwit", "vm", "run", name, "--memory", memory, "--kernel", kernel,
                "--initrd", initrd or lab_initrd, "--append", f"console=ttyS0 quiet nokaslr godwit.ip={address}/24 "
                f"godwit.gw={gateway} {words}".strip(), "--nic", f"{name}-eth0", *options)
        self.connect()

    def move(self, host, strategy):
        """The report."""
        told = migrate(self.lab, self.host, self.name, "--to", host, "--strategy", strategy,
                       "--max-downtime", "300ms", "--on-diverge", "pause")
        self.host, self.network = host, told.get("network", [])
        return told["report"]

    def rules(self):
        """What all devices have for it."""
        return [rule for rule in self.lab.ask(self.host, "rule", "ls", "--all")["rules"] if rule["name"] == self.uplink]

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


class GodwitWire:
    """A guest that is where it is at home, and goes to `target`."""

    name = "godwit-wire"
    with_agent, words = False, ""  # what its guest has to have: qemu-guest-agent; words of its kernel's command line
    flows = {}  # loads whose clients are its own
    loads = None  # the only ones that have a meaning for it

    def __init__(self, lab, guest, target):
        self.lab, self.guest, self.home, self.target = lab, guest, guest.host, target

    def move(self):
        """The report."""
        return self.guest.move(self.target, "wire")

    def rules(self):
        """How many its move has left, at all hosts."""
        return len(self.guest.rules())

    def settled(self, _correspondents):
        """Further figures by correspondent, while the traffic goes on behind the move."""
        return {}

    def clean(self):
        self.guest.end(uplink_at=self.home)
        self.lab.run(self.home, "godwit", "port", "rm", self.guest.uplink)


class Nothing(GodwitWire):
    name = "nothing"

    def __init__(self, lab, guest, target):
        super().__init__(lab, guest, target)
        self.written = []  # (host, words that undo it)

    def move(self):
        report = super().move()
        self.guest.disconnect(uplink_at=self.home)
        self.lab.run(self.home, "godwit", "port", "rm", self.guest.uplink)
        self.lab.run(self.target, "godwit", "port", "add", self.guest.uplink, "--uplink", "--guest",
                     self.guest.address)
        self.guest.connect()
        self.configure()
        return report

    def configure(self):
        announce(self.lab, self.target, self.guest.address)

    def rules(self):
        return sum(words[0] != "sysctl" for _, words in self.written)

    def clean(self):
        self.guest.end()
        self.lab.run(self.target, "godwit", "port", "rm", self.guest.uplink)
        for host, words in self.written:
            self.lab.run(host, *words)


def segment(lab, host):
    """The interface of a host in its rack's network."""
    for link in json.loads(lab.run(host, "ip", "-j", "address")):
        for each in link["addr_info"]:
            if each["local"].startswith("10.66.") and each["prefixlen"] == 24:
                return link["ifname"]
    raise StageError(f"{host} is in no rack's network")


def announce(lab, host, address):
    """Gratuitous ARP, also for an address that is a guest's."""
    lab.run(host, "sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1")
    lab.run(host, "busybox", "arping", "-U", "-c", "1", "-w", "1", "-I", segment(lab, host), address)
