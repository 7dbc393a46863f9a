"""How fast components forward from a guest's TAP to another's, against the kernel from TAP to TAP.

    [sender] == g0 -nft fwd- TAP == godwitd: wire, component, wire == TAP -nft fwd- g1 == [receiver]    godwit-...
    [sender] == g0 ------------ kernel: bridge, forwarding, masquerade ------------ g1 == [receiver]    linux-...
    [sender] == g0 ------------------------- nft fwd ------------------------------ g1 == [receiver]    ends

== is a TAP's descriptor. g0 and g1 are what QEMU has of a NIC: joined to the agent's TAP by the rules of a vm's
NIC (os/tap_pair.hh), and for the kernel in its bridge, or with its gateway's address. Sender and receiver are two
processes (tap_load.cc), with at most 512 frames of 64 bytes under way, so that nothing is lost and the slowest part sets
the rate. All share the machine's CPUs. mpps: what arrives. mpps-per-core: what arrives for each second of CPU time
that sender, receiver and agent take together (the kernel forwards within the sender's calls).
"""

import json
import statistics
import subprocess

from place import Place
from stage import StageError, build_directory

CASE = "forward-64-tap"
HOST = "e1"
PEERS = {"godwit": "linux-bridge", "godwit-router": "linux-router", "godwit-nat": "linux-nat"}
SYSTEMS = ("ends", "godwit-wire", *(system for pair in PEERS.items() for system in pair))
BRIDGED, ROUTED = ("10.8.0.1", "10.8.0.2"), ("10.8.0.1", "10.9.0.1")
SIDES = ("inside", "outside")
LEAST = 1.0  # of the kernel's
LIMIT_S = 30


def gateway_of(address):
    return address.rsplit(".", 1)[0] + ".254"


class Way:
    """From the guest's side of a TAP to another's, by one of the systems. `place`: its namespace, or the host."""

    def __init__(self, lab, system, stack):
        self.lab, self.system = lab, system
        number = SYSTEMS.index(system)
        self.taps = [f"g{number}{side}" for side in (0, 1)]
        self.uplinks = [f"u{number}{side}" for side in (0, 1)]
        is_routed = system.endswith(("router", "nat"))
        self.addresses = ROUTED if is_routed else BRIDGED
        self.place = None if system.startswith("godwit") else Place(lab, HOST)
        if self.place:
            stack.callback(self.place.end)
        next_hop = gateway_of(self.addresses[0]) if is_routed else self.addresses[1]
        self.load = self._start(build_directory() / "bench" / "tap_load", self.taps[0], self.addresses[0], next_hop,
                                self.taps[1], self.addresses[1])
        stack.callback(self.end)
        if self.load.stdout.readline().strip() != "ready":
            raise StageError(f"tap_load for {system} did not begin")
        if system == "ends":
            self._forward(*self.taps)
        elif system == "linux-bridge":
            self._join_by_bridge()
        elif self.place:
            self._join_by_kernel_router()
        else:
            self._join_by_godwit()

    def _start(self, *words):
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        if self.place:
            return self.place.start(*words, **options)
        return self.lab.start(HOST, *words, **options)

    def _run(self, *words):
        return self.place.run(*words) if self.place else self.lab.run(HOST, *words)

    def _forward(self, one, other):
        for device, to in ((one, other), (other, one)):
            self._run("nft", f"add table netdev x_{device}; add chain netdev x_{device} c "
                      f"{{ type filter hook ingress device {device} priority 0; }}; "
                      f"add rule netdev x_{device} c fwd to {to}")

    def _join_by_bridge(self):
        self._run("ip", "link", "add", "br0", "type", "bridge")
        self._run("ip", "link", "set", "br0", "up")
        for tap in self.taps:
            self._run("ip", "link", "set", tap, "master", "br0")

    def _join_by_kernel_router(self):
        for tap, address in zip(self.taps, self.addresses):
            self._run("ip", "address", "add", f"{gateway_of(address)}/24", "dev", tap)
        self._run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        if self.system == "linux-nat":
            self._run("nft", "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; "
                      f"add rule ip t c oifname {self.taps[1]} masquerade")

    def _join_by_godwit(self):
        for tap, uplink in zip(self.taps, self.uplinks):
            self._run("godwit", "port", "add", uplink, "--uplink")
            self._forward(tap, uplink)
        if self.system == "godwit-wire":
            self._run("godwit", "connect", *self.uplinks)
            return
        name = f"t{SYSTEMS.index(self.system)}"
        if self.system == "godwit":
            self._run("godwit", "component", "add", name, "--ports", "2")
            ports = (f"{name}-1", f"{name}-2")
        else:
            settings = [word for side, address in zip(SIDES, self.addresses)
                        for word in ("--port", f"{side},address={gateway_of(address)}/24")]
            self._run("godwit", "component", "add", name, "--type", self.system.removeprefix("godwit-"), *settings)
            ports = tuple(f"{name}-{side}" for side in SIDES)
        for uplink, port in zip(self.uplinks, ports):
            self._run("godwit", "connect", uplink, port)

    def measure(self, length_s):
        """What tap_load says of so many seconds."""
        self.load.stdin.write(f"{length_s}\n")
        self.load.stdin.flush()
        if not (line := self.load.stdout.readline()):
            raise StageError(f"tap_load for {self.system} has ended")
        return json.loads(line)

    def end(self):
        self.load.stdin.close()
        self.load.wait(LIMIT_S)


def figures(rounds):
    """By metric, the medians of what tap_load said."""
    def cpu_s(said):
        return said["sender_s"] + said["receiver_s"] + said["agent_s"]
    return {"mpps": (statistics.median(said["frames"] / said["seconds"] / 1e6 for said in rounds),
                     "million frames/s"),
            "mpps-per-core": (statistics.median(said["frames"] / cpu_s(said) / 1e6 for said in rounds),
                              "million frames/s of CPU"),
            "agent": (statistics.median(said["agent_s"] / said["frames"] * 1e9 for said in rounds), "ns/frame"),
            "lost": (sum(said["lost"] + said["misordered"] for said in rounds), "frames")}


def measure(lab, stack, rounds, length_s):
    ways = {system: Way(lab, system, stack) for system in SYSTEMS}
    said = {system: [] for system in SYSTEMS}
    for way in ways.values():
        way.measure(0.2)  # addresses are resolved, and learned
    print(f"  {CASE}: per second of CPU of sender, receiver and agent together", flush=True)
    for _ in range(rounds):
        for system, way in ways.items():
            said[system].append(way.measure(length_s))
    rows = []
    for system in SYSTEMS:
        of_system = figures(said[system])
        rows += [{"bench": "fabric", "case": CASE, "system": system, "metric": metric, "value": value, "unit": unit}
                 for metric, (value, unit) in of_system.items()]
        print(f"  {CASE:<14} {system:<13} " + ", ".join(f"{value:.3f} {unit}" if metric != "lost" else f"{value} lost"
                                                        for metric, (value, unit) in of_system.items()), flush=True)
    return rows


def judge(rows):
    value = {(row["system"], row["metric"]): row["value"] for row in rows}
    met = True
    for system, peer in PEERS.items():
        rate, per_core = (value[system, metric] / value[peer, metric] for metric in ("mpps", "mpps-per-core"))
        print(f"  {'met' if per_core >= LEAST else 'MISSED'}: {system} forwards {per_core:.2f} of {peer}'s frames "
              f"per core, to reach {LEAST}; {rate:.2f} of its rate", flush=True)
        met = met and per_core >= LEAST
    return met
