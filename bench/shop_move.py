"""The case shop of `./dev bench fabric`: a whole topology moves to another site while customers use it.

    client: [customers] -- wire -- gw (NAT, forwards) -- fw (firewall) -- front -- web1, web2 -- back -- db
                                   '--------------------- at e1; all of it goes to w1 -------------------'

front and back are switches. Web servers have a NIC at each; who talks to their port 80 talks with the database
(network_guest.py). Customers keep connections through all of it, and `godwit lab probe` exchanges datagrams with web1.

  resets       connections that broke, or brought a wrong byte
  slowest_ms   of a customer's requests, from asking to the answer
  blackout_ms  longest silence of web1's datagrams, less the millisecond between two
  spread_ms    from the first hand-over to the last

System still: nothing moves; vms: only those move, as one group, and components stay.
"""

import contextlib
import statistics
import subprocess
import time

from component_moves import INTERVAL_MS, IDLE_S, QUICK_IDLE_S, drops, migrate, say
from customers import Customers
from network_guest import network_guest
from place import Place
from stage import Client, guest_image, wait_until

CASE, OUTSIDE, OWN = "shop", "198.51.100.2", "198.51.100.1/24"
BOOT_LIMIT_S = 90
WARM_S = 3.0  # QEMU translates what a guest runs the first time
VMS = ("web1", "web2", "db")
CONNECTIONS = 4
PORTS = (80, 8080)  # of web1 and web2
SYSTEMS = ("godwit", "vms", "still")
UNITS = {"resets": "connections", "slowest_ms": "ms", "blackout_ms": "ms", "idle_slowest_ms": "ms", "idle_gap_ms": "ms",
         "frames_lost": "frames", "frames_doubled": "frames", "spread_ms": "ms", "total_s": "s"}
WORST = ("resets", "frames_lost", "frames_doubled")
NETWORK = """name: shop
components:
  gw:
    type: nat
    host: e1
    ports:
      outside: {address: 198.51.100.2/24}
      inside: {address: 10.20.0.1/24}
    forward:
      - {address: 198.51.100.2, protocol: tcp, ports: 80, to: 10.20.0.11}
      - {address: 198.51.100.2, protocol: tcp, ports: 8080, to: 10.20.0.12, to_port: 80}
      - {address: 198.51.100.2, protocol: tcp, ports: 7007-7008, to: 10.20.0.11}
      - {address: 198.51.100.2, protocol: udp, ports: 7007, to: 10.20.0.11}
  fw:
    type: firewall
    host: e1
    sets:
      - {name: web, members: [80, 7007, 7008]}
    rules:
      - {action: allow, in: outside, protocol: tcp, to: 10.20.0.0/24, ports: "@web"}
      - {action: allow, in: outside, protocol: udp, to: 10.20.0.11, ports: 7007}
      - {action: reject, in: inside, log: true}
  front:
    type: switch
    host: e1
    ports:
      fw: {}
      web1: {isolated: true}
      web2: {isolated: true}
  back:
    type: switch
    host: e1
    ports: [web1, web2, db]
wires:
  - [gw-inside, fw-outside]
  - [fw-inside, front-fw]
  - [front-web1, web1-front]
  - [front-web2, web2-front]
  - [back-web1, web1-back]
  - [back-web2, web2-back]
  - [back-db, db-back]
vms:
"""
GUEST = """  {name}:
    host: e1
    memory: 128MiB
    kernel: {kernel}
    initrd: {initrd}
    append: console=ttyS0 quiet nokaslr {words}
    nics: [{nics}]
"""


def topology():
    """As YAML."""
    files = {"kernel": guest_image()[0], "initrd": network_guest()}
    text = NETWORK
    for number, name in ((11, "web1"), (12, "web2")):
        text += GUEST.format(name=name, nics=f"{{port: {name}-front}}, {{port: {name}-back}}", **files,
                             words=f"godwit.ip=10.20.0.{number}/24 godwit.gw=10.20.0.1 "
                                   f"bench.web=10.30.0.{number}/24,10.30.0.10")
    return text + GUEST.format(name="db", nics="{port: db-back}", words="godwit.ip=10.30.0.10/24", **files)


