"""Moves of components under `./dev bench fabric`: a switch that knows 10,000 addresses, a NAT with 100,000 flows.

    client: [near] -- TAP -- wire --+                               moved to w1, 40 ms RTT away, and back
                                    +-- component, or vm, at e1 --->
    client: [far] --- TAP -- wire --+

Both ends stay: behind w1 they are 80 ms of RTT apart. near and far are network namespaces. Between them `godwit lab
probe` and godwit-guest exchange 1,000 datagrams a second each way, numbered (far also echoes those that come), and 4
TCP connections of 100 KB/s each way, whose every byte is looked at.

  linux-vm      a vm with two NICs and a bridge, or nftables masquerade, moved by the same agents
  freeze_ms     of the report: what both hosts spent while it stood; of a vm its pause
  pause_ms      of the report: with the way between them, too
  blackout_ms   longest silence between two datagrams from the other end, of both directions the worse, less the
                millisecond that lies between two; idle_gap_ms: the same in as long a time without a move
  frames_lost, frames_doubled   of the datagrams, both ways
  resets        TCP connections that broke, or brought a wrong byte
  sent_bytes    in which what it knows (state_bytes) crossed

`--system still` is a component that stays: what the measuring itself sees. The switch has 32 ports with a wire each,
the vm that is its peer two.
"""

import collections
import contextlib
import json
import statistics
import time

import frames
from arrivals import Arrivals
from network_guest import COUNT_PORT, network_guest
from place import Place
from stage import (MOVE_LIMIT_S, RTT_MS, Client, StageError, build_directory, finished, guest_image,
                   wait_until)

NEAR, FAR = "near", "far"
PORT = 7007  # godwit-guest's
INTERVAL_MS = 1.0
IDLE_S, QUICK_IDLE_S = 5.0, 3.0
FILL_LIMIT_S, BOOT_LIMIT_S = 180, 60
MOVES = {"": "w1", "/back": "e1"}  # by what the case is called then
UNITS = {"freeze_ms": "ms", "pause_ms": "ms", "blackout_ms": "ms", "idle_gap_ms": "ms", "frames_lost": "frames",
         "frames_doubled": "frames", "resets": "connections", "state_bytes": "bytes", "sent_bytes": "bytes", "total_s": "s"}
WORST = ("frames_lost", "frames_doubled", "resets")  # of all moves; of the rest the median
MOST_FREEZE_MS, MORE_BLACKOUT_MS = 10.0, 2 * RTT_MS + 5.0


def say(text):
    print(text, flush=True)


class Switch:
    """10,000 addresses behind 30 ports, traffic between the other two."""

    name, known = "switch-10k", 10_000
    near, far, gateway = "10.8.0.1/24", "10.8.0.2/24", None
    count_at = "10.8.0.3"  # in the vm
    component = ("--ports", "32")
    counted = "known_macs"
    component_ports = ("1", "2")
    crowd = [f"{i}" for i in range(3, 33)]
    memory, append = "128MiB", f"bench.bridge={count_at}/24"

    @staticmethod
    def fill(ends, rate):
        """To one that is known, so that they are not sent to all."""
        to = json.loads(ends.near.run("ip", "-j", "link", "show", NEAR))[0]["address"]
        place, interfaces = (ends.crowd, ends.crowd_interfaces) if ends.crowd else (ends.far, [FAR])
        frames.send_from(place, "macs", to, Switch.known, rate, *interfaces)


class Nat:
    """100,000 flows of as many pairs of ports, of 25 addresses inside."""

    name, known = "nat-100k", 100_000
    near, far, gateway = "10.7.0.1/16", "10.9.0.1/24", "10.7.0.254"
    count_at = gateway
    component = ("--type", "nat", "--port", "inside,address=10.7.0.254/16", "--port", "outside,address=10.9.0.254/24")
    counted = "flows"
    component_ports = ("inside", "outside")
    crowd = []
    memory, append = "192MiB", "bench.nat=10.7.0.254/16,10.9.0.254/24"

    @staticmethod
    def fill(ends, rate):
        told = json.loads(ends.near.run("ip", "-j", "neigh", "show", Nat.gateway))
        frames.send_from(ends.near, "flows", told[0]["lladdr"], Nat.known, rate, NEAR, "10.7.1", address(Nat.far))


CASES = {case.name: case for case in (Switch, Nat)}


def address(text):
    return text.split("/")[0]


def migrate(lab, host, *words):
    """What the agent of `host` tells of the move when it is over."""
    return json.loads(finished(lab.command(host, "godwit", "migrate", *words, "--json"), MOVE_LIMIT_S))


