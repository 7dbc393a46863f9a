"""How the guest of mobility_moves.py goes to a subnet where its address means nothing, by each system.

    h1 [10.66.1.N] --move--> f1 [the same, and 10.66.2.L for what begins there]

  godwit-endpoint   `godwit migrate --strategy endpoint`
  godwit-secondary-nic   `--strategy secondary-nic`: prepared before the pause, flipped after it. What is measured has the
                    old address and lives on as by endpoint; its guest has 128 MiB, for qemu-guest-agent
  godwit-mptcp      likewise, of one connection of MPTCP, for ssh's load only: it has the second path before the move and
                    drops the first once it has ended (`godwit vm nic configure --default --drop-old`)
  naive             moved by wire, then a script: its uplink is made anew at f1, which has a new address for it (nft, one
                    to one: the guest is not asked). Who comes to that is served; what was there is lost

godwit-wire and nothing: guest_systems.py. Figures that are theirs:

  rules         elements of inet godwit_endpoint and godwit_asked that are this guest's, over all hosts; of naive: the
                script's words
  relay_bytes   of IP packets with this correspondent that went through the relay's port at f1, both ways, since the
                move began until it had settled
  path_stretch  of ping, udp-1000 and ssh: the flow's round trip after it, by that of pings to the new address meanwhile;
                by wire, which gives none, to f1 itself. Of MPTCP it is that of a line and its echo, a program's in the guest
"""

import json
import statistics
import subprocess

from guest_systems import GodwitWire, Nothing, announce, segment
from guest_traffic import Multipath, Ping
from stage import wait_until

TABLES, COUNTS = ("godwit_endpoint", "godwit_asked"), "bench_relay"
HOSTS = ("h1", "h2", "f1", "x1", "n1")
SCRIPTED_ADDRESS = "10.66.2.150"
GATEWAY = "169.254.1.1"  # of all guests of a host
FRESH_PINGS, FRESH_EVERY_S = 10, 0.25
CLEAN_LIMIT_S = 60


class WithNewAddress:
    """A system that can tell how far correspondents are from where the guest is now."""

    def new_address(self):
        return own_address(self.lab, self.target)

    def settled(self, correspondents):
        return {who: {"fresh_rtt_ms": rtt_ms}
                for who, rtt_ms in fresh_round_trips(self.lab, correspondents, self.new_address()).items()}


class GodwitEndpoint(GodwitWire):
    name = "godwit-endpoint"
    strategy = "endpoint"

    def move(self):
        count_relayed(self.lab, self.target, self.guest.address)
        return self.guest.move(self.target, self.strategy)

    def lead(self):
        """What its host tells of what it leads."""
        return next(each["lead"] for each in relocations(self.lab, self.target) if each["port"] == self.guest.uplink)

    def new_address(self):
        return new_address_of(self.lead(), self.guest.address)

    def settled(self, correspondents):
        address = self.guest.address
        fresh = fresh_round_trips(self.lab, correspondents, self.new_address())
        relayed = relayed_bytes(self.lab, self.target)
        return {who: {"fresh_rtt_ms": fresh[who],
                      "relay_bytes": relayed.get(address_of(self.lab, each, address), 0)}
                for who, each in correspondents.items()}

    def rules(self):
        lead = self.lead()
        own = {self.guest.address, new_address_of(lead, self.guest.address), lead["on_the_way"][self.guest.address]}
        return sum(elements(table_of(self.lab, host, table), own) for host in HOSTS for table in TABLES)

    def clean(self):
        self.guest.end()
        self.lab.run(self.target, "godwit", "port", "rm", self.guest.uplink)
        wait_until(lambda: not [each for each in relocations(self.lab, self.target)
                                if each["port"] == self.guest.uplink], CLEAN_LIMIT_S, "what was agreed is ended")
        self.lab.run(self.target, "nft", f"delete table inet {COUNTS}")


class GodwitSecondaryNic(GodwitEndpoint):
    name = "godwit-secondary-nic"
    strategy = "secondary-nic"
    with_agent = True

    def new_address(self):
        return second_nic_of(self.lab, self.target, self.guest)["network"]["addresses"][0].split("/")[0]

    def clean(self):
        super().clean()
        remove_second_nic(self.lab, self.guest, self.target)


class GodwitMptcp(GodwitSecondaryNic):
    name = "godwit-mptcp"
    words = "godwit.iproute2=1"
    flows = {"ssh": Multipath}
    loads = tuple(flows)

    def move(self):
        report = super().move()
        nic = second_nic_of(self.lab, self.target, self.guest)
        self.lab.run(self.target, "godwit", "vm", "nic", "configure", self.guest.name, nic["port"],
                     "--address", nic["network"]["addresses"][0], "--gateway", GATEWAY, "--default", "--drop-old")
        return report

    def rules(self):
        """Of its own address nothing may be left."""
        led = [each for each in relocations(self.lab, self.target) if each["port"] == self.guest.uplink]
        return super().rules() if led else 0