class Shop:
    """Is applied at e1, and its customers stand at the client."""

    def __init__(self, lab, system, stack):
        self.lab, self.system = lab, system
        wait_until(lambda: all(host["state"] != "down" for host in lab.ask("client", "host", "ls")), 20, "all sessions")
        lab.run("e1", "sh", "-c", "cat > /tmp/shop.yaml", told=topology())
        lab.run("e1", "godwit", "apply", "/tmp/shop.yaml")
        lab.run("client", "godwit", "port", "add", CASE, "--uplink")
        lab.run("client", "godwit", "connect", CASE, "e1/gw-outside")
        self.customers = Place(lab, "client")
        stack.callback(self.customers.end)
        self.customers.enter(CASE, OWN)
        for port in PORTS:
            wait_until(lambda p=port: self._takes(p), BOOT_LIMIT_S, f"the shop at port {port}")

    def _takes(self, port):
        quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return self.customers.start("busybox", "nc", "-w", "1", OUTSIDE, str(port), **quiet).wait(5) == 0

    def move(self, idle_s):
        """What the agent tells of all of it as one move."""
        if self.system == "still":
            return time.sleep(idle_s)
        what = VMS if self.system == "vms" else ("--topology", CASE)
        return migrate(self.lab, "e1", *what, "--to", "w1", "--max-downtime", "300ms")


def figures_of(shop, idle_s):
    """Of one move."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(shop.lab, address=OUTSIDE, within=shop.customers.within,
                                            boot_limit_s=BOOT_LIMIT_S))
        customers = stack.enter_context(Customers(shop.customers, OUTSIDE, CONNECTIONS, PORTS))
        time.sleep(WARM_S)
        customers.since()
        _, idle = client.watch("idle", lambda: time.sleep(idle_s))
        asked_idle, dropped = customers.since(), drops(shop.lab)
        (moved, total_s), window = client.watch("move", lambda: timed(lambda: shop.move(idle_s)))
        asked = customers.since()
        there, back, tcp = window["to_vm"], window["from_vm"], window["tcp"]
        of_it = {"resets": tcp["resets"] + tcp["mismatches"] + asked["resets"], "slowest_ms": asked["slowest_ms"],
                 "blackout_ms": max(0.0, back["gap"]["ms"] - INTERVAL_MS),
                 "idle_slowest_ms": asked_idle["slowest_ms"], "idle_gap_ms": idle["from_vm"]["gap"]["ms"] - INTERVAL_MS,
                 "frames_lost": there["lost"] + back["lost"],
                 "frames_doubled": there["duplicated"] + back["duplicated"],
                 "spread_ms": spread_ms(moved), "total_s": total_s}
        say(f"  {CASE:<16} {shop.system:<9} " + "  ".join(f"{metric} {value:.6g}" for metric, value in of_it.items())
            + f"  ({asked['answers']} answers; dropped by wires: {dict(drops(shop.lab) - dropped)})")
        return of_it


def timed(action):
    begun = time.monotonic()
    return action(), time.monotonic() - begun


def spread_ms(moved):
    """It is told of the group, or in its report."""
    return 0.0 if moved is None else (moved | (moved.get("report") or {}))["spread_ms"]


def measure(make_lab, options):
    """Rows; each move has a lab of its own, which make_lab() makes."""
    rounds, idle_s = (1, QUICK_IDLE_S) if options.quick else (5, IDLE_S)
    rows = []
    for system in [each for each in options.system or ("godwit",) if each in SYSTEMS]:
        moves = []
        for _ in range(rounds):
            with make_lab() as lab, contextlib.ExitStack() as stack:
                moves.append(figures_of(Shop(lab, system, stack), idle_s))
        rows += [{"bench": "fabric", "case": CASE, "system": system, "metric": metric,
                  "value": (max if metric in WORST else statistics.median)(of[metric] for of in moves),
                  "unit": unit} for metric, unit in UNITS.items()]
    return rows


def judge(rows):
    kept = True
    for row in rows:
        if row["system"] == "godwit" and row["metric"] in ("resets", "frames_lost"):
            met = row["value"] == 0
            kept = kept and met
            say(f"  {'met' if met else 'MISSED'}: {CASE}: {row['metric']} {row['value']}, to reach 0")
    return kept