class Ends:
    """The places at the client, wired to ports at e1."""

    def __init__(self, lab, case, stack, near_port, far_port, crowd_ports=()):
        self.lab = lab
        self.near, self.far = Place(lab, "client"), Place(lab, "client")
        self.crowd = Place(lab, "client") if crowd_ports else None
        for place in filter(None, (self.near, self.far, self.crowd)):
            stack.callback(place.end)
        self._join(stack, self.near, NEAR, near_port, case.near)
        self._join(stack, self.far, FAR, far_port, case.far)
        self.crowd_interfaces = [f"crowd{number}" for number in range(len(crowd_ports))]
        for interface, port in zip(self.crowd_interfaces, crowd_ports):
            self._join(stack, self.crowd, interface, port)
        if case.gateway:
            self.near.run("ip", "route", "add", "default", "via", case.gateway)
        wait_until(lambda: self.near.answers(address(case.far)), BOOT_LIMIT_S, f"{case.name}: the far end's answer")

    def _join(self, stack, place, interface, port, own=None):
        def godwit(*words):
            self.lab.run("client", "godwit", *words)
        godwit("port", "add", interface, "--uplink")
        stack.callback(godwit, "port", "rm", interface)
        place.enter(interface, own)
        godwit("connect", interface, f"e1/{port}")
        stack.callback(godwit, "disconnect", interface, port)


class Component:
    """What moves, with `godwit` only."""

    system = "godwit"
    rate = 10_000  # of what fills it, in frames a second
    keeps = False  # what it knows for longer than the bench takes

    def __init__(self, lab, case, stack):
        self.lab, self.case, self.host = lab, case, "e1"
        lab.run("e1", "godwit", "component", "add", "moved", *case.component)
        stack.callback(lambda: lab.run(self.host, "godwit", "component", "rm", "moved"))
        self.ends = Ends(lab, case, stack, *(f"moved-{port}" for port in case.component_ports),
                         [f"moved-{port}" for port in case.crowd])

    def known(self):
        return self.lab.ask(self.host, "component", "show", "moved")[self.case.counted]

    def move(self, host):
        """The report."""
        return self._migrate(host, "component/moved")

    def _migrate(self, host, *words):
        report = migrate(self.lab, self.host, *words, "--to", host)["report"]
        self.host = host
        return report


class LinuxVm(Component):
    """The same of Linux, in a vm."""

    system = "linux-vm"
    rate = 3_000  # an emulated CPU
    keeps = True

    def __init__(self, lab, case, stack):
        self.lab, self.case, self.host = lab, case, "e1"
        lab.run("e1", "godwit", "vm", "run", "moved", "--memory", case.memory, "--kernel", guest_image()[0],
                "--initrd", network_guest(), "--append", f"console=ttyS0 quiet nokaslr {case.append}",
                "--nic", "vm-near", "--nic", "vm-far")
        stack.callback(lambda: lab.run(self.host, "godwit", "vm", "purge", "moved"))
        stack.callback(lambda: lab.run(self.host, "godwit", "vm", "stop", "moved", "--force"))
        self.ends = Ends(lab, case, stack, "vm-near", "vm-far")

    def known(self):
        return int(self.ends.near.run("busybox", "nc", "-w", "5", self.case.count_at, str(COUNT_PORT)))

    def move(self, host):
        report = self._migrate(host, "moved", "--max-downtime", "300ms", "--no-known")
        return report | {"freeze_ms": report["pause_ms"], "state_bytes": report["bytes"]["memory_stream"],
                         "sent_bytes": report["bytes"]["wan"]}


class Still(Component):
    """That stays where it is."""

    system = "still"

    def move(self, host):
        time.sleep(QUICK_IDLE_S)
        return {"freeze_ms": 0.0, "pause_ms": 0.0, "total_ms": QUICK_IDLE_S * 1000, "state_bytes": 0,
                "sent_bytes": 0}


KINDS = {kind.system: kind for kind in (Component, LinuxVm, Still)}
MOVING = ("godwit", "linux-vm")


