"""The moves of `./dev bench nat`: a guest changes racks in examples/data-centre and keeps its address.

    world: x1        pod 1: a1 [web1 at home], a2, b1 [web2 at home]        pod 2: c2 [web1 then], d1, d2 [web2 since]

nat_systems.py: by which systems. nat_traffic.py: under which loads; each is measured by itself, from as
many correspondents at once as the guest's emulated CPU has time for. They are a case: same-rack (a2), other-pod (d1), outside (x1), displaced (web2).

  connections_survived_percent   of flows: the TCP connection lives and brings bytes at the end of the window, or
                                 answers still come in its last second
  blackout_ms    longest time without an answer that was due, of a window that ends some seconds after the move
  idle_gap_ms    the same in a window before
  in_vm_ms       of udp-1000: the part of the blackout in which the guest ran, by its own clock, and sent nothing, or what
                 it sent was lost
  pause_ms       of the report
  rtt_ms         median of the window before
  frames_lost    of ping and udp-1000, both ways; of a flow that does not come back it is not known. idle_lost: in the
                 window before; dropped: by wires and in the hand-over, as their hosts count, all correspondents' together
  rules          at all devices for this guest when its move has settled
  failed         moves of which there is no figure: they failed, or no traffic was to be had before
  throughput_mbit_s, throughput_ratio   of iperf3: before, and what became of it in the second half of the time after
                 the move (with --quick: in all of it)
  bound_ms       what the blackout may be: pause_ms + rtt_ms + max(10, idle_gap_ms)
"""

import statistics
import subprocess
import time

from component_moves import drops
from nat_guest import IPERF_PORTS, PROGRAMS, corresponding_guest, serving_guest
from nat_systems import ADDRESS, HOME, SYSTEMS, TARGET, VM, RoutedGuest
from nat_traffic import AT_ONCE, LOADS, Correspondent, Traffic
from stage import AGENT_LOG, ROOT, Lab, StageError, wait_until, warm_memory

CORRESPONDENTS = {"same-rack": Correspondent("a2", iperf_port=IPERF_PORTS[0]),
                  "other-pod": Correspondent("d1", iperf_port=IPERF_PORTS[1]),
                  "outside": Correspondent("x1", iperf_port=IPERF_PORTS[2]),
                  "displaced": Correspondent("b2", "10.66.2.20", IPERF_PORTS[3])}
VM_HOSTS = ("a1", "c2", "d2")
QUICK = ("same-rack", "outside")
DATA_CENTRE = ROOT / "examples" / "data-centre"
HOME_ROUTER = "10.66.1.1"
SERVING_MEMORY = "128MiB"
WORDS = "godwit.dirty=5mbit godwit.working-set=8MiB"
IDLE_S, QUICK_IDLE_S = 4.0, 2.0
AFTER_S, QUICK_AFTER_S = 6.0, 3.0  # of the window, behind the move
WARM_BYTES = 1 << 28
UNITS = {"connections_survived_percent": "%", "blackout_ms": "ms", "idle_gap_ms": "ms", "in_vm_ms": "ms",
         "pause_ms": "ms", "rtt_ms": "ms", "frames_lost": "frames", "idle_lost": "frames", "dropped": "frames",
         "rules": "rules", "bound_ms": "ms", "throughput_mbit_s": "Mbit/s", "throughput_ratio": ""}
WORST = ("frames_lost", "idle_lost", "dropped", "rules")  # of all rounds; of the rest the median


def say(text):
    print(text, flush=True)


def figures_of(seen, idle, report, rules):
    rtt_ms = idle.rtt_ms or 0.0
    return {"connections_survived_percent": 100.0 * seen.survived, "blackout_ms": seen.gap_ms,
            "idle_gap_ms": idle.gap_ms, "in_vm_ms": seen.in_vm_ms, "pause_ms": report["pause_ms"], "rtt_ms": rtt_ms,
            "throughput_mbit_s": idle.mbit_s, "throughput_ratio": seen.mbit_s / idle.mbit_s if idle.mbit_s else None,
            "losses": seen.losses, "frames_lost": seen.lost, "idle_lost": idle.lost, "rules": rules,
            "bound_ms": report["pause_ms"] + rtt_ms + max(10.0, idle.gap_ms)}


def measured_guest(lab, load):
    if load not in PROGRAMS:
        return RoutedGuest(lab, VM, HOME, ADDRESS, words=WORDS)
    return RoutedGuest(lab, VM, HOME, ADDRESS, serving_guest(load), SERVING_MEMORY, f"{WORDS} bench.serves={load}")


def moved(lab, system, load, correspondents, options):
    """Figures by correspondent, of one move of a vm that is booted for it."""
    guest = measured_guest(lab, load)
    after_s = QUICK_AFTER_S if options.quick else AFTER_S
    with Traffic(lab, load, correspondents, ADDRESS) as traffic:
        mover = SYSTEMS[system](lab, guest)
        warm_memory(WARM_BYTES)
        traffic.watch("idle", lambda: time.sleep(QUICK_IDLE_S if options.quick else IDLE_S))

        def move():
            report = mover.move()
            time.sleep(after_s)
            return report
        dropped = drops(lab, VM_HOSTS)
        report = traffic.watch("move", move)
        idle, seen = traffic.seen("idle"), traffic.seen("move")
        dropped = sum((drops(lab, VM_HOSTS) - dropped).values()) + report["held"]["dropped"]
        rules = mover.rules()
    mover.clean()
    return {who: figures_of(seen[who], idle[who], report, rules) | {"dropped": dropped} for who in correspondents}


