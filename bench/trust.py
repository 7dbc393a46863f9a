#!/usr/bin/python3
"""What a move costs a vm that is being copied, what a flood costs an agent, and what fuzzing has found.

    client (agent) --- e1 (agent, the vm)  ==( 40 ms, 400 Mbit/s )==  w1 (agent)

background  the vm's latency and throughput, seen by the client: idle, while it is copied, and while it is
            copied with --background; in turn, rounds of all three; medians
flood       datagrams and half-open handshakes at full rate from the client's host: what is lost beside what
            the socket's buffer could not hold, and the agent's CPU
idle        an agent with one vm and one wire
fuzz        executions and coverage of the last `./dev fuzz` of each target, if there was one
--big       one vm of 16 GiB moves: the agents' memory stays bounded

Exit status 1 if a target is missed.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))
sys.path.insert(0, str(ROOT / "bench"))

from idle import agent_pid, cpu_s, rss_mib  # noqa: E402
from stage import (COMMAND_LIMIT_S, HOSTS, VM, VM_ADDRESS, Client, Godwit, Lab, Load, StageError,  # noqa: E402
                   performed, wait_until, write_rows)

CASES = {"idle": None, "copying": (), "background": ("--background",)}
MOST_WORSE = 1.10         # copying with --background against idle
MOST_AGENT_RSS_MIB = 256  # of a move, however large the vm: the transfer's windows, and QEMU's not counted
KINDS = ("garbage", "forged", "replayed", "half-open")
PORT = 4747

# In the client's host: ping-pong over TCP, then as much as goes through and comes back.
LOAD = """
import json, socket, statistics, sys, threading, time
address, seconds = (sys.argv[1], 7007), float(sys.argv[2])
def connected():
    s = socket.create_connection(address, 5); s.settimeout(5)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s
def read_all(s, count):
    while count > 0: count -= len(s.recv(count))
s, trips, begun = connected(), [], time.monotonic()
while time.monotonic() - begun < seconds:
    asked = time.monotonic(); s.sendall(b'x' * 64); read_all(s, 64)
    trips.append((time.monotonic() - asked) * 1e3)
s.close()
s, came, begun = connected(), 0, time.monotonic()
def send():
    try:
        while True: s.sendall(b'y' * 65536)
    except OSError: pass
