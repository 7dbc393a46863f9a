"""How the guest of mobility_moves.py goes to a subnet where its address means nothing, by each system.

    h1 [10.66.1.N] --move--> f1 [the same, and 10.66.2.L for what begins there]

  godwit-endpoint   `godwit migrate --strategy endpoint`
  naive             moved by wire, then a script: its uplink is made anew at f1, which has a new address for it (nft, one
                    to one: the guest is not asked). Who comes to that is served; what was there is lost

godwit-wire and nothing: guest_systems.py. Figures that are theirs:

  rules         elements of inet godwit_endpoint that are this guest's, over all hosts; of naive: the script's words
  relay_bytes   of IP packets with this correspondent that went through the relay's port at f1, both ways, since the
                move began until it had settled
  path_stretch  of ping, udp-1000 and ssh: the flow's round trip after it, by that of pings to the new address meanwhile;
                by wire, which gives none, to f1 itself
"""

import json
import statistics
import subprocess

from guest_systems import GodwitWire, Nothing, announce, segment
from guest_traffic import Ping
from stage import wait_until

TABLE, COUNTS = "godwit_endpoint", "bench_relay"
HOSTS = ("h1", "h2", "f1", "x1", "n1")
SCRIPTED_ADDRESS = "10.66.2.150"
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

    def move(self):
        count_relayed(self.lab, self.target, self.guest.address)
        return self.guest.move(self.target, "endpoint")

    def lead(self):
        """What its host tells of what it leads."""
        return next(each["lead"] for each in relocations(self.lab, self.target) if each["port"] == self.guest.uplink)

    def settled(self, correspondents):
        address = self.guest.address
        fresh = fresh_round_trips(self.lab, correspondents, new_address_of(self.lead(), address))
        relayed = relayed_bytes(self.lab, self.target)
        return {who: {"fresh_rtt_ms": fresh[who],
                      "relay_bytes": relayed.get(address_of(self.lab, each, address), 0)}
                for who, each in correspondents.items()}

    def rules(self):
        lead = self.lead()
        own = {self.guest.address, new_address_of(lead, self.guest.address), lead["on_the_way"][self.guest.address]}
        return sum(elements(table_of(self.lab, host), own) for host in HOSTS)

    def clean(self):
        self.guest.end()
        self.lab.run(self.target, "godwit", "port", "rm", self.guest.uplink)
        wait_until(lambda: not [each for each in relocations(self.lab, self.target)
                                if each["port"] == self.guest.uplink], CLEAN_LIMIT_S, "what was agreed is ended")
        self.lab.run(self.target, "nft", f"delete table inet {COUNTS}")


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


def table_of(lab, host):
    return json.loads(lab.run(host, "sh", "-c", f"nft -j list table inet {TABLE} 2>/dev/null || echo '{{}}'"))


def elements(table, addresses):
    """How many of a table's elements name one of these, or a relay."""
    count = 0
    for each in table.get("nftables", ()):
        held = each.get("set") or each.get("map") or {}
        for element in held.get("elem", ()):
            text = json.dumps(element)
            count += held["name"] == "relays" or any(f'"{address}"' in text for address in addresses)
    return count


SYSTEMS = {system.name: system for system in (GodwitEndpoint, Wire, Naive, ArpOnly)}