class Wire(WithNewAddress, GodwitWire):
    pass


class ArpOnly(WithNewAddress, Nothing):
    pass


class Naive(WithNewAddress, Nothing):
    name = "naive"

    def new_address(self):
        return SCRIPTED_ADDRESS

    def configure(self):
        interface, own = segment(self.lab, self.target), self.guest.address
        self._do(("ip", "address", "add", f"{SCRIPTED_ADDRESS}/32", "dev", interface),
                 ("ip", "address", "del", f"{SCRIPTED_ADDRESS}/32", "dev", interface))
        self._do(("nft", "add table ip script; "
                  "add chain ip script there { type nat hook prerouting priority dstnat; }; "
                  "add chain ip script back { type nat hook postrouting priority srcnat; }; "
                  f"add rule ip script there ip daddr {SCRIPTED_ADDRESS} dnat to {own}; "
                  f"add rule ip script back ip saddr {own} snat to {SCRIPTED_ADDRESS}"),
                 ("nft", "delete table ip script"))
        announce(self.lab, self.target, SCRIPTED_ADDRESS)

    def _do(self, words, undo):
        self.lab.run(self.target, *words)
        self.written.append((self.target, undo))


def second_nic_of(lab, host, guest):
    nics = lab.ask(host, "vm", "show", guest.name)["nics"]
    return next(nic for nic in nics if nic["port"] == f"{guest.name}-for-{host}")


def remove_second_nic(lab, guest, host):
    """Of a vm that is gone."""
    nic, uplink = f"{guest.name}-for-{host}", f"{guest.name}-at-{host}"
    lab.run(host, "godwit", "disconnect", f"{host}/{nic}", f"{host}/{uplink}")
    for port in (nic, uplink):
        lab.run(host, "godwit", "port", "rm", port)


def relocations(lab, host):
    return lab.ask(host, "fabric", "show")["relocations"]


def new_address_of(lead, address):
    return next(each["new_address"] for each in lead["addresses"] if each["address"] == address)


def fresh_round_trips(lab, correspondents, address):
    """By correspondent: median of new pings' ms, or None; all at once, while other traffic goes on."""
    pings = {who: lab.start(each.host, "ping", "-c", f"{FRESH_PINGS}", "-i", f"{FRESH_EVERY_S}", "-W", "2", address,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
             for who, each in correspondents.items()}
    return {who: median_of_pings(process.communicate(timeout=60)[0]) for who, process in pings.items()}


def median_of_pings(text):
    took = [float(found.group(3)) for found in map(Ping.LINE.search, text.splitlines()) if found]
    return statistics.median(took) if took else None


def own_address(lab, host):
    interface = segment(lab, host)
    link = next(each for each in json.loads(lab.run(host, "ip", "-j", "address", "show", "dev", interface)))
    return next(each["local"] for each in link["addr_info"] if each["family"] == "inet")


def address_of(lab, who, guest):
    """By which a guest knows a correspondent."""
    return json.loads(lab.run(who.behind or who.host, "ip", "-j", "route", "get", guest))[0]["prefsrc"]


def count_relayed(lab, host, guest):
    """From now on, by correspondent. What goes directly has another address than the guest's at both places."""
    lab.run(host, "nft",
            f"add table inet {COUNTS}; "
            f"add set inet {COUNTS} came {{ type ipv4_addr; size 256; flags dynamic; }}; "
            f"add set inet {COUNTS} went {{ type ipv4_addr; size 256; flags dynamic; }}; "
            f"add chain inet {COUNTS} first {{ type filter hook prerouting priority -500; }}; "
            f"add chain inet {COUNTS} last {{ type filter hook postrouting priority 400; }}; "
            f"add rule inet {COUNTS} first ip daddr {guest} update @came {{ ip saddr counter }}; "
            f"add rule inet {COUNTS} last ip saddr {guest} update @went {{ ip daddr counter }}")


def relayed_bytes(lab, host):
    return bytes_by_address(json.loads(lab.run(host, "nft", "-j", "list", "table", "inet", COUNTS)))


def bytes_by_address(table):
    relayed = {}
    for each in table["nftables"]:
        for element in each.get("set", {}).get("elem", ()):
            counted = element["elem"]
            relayed[counted["val"]] = relayed.get(counted["val"], 0) + counted["counter"]["bytes"]
    return relayed


def table_of(lab, host, table):
    return json.loads(lab.run(host, "sh", "-c", f"nft -j list table inet {table} 2>/dev/null || echo '{{}}'"))


def elements(table, addresses):
    """How many of a table's elements name one of these, or a relay."""
    count = 0
    for each in table.get("nftables", ()):
        held = each.get("set") or each.get("map") or {}
        for element in held.get("elem", ()):
            text = json.dumps(element)
            count += held["name"] == "relays" or any(f'"{address}"' in text for address in addresses)
    return count


SYSTEMS = {system.name: system for system in (GodwitEndpoint, GodwitSecondaryNic, GodwitMptcp, Wire, Naive, ArpOnly)}