class Traffic:
    """Between the ends, for as long as this context lasts."""

    def __init__(self, case, ends):
        self._stack = contextlib.ExitStack()
        with self._stack:
            server = ends.far.start(build_directory() / "src" / "lab" / "guest" / "godwit-guest")
            self._stack.callback(server.wait)
            self._stack.callback(server.kill)
            server.stdout.readline()  # it serves
            self._arrivals = self._stack.enter_context(Arrivals(ends.far, FAR, PORT))
            self._client = self._stack.enter_context(Client(ends.lab, address=address(case.far),
                                                            within=ends.near.within))
            self._stack = self._stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    def watch(self, name, action):
        """(The result of action(), figures)."""
        result, window = self._client.watch(name, action)
        there, back, tcp = window["to_vm"], window["from_vm"], window["tcp"]
        gap_ms = max(self._arrivals.longest_gap_ms(window), back["gap"]["ms"])
        return result, {"blackout_ms": max(0.0, gap_ms - INTERVAL_MS),
                        "frames_lost": there["lost"] + back["lost"],
                        "frames_doubled": there["duplicated"] + back["duplicated"],
                        "resets": tcp["resets"] + tcp["mismatches"]}


def fill(moved):
    """Until it knows all: on a busy host some frames are lost."""
    deadline = time.monotonic() + FILL_LIMIT_S
    while not (moved.keeps and moved.known() >= moved.case.known):
        moved.case.fill(moved.ends, moved.rate)
        if moved.known() >= moved.case.known:
            return
        if time.monotonic() > deadline:
            raise StageError(f"{moved.case.name}, {moved.system}: it knows {moved.known()} "
                             f"after {FILL_LIMIT_S} s")


def drops(lab, hosts=("client", "e1", "w1")):
    """What wires dropped, by cause: a busy host loses frames that no move has lost."""
    count = collections.Counter()
    for host in hosts:
        for wire in lab.ask(host, "wire", "ls"):
            count.update(wire.get("drops", {}))
    return count


def measure_moves(moved, rounds, idle_s):
    """Figures of each move, by the case's name."""
    figures = {}
    with Traffic(moved.case, moved.ends) as traffic:
        for number in range(rounds):
            for way, host in MOVES.items():
                _, idle = traffic.watch(f"idle{number}{way}", lambda: time.sleep(idle_s))
                fill(moved)
                known, dropped = moved.known(), drops(moved.lab)
                report, of_it = traffic.watch(f"move{number}{way}", lambda h=host: moved.move(h))
                of_it |= {"idle_gap_ms": idle["blackout_ms"]}
                of_it |= {metric: report[metric] for metric in ("freeze_ms", "pause_ms", "state_bytes", "sent_bytes")}
                of_it |= {"total_s": report["total_ms"] / 1000}
                say(f"  {moved.case.name + way:<16} {moved.system:<9} "
                    + "  ".join(f"{metric} {value:.6g}" for metric, value in of_it.items())
                    + f"  (knew {known}, knows {moved.known()}; idle: lost {idle['frames_lost']})")
                if of_it["frames_lost"]:
                    say(f"    dropped by wires: {dict(drops(moved.lab) - dropped)}")
                figures.setdefault(moved.case.name + way, []).append(of_it)
    return figures


def measure(lab, name, options):
    """Rows of the case's systems."""
    case = CASES[name]
    wait_until(lambda: all(host["state"] != "down" for host in lab.ask("client", "host", "ls")), 20, "all sessions")
    rounds, idle_s = (1, QUICK_IDLE_S) if options.quick else (5, IDLE_S)
    rows = []
    for kind in (KINDS[system] for system in options.system or MOVING if system in KINDS):
        with contextlib.ExitStack() as stack:
            moved = kind(lab, case, stack)
            for name, moves in measure_moves(moved, rounds, idle_s).items():
                rows += [{"bench": "fabric", "case": name, "system": moved.system, "metric": metric,
                          "value": (max if metric in WORST else statistics.median)(of[metric] for of in moves),
                          "unit": unit} for metric, unit in UNITS.items()]
    return rows


def judge(rows):
    value = {(row["case"], row["system"], row["metric"]): row["value"] for row in rows}
    kept = True
    for case in {row["case"]: None for row in rows if row["system"] == "godwit"}:
        of = {metric: value[case, "godwit", metric] for metric in UNITS}
        for metric, most in (("freeze_ms", MOST_FREEZE_MS), ("blackout_ms", of["freeze_ms"] + MORE_BLACKOUT_MS),
                             ("frames_lost", 0), ("resets", 0)):
            met = of[metric] <= most
            kept = kept and met
            peer = value.get((case, "linux-vm", metric))
            say(f"  {'met' if met else 'MISSED'}: {case}: {metric} {of[metric]:.6g}, to reach {most:.6g}"
                + ("" if peer is None else f"; linux-vm {peer:.6g}"))
    return kept
