#!/usr/bin/python3
"""How fast components forward, on one host, against its kernel's bridge, forwarding and NAT; and how fast a
topology is made.

    [a] 10.8.0.1 -- TAP -- wire -- switch (godwitd) -- wire -- TAP -- 10.8.0.2 [b]        godwit
    [a] ----------- TAP -- wire (godwitd) ------------ TAP ----------------- [b]          godwit-wire
    [a] ----------- veth - bridge (kernel) ----------- veth ---------------- [b]          linux-bridge
    [a] ----------- veth - Open vSwitch -------------- veth ---------------- [b]          ovs, ovs-netdev
    [a] 10.8.0.1 -- TAP -- wire -- router, nat ------- wire -- TAP -- 10.9.0.1 [b]        godwit-router, godwit-nat
    [a] ----------- veth - [namespace that forwards] - veth ---------------- [b]          linux-router, linux-nat

a and b are network namespaces; iperf3 runs in both, so on few CPUs all of them share these. forward-super: one TCP
connection. forward-64: UDP with 18 bytes of payload, as fast as it is sent; what arrives counts. Interleaved, median.
ovs: with the kernel's datapath, where its module is; ovs-netdev: with the one in its daemon. Its commands are printed.
forward-64-tap: between guests' TAPs, without iperf3 (taps.py). apply-1000: apply_case.py. switch-10k, nat-100k:
component_moves.py. shop: shop_move.py.
"""

import argparse
import contextlib
import json
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))

import apply_case  # noqa: E402
import component_moves  # noqa: E402
import shop_move  # noqa: E402
import taps  # noqa: E402
from ovs import OpenVswitch  # noqa: E402
from place import Place  # noqa: E402
from stage import Lab, performed, wait_until, write_rows  # noqa: E402

HOST = "e1"
ADDRESSES = ("10.8.0.1", "10.8.0.2")
ROUTED = ("10.8.0.1", "10.9.0.1")
PEERS = {"godwit": "linux-bridge", "godwit-router": "linux-router", "godwit-nat": "linux-nat"}
OVS = ("ovs", "ovs-netdev")
SYSTEMS = ("godwit", "godwit-wire", "linux-bridge", *OVS, "godwit-router", "linux-router", "godwit-nat", "linux-nat")
UNITS = {"gbps": "Gbit/s", "mpps": "million frames/s"}
CASES = {"forward-super": ("gbps", ()), "forward-64": ("mpps", ("-u", "-b0", "-l18"))}
ALL_CASES = ("forward", taps.CASE, "apply-1000", *component_moves.CASES, shop_move.CASE)
MOVED_SYSTEMS = tuple(dict.fromkeys((*component_moves.KINDS, *shop_move.SYSTEMS)))
LEAST_SUPER = 0.7  # of the kernel's


def join_by_bridge(lab, places):
    lab.run(HOST, "ip", "link", "add", "br0", "type", "bridge")
    lab.run(HOST, "ip", "link", "set", "br0", "up")
    for number, place in enumerate(places):
        lab.run(HOST, "ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", f"p{number}")
        lab.run(HOST, "ip", "link", "set", f"p{number}", "master", "br0", "up")
        place.enter(f"v{number}", ADDRESSES[number])


def join_by_godwit(lab, places, has_switch):
    name = "s" if has_switch else "w"
    for number, place in enumerate(places):
        lab.run(HOST, "godwit", "port", "add", f"{name}{number}", "--uplink")
        place.enter(f"{name}{number}", ADDRESSES[number])
    if not has_switch:
        return lab.run(HOST, "godwit", "connect", f"{name}0", f"{name}1")
    lab.run(HOST, "godwit", "component", "add", "sw1", "--ports", "2")
    for number in (0, 1):
        lab.run(HOST, "godwit", "connect", f"{name}{number}", f"sw1-{number + 1}")
    return None


def gateway_of(address):
    return address.rsplit(".", 1)[0] + ".254"


def join_by_router(lab, places, nat):
    name = "n" if nat else "r"
    sides = ("inside", "outside")
    ports = [f"{side},address={gateway_of(address)}/24" for side, address in zip(sides, ROUTED)]
    lab.run(HOST, "godwit", "component", "add", name, "--type", "nat" if nat else "router",
            *(word for port in ports for word in ("--port", port)))
    for number, place in enumerate(places):
        lab.run(HOST, "godwit", "port", "add", f"{name}{number}", "--uplink")
        place.enter(f"{name}{number}", ROUTED[number])
        place.run("ip", "route", "add", "default", "via", gateway_of(ROUTED[number]))
        lab.run(HOST, "godwit", "connect", f"{name}{number}", f"{name}-{sides[number]}")