def moved_or_told_why_not(lab, *what):
    """Figures, or None and the end of the logs of both agents."""
    try:
        return moved(lab, *what)
    except (StageError, subprocess.TimeoutExpired) as error:
        say(f"  {what[1]}, {what[0]}: failed: {error}")
        for host in (HOME, TARGET):
            say(f"---- {host} ----\n{lab.run(host, 'tail', '-n', '40', AGENT_LOG)}")
        return None


def displaced_guest(lab):
    guest = RoutedGuest(lab, "web2", "b1", CORRESPONDENTS["displaced"].guest, corresponding_guest(), "128MiB")
    CORRESPONDENTS["displaced"].awaits(lab, HOME_ROUTER)
    guest.move("d2", "nat")
    guest.settled_rules()
    return guest


def show(case, load, system, of_it):
    def text(metric):
        return "-" if of_it.get(metric) is None else f"{of_it[metric]:.4g}"
    say(f"  {case:<10} {load:<9} {system:<12} " + "  ".join(f"{metric.removesuffix('_ms')} {text(metric)}"
                                                            for metric in UNITS))


def measure(options):
    """Rows of the medians."""
    names = options.correspondent or (QUICK if options.quick else CORRESPONDENTS)
    correspondents = {name: CORRESPONDENTS[name] for name in names}
    loads = options.load or (("udp-1000", "ssh") if options.quick else LOADS)
    figures = {}
    turns = [(load, system, together) for load, together in rounds_of(loads, correspondents, options)
             for system in options.system or SYSTEMS]
    while turns:  # in one lab, as long as all goes well there
        with Lab(options.lab, config=DATA_CENTRE / "lab.yaml") as lab:
            prepare(lab, correspondents)
            has_failed = False
            while turns and not has_failed:
                load, system, together = turns.pop(0)
                seen = moved_or_told_why_not(lab, system, load, together, options)
                has_failed = seen is None
                for case in together:
                    of_it = seen[case] if seen else None
                    figures.setdefault((case, load, system), []).append(of_it)
                    if of_it:
                        show(case, load, system, of_it)
                        if losses := of_it["losses"]:
                            say(f"    lost, from the blackout's begin: {losses}")
    return [row for key, rounds in figures.items() for row in rows_of(*key, rounds)]


def prepare(lab, correspondents):
    wait_until(lambda: all(host["state"] != "down" for host in lab.ask(HOME, "host", "ls")), 30, "all sessions")
    lab.run(HOME, "godwit", "fabric", "set", DATA_CENTRE / "fabric.yaml")
    if "displaced" in correspondents:
        displaced_guest(lab)


def rounds_of(loads, correspondents, options):
    """(Load, the correspondents that are measured at once), of all rounds."""
    for _ in range(options.rounds or (1 if options.quick else 3)):
        for load in loads:
            names = list(correspondents)
            while names:
                yield load, {name: correspondents[name] for name in names[:AT_ONCE[load]]}
                names = names[AT_ONCE[load]:]


def rows_of(case, load, system, rounds):
    """`rounds`: the figures of each, or None of one that failed."""
    failed = rounds.count(None)
    rounds = [of_it for of_it in rounds if of_it]
    yield {"bench": "nat", "case": f"{case}/{load}", "system": system, "metric": "failed", "unit": "moves", "value": failed}
    if not rounds:
        return
    for metric, unit in UNITS.items():
        values = [of_it.get(metric) for of_it in rounds]
        row = {"bench": "nat", "case": f"{case}/{load}", "system": system, "metric": metric, "unit": unit}
        if None not in values:
            yield row | {"value": combined(metric, values)}
        elif metric == "frames_lost" and load in ("ping", "udp-1000"):
            yield row | {"value": None, "why_not": "it did not come back"}


def combined(metric, values):
    if metric == "connections_survived_percent":
        return statistics.mean(values)
    return max(values) if metric in WORST else statistics.median(values)


def judge(rows):
    """Prints a table; whether godwit-nat kept the bounds. Of those it has in common with it, so does godwit-wire."""
    value = {(row["case"], row["system"], row["metric"]): row["value"] for row in rows}
    cases = {case: None for case, _, _ in value}
    say(f"\n  {'correspondent/load':<21}{'system':<13}{'survived':>9}{'blackout':>10}{'bound':>8}{'pause':>8}"
        f"{'lost':>6}{'rules':>7}   (ms; of all rounds)")
    kept = True
    for case in cases:
        for system in SYSTEMS:
            if failed := value.get((case, system, "failed"), 0):
                kept = kept and system != "godwit-nat"
                say(f"  {case:<21}{system:<13} FAILED: {failed} of its moves")
            if (case, system, "blackout_ms") not in value:
                continue
            of_it = {metric: value.get((case, system, metric)) for metric in UNITS}
            met = of_it["connections_survived_percent"] == 100 and of_it["blackout_ms"] <= of_it["bound_ms"]
            kept = kept and (met or system != "godwit-nat")
            lost = "-" if of_it["frames_lost"] is None else f"{of_it['frames_lost']:.0f}"
            say(f"  {case:<21}{system:<13}{of_it['connections_survived_percent']:>7.0f} %{of_it['blackout_ms']:>10.1f}"
                f"{of_it['bound_ms']:>8.1f}{of_it['pause_ms']:>8.1f}{lost:>6}{of_it['rules']:>7.0f}   "
                f"{'met' if met else 'MISSED'}{in_vm(of_it, met)}")
    return kept


def in_vm(of_it, met):
    if met or of_it["in_vm_ms"] is None:
        return ""
    rest = of_it["blackout_ms"] - of_it["in_vm_ms"]
    return f"; without in_vm_ms: {max(0.0, rest):.1f}"