threading.Thread(target=send, daemon=True).start()
while time.monotonic() - begun < seconds: came += len(s.recv(1 << 20))
took = time.monotonic() - begun
trips.sort()
print(json.dumps({'latency_ms': statistics.median(trips), 'latency_p99_ms': trips[len(trips) * 99 // 100],
                  'throughput_mbit': came * 8 / took / 1e6}), flush=True)
"""
UNITS = {"latency_ms": "ms", "latency_p99_ms": "ms", "throughput_mbit": "Mbit/s"}


def say(text=""):
    print(text, flush=True)


def row(part, case, metric, value, unit):
    return {"bench": "trust", "case": f"{part}: {case}", "system": "godwit", "metric": metric, "value": value,
            "unit": unit}


class Figures(list):
    """Rows, shown as they come; and whether each target was met."""

    all_met = True

    def keep(self, *words):
        self.append(row(*words))
        part, case, metric, value, unit = words
        say(f"  {part:<11} {case:<22} {metric:<18} {value:.6g} {unit}")

    def judge(self, text, met, detail):
        self.all_met = self.all_met and met
        say(f"  {'met   ' if met else 'MISSED'}  {text:<58} {detail}")


def load_of(lab, seconds):
    done = subprocess.run(lab.command("client", "/usr/bin/python3", "-c", LOAD, VM_ADDRESS, str(seconds)),
                          capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False,
                          stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise StageError(f"the load: {done.stderr}")
    return json.loads(done.stdout)


def state_of(lab, move):
    return lab.ask(HOSTS["east"], "migration", "show", move)["state"]


def measured_while(lab, options, seconds):
    """The client's figures while the vm is idle, or is copied with these options; the move is then aborted."""
    if options is None:
        return load_of(lab, seconds)
    move = lab.ask(HOSTS["east"], "migrate", VM, "--to", HOSTS["west"], "--hold", "--detach", *options)["id"]
    wait_until(lambda: state_of(lab, move) == "copying", COMMAND_LIMIT_S, "the vm is copied")
    figures = load_of(lab, seconds)
    state = state_of(lab, move)
    if state not in ("copying", "ready"):
        raise StageError(f"the vm was not copied to the end of the window: {state}")
    lab.run(HOSTS["east"], "godwit", "migration", "abort", move)
    wait_until(lambda: state_of(lab, move) == "aborted", COMMAND_LIMIT_S, "the end of the copying")
    wait_until(lambda: VM not in [vm["name"] for vm in lab.ask(HOSTS["west"], "vm", "ls")], COMMAND_LIMIT_S,
               "the end of the vm at the target")
    return figures


def bench_background(lab, figures, rounds, seconds):
    seen = {case: [] for case in CASES}
    measured_while(lab, None, 1)  # warm
    for _ in range(rounds):
        for case, options in CASES.items():
            seen[case].append(measured_while(lab, options, seconds))
            say(f"  {case:<11} " + "  ".join(f"{k} {v:.4g}" for k, v in seen[case][-1].items()))
    medians = {case: {metric: statistics.median(f[metric] for f in all_of_it) for metric in UNITS}
               for case, all_of_it in seen.items()}
    for case in CASES:
        for metric, unit in UNITS.items():
            figures.keep("background", case, metric, medians[case][metric], unit)
    idle, background = medians["idle"], medians["background"]
    for metric in ("latency_ms", "throughput_mbit"):
        worse = (background[metric] / idle[metric] if metric.startswith("latency")
                 else idle[metric] / background[metric])
        figures.judge(f"{metric} with --background at most {MOST_WORSE} x worse than idle",
                      worse <= MOST_WORSE, f"{worse:.3f}")


def bench_idle(lab, figures, seconds):
    host = HOSTS["east"]
    pid = agent_pid(lab, host)
    before, begun = cpu_s(lab, host, pid), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - begun
    figures.keep("idle", "agent with one vm", "cpu_percent", 100 * (cpu_s(lab, host, pid) - before) / took,
                 "% of a core")
    figures.keep("idle", "agent with one vm", "rss_mib", rss_mib(lab, host, pid), "MiB")


def counts(lab):
    host = lab.ask(HOSTS["east"], "host", "show")
    wire = lab.ask(HOSTS["east"], "wire", "ls")[0]["drops"]
    return {"garbage": host["datagrams"]["strays"], "forged": wire.get("bad_tag", 0),
            "replayed": wire.get("replayed", 0), "half-open": host["handshakes"]["displaced"],
            "overflow": host["datagrams"]["socket_overflow"]}


def bench_flood(lab, figures, seconds):
    host = HOSTS["east"]
    attacker = (ROOT / "demo" / "attacker.py").read_text(encoding="utf-8")
    address = lab.ask(host, "host", "show")["address"]
    pid = agent_pid(lab, host)
    for kind in KINDS:
        with Client(lab) as client:
            before, cpu = counts(lab), cpu_s(lab, host, pid)
            out, window = client.watch(kind, lambda k=kind: lab.run(
                "client", "/usr/bin/python3", "-c", attacker, k, address, str(PORT), str(seconds)))
            told = json.loads(out)
            spent = cpu_s(lab, host, pid) - cpu
            after = counts(lab)
        lost = sum(window[way]["lost"] or 0 for way in ("to_vm", "from_vm"))
        overflow = after["overflow"] - before["overflow"]
        figures.keep("flood", kind, "sent", told["sent"] / told["seconds"], "per second")
        figures.keep("flood", kind, "refused", (after[kind] - before[kind]) / told["seconds"], "per second")
        figures.keep("flood", kind, "socket_overflow", overflow, "datagrams")
        figures.keep("flood", kind, "agent_cpu_percent", 100 * spent / told["seconds"], "% of a core")
        figures.keep("flood", kind, "frames_lost", lost, "frames")
        figures.judge(f"{kind}: no frame lost beyond what the socket dropped", lost <= overflow,
                      f"{lost} lost, {overflow} dropped by the socket; "
                      f"{window['tcp']['resets']} connections reset")


def bench_fuzz(figures):
    for log in sorted((ROOT / "build" / "log").glob("fuzz-*.log")):
        text = log.read_text(encoding="utf-8", errors="replace")
        last = re.findall(r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)", text)
        if not last:
            continue
        executions, edges, features, corpus = map(int, last[-1])
        target = log.stem.removeprefix("fuzz-")
        figures.keep("fuzz", target, "executions", executions, "runs")
        figures.keep("fuzz", target, "coverage", edges, "edges")
        figures.keep("fuzz", target, "features", features, "features")
        figures.keep("fuzz", target, "corpus", corpus, "inputs")


def bench_big(lab, figures, memory):
    godwit = Godwit(lab, Load(memory=memory, dirty="20mbit", working_set="256MiB"))
    godwit.start()
    pids = {host: agent_pid(lab, host) for host in HOSTS.values()}
    most = {host: 0.0 for host in pids}
    move = lab.ask(HOSTS["east"], "migrate", VM, "--to", HOSTS["west"], "--detach", "--max-downtime", "1s")["id"]
    begun = time.monotonic()
    while (state := state_of(lab, move)) not in ("committed", "draining", "done", "aborted"):
        for host, pid in pids.items():
            most[host] = max(most[host], rss_mib(lab, host, pid))
        if time.monotonic() - begun > 600:
            raise StageError(f"the large vm is still {state} after 600 s")
    shown = lab.ask(HOSTS["east"], "migration", "show", move)
    if state == "aborted":
        raise StageError(f"the large vm's move was aborted: {shown['reason']}")
    godwit.host = HOSTS["west"]
    figures.keep("big", memory, "total_s", shown["report"]["total_ms"] / 1e3, "s")
    figures.keep("big", memory, "pause_ms", shown["report"]["pause_ms"], "ms")
    figures.keep("big", memory, "wan_bytes", shown["report"]["bytes"]["wan"], "bytes")
    for host, rss in most.items():
        figures.keep("big", memory, f"rss_mib_{host}", rss, "MiB")
        figures.judge(f"agent at {host} with a vm of {memory} at most {MOST_AGENT_RSS_MIB} MiB",
                      rss <= MOST_AGENT_RSS_MIB, f"{rss:.0f} MiB")
    godwit.stop()


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench trust", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 rounds, short windows")
    parser.add_argument("--json", metavar="FILE", help="write the figures as rows")
    parser.add_argument("--only", metavar="PART", choices=("background", "flood", "idle", "fuzz"))
    parser.add_argument("--big", metavar="MEMORY", nargs="?", const="16GiB", help="only: one vm of 16 GiB moves")
    parser.add_argument("--lab", default="bench-trust", metavar="NAME", help="the lab's name")
    return parser.parse_args()


def measure_all(options, figures):
    def wanted(part):
        return options.only in (None, part) and not options.big
    rounds, seconds = (2, 1.5) if options.quick else (5, 3)
    with Lab(options.lab) as lab:
        if options.big:
            return bench_big(lab, figures, options.big)
        godwit = Godwit(lab, Load(memory="768MiB", dirty="20mbit", working_set="512MiB"))
        godwit.start()
        with Client(lab):
            pass  # the vm answers
        if wanted("idle"):
            bench_idle(lab, figures, 5 if options.quick else 20)
        if wanted("background"):
            bench_background(lab, figures, rounds, seconds)
        if wanted("flood"):
            bench_flood(lab, figures, 3 if options.quick else 10)
        godwit.stop()


def run(options):
    figures = Figures()
    if options.only != "fuzz":
        measure_all(options, figures)
    if options.only in (None, "fuzz") and not options.big:
        bench_fuzz(figures)
    if options.json:
        write_rows(options.json, figures)
    return figures.all_met


def main():
    options = arguments()
    return performed("bench trust", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