def join_by_kernel_router(lab, places, router, nat):
    for number, place in enumerate(places):
        ends = [f"k{nat:d}{number}{side}" for side in "ab"]
        lab.run(HOST, "ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        place.enter(ends[0], ROUTED[number])
        router.enter(ends[1], gateway_of(ROUTED[number]))
        place.run("ip", "route", "add", "default", "via", gateway_of(ROUTED[number]))
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    if nat:
        router.run("nft", "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; "
                   f"add rule ip t c oifname {ends[1]} masquerade")


def target_of(system):
    return (ROUTED if "router" in system or "nat" in system else ADDRESSES)[1]


def rate(places, target, options, length_s):
    """What arrives: (Gbit/s, million packets a second)."""
    server = places[1].start("iperf3", "-s", "-1", "-J")
    try:
        wait_until(lambda: ":5201" in places[1].run("ss", "-Hltn"), 10, "iperf3's server")
        client = places[0].start("iperf3", "-c", target, f"-t{length_s}", "-J", *options)
        client.communicate(timeout=length_s + 30)
        text, _ = server.communicate(timeout=30)
    finally:
        server.kill()
    summed = json.loads(text)["end"]
    if "-u" not in options:
        return summed["sum_received"]["bits_per_second"] / 1e9
    total = summed["sum"]
    return (total["packets"] - total["lost_packets"]) / total["seconds"] / 1e6


def measure(joined, why_not, rounds, length_s):
    """`why_not`: of the systems that this machine does not have."""
    rows = []
    for case, (metric, options) in CASES.items():
        rates = {system: [] for system in joined}
        for _ in range(rounds):
            for system in joined:
                rates[system].append(rate(joined[system], target_of(system), options, length_s))
        for system in SYSTEMS:
            row = {"bench": "fabric", "case": case, "system": system, "metric": metric, "value": None,
                   "unit": UNITS[metric]}
            if system in joined:
                row["value"] = statistics.median(rates[system])
                print(f"  {case:<14} {system:<13} {row['value']:8.3f} {row['unit']}", flush=True)
            else:
                row["why_not"] = why_not[system]
                print(f"  {case:<14} {system:<13} not available: {why_not[system]}", flush=True)
            rows.append(row)
    return rows


def judge(rows):
    value = {(row["case"], row["system"]): row["value"] for row in rows}
    met = True
    for system, peer in PEERS.items():
        ratio = value["forward-super", system] / value["forward-super", peer]
        small = value["forward-64", system] / value["forward-64", peer]
        print(f"  {'met' if ratio >= LEAST_SUPER else 'MISSED'}: {system}'s super-frames {ratio:.2f} of {peer}'s, to "
              f"reach {LEAST_SUPER}; small ones {small:.2f}", flush=True)
        met = met and ratio >= LEAST_SUPER
    for peer in OVS:
        if value["forward-super", peer] is None:
            continue
        ratios = [value[case, "godwit"] / value[case, peer] for case in CASES]
        print(f"  godwit's super-frames {ratios[0]:.2f} of {peer}'s; small ones {ratios[1]:.2f}", flush=True)
    return met


def seconds_of(options):
    return 2 if options.quick else 5


def forward(options, rounds):
    length_s = seconds_of(options)
    with Lab(options.lab) as lab, contextlib.ExitStack() as stack:
        joined, why_not = {}, {}
        for system in SYSTEMS:
            switch = stack.enter_context(OpenVswitch(lab, HOST, system == "ovs")) if system in OVS else None
            if switch and switch.why_not:
                switch.end()
                why_not[system] = switch.why_not
                print(f"  {system}: not available: {switch.why_not}", flush=True)
                continue
            places = joined[system] = [Place(lab, HOST), Place(lab, HOST)]
            for place in places:
                stack.callback(place.end)
            if switch:
                switch.join(places, ADDRESSES)
            elif system == "linux-bridge":
                join_by_bridge(lab, places)
            elif system in ("godwit", "godwit-wire"):
                join_by_godwit(lab, places, has_switch=system == "godwit")
            elif system.startswith("godwit"):
                join_by_router(lab, places, nat=system == "godwit-nat")
            else:
                router = Place(lab, HOST)
                stack.callback(router.end)
                join_by_kernel_router(lab, places, router, nat=system == "linux-nat")
            wait_until(lambda p=places[0], t=target_of(system): p.answers(t), 20, system)
        return measure(joined, why_not, rounds, length_s)


def measured(options, case, rounds):
    """(Rows of the case, what says whether its targets were met.)"""
    if case == "forward":
        return forward(options, rounds), judge
    if case == shop_move.CASE:
        return shop_move.measure(lambda: Lab(options.lab), options), shop_move.judge
    with Lab(options.lab) as lab, contextlib.ExitStack() as stack:
        if case == taps.CASE:
            return taps.measure(lab, stack, rounds, seconds_of(options)), taps.judge
        if case == "apply-1000":
            return apply_case.measure(lab, rounds), apply_case.judge
        return component_moves.measure(lab, case, options), component_moves.judge


def run(options):
    rounds = 3 if options.quick else 7
    rows, met = [], True
    for case in options.case or ALL_CASES:
        of_case, judge_case = measured(options, case, rounds)
        rows += of_case
        met = judge_case(of_case) and met
    if options.json:
        write_rows(options.json, rows)
    return met


def main():
    parser = argparse.ArgumentParser(prog="./dev bench fabric", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 2 s, instead of 7 of 5; each move once")
    parser.add_argument("--case", action="append", choices=ALL_CASES, help="only this one; repeat for more")
    parser.add_argument("--system", action="append", choices=MOVED_SYSTEMS,
                        help="of moves: only this one; repeat for more")
    parser.add_argument("--json", metavar="FILE", help="write the figures as rows")
    parser.add_argument("--lab", default="bench-fabric", metavar="NAME", help="the lab's name")
    options = parser.parse_args()
    return performed("bench fabric", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
