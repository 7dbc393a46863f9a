"""A guest that moves to another network under traffic, by several systems in turn: what `./dev bench nat --part moves`
and `./dev bench mobility` have in common.

Each load is measured by itself (guest_traffic.py), from as many correspondents at once as the guest's emulated CPU has
time for. A correspondent and a load are a case.

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
  rules          at all hosts and devices for this guest when its move has settled
  failed         moves of which there is no figure: they failed, or no traffic was to be had before
  throughput_mbit_s, throughput_ratio   of iperf3: before, and what became of it in the second half of the time after
                 the move (with --quick: in all of it)
  bound_ms       what the blackout may be: pause_ms + rtt_ms + max(10, idle_gap_ms)
"""

import pathlib
import statistics
import subprocess
import time
from dataclasses import dataclass, field

from component_moves import drops
from guest_programs import PROGRAMS, serving_guest
from guest_systems import RoutedGuest
from guest_traffic import AT_ONCE, Traffic
from stage import AGENT_LOG, Lab, StageError, guest_image, wait_until, warm_memory

SERVING_MEMORY = "128MiB"
WORDS = "godwit.dirty=5mbit godwit.working-set=8MiB"
IDLE_S, QUICK_IDLE_S = 4.0, 2.0
AFTER_S, QUICK_AFTER_S = 6.0, 3.0  # of the window, behind the move
WARM_BYTES = 1 << 28
UNITS = {"connections_survived_percent": "%", "blackout_ms": "ms", "idle_gap_ms": "ms", "in_vm_ms": "ms",
         "pause_ms": "ms", "rtt_ms": "ms", "frames_lost": "frames", "idle_lost": "frames", "dropped": "frames",
         "rules": "rules", "bound_ms": "ms", "throughput_mbit_s": "Mbit/s", "throughput_ratio": ""}
WORST = ("frames_lost", "idle_lost", "dropped", "rules")  # of all rounds; of the rest the median
NUMBERED = ("ping", "udp-1000")
PLAIN = ("ping", "udp-1000", "ssh")  # their round trips are the way's, not a service's


def say(text):
    print(text, flush=True)


@dataclass
class Scene:
    """What a bench moves, from where to where, and who looks at it."""

    bench: str
    lab: pathlib.Path
    fabric: pathlib.Path
    names: object            # of guests, one after the other: (name, address)
    home: str
    target: str
    vm_hosts: tuple          # whose wires may lose frames
    correspondents: dict
    systems: dict
    judged: str              # the system that is to keep the bounds
    loads: tuple
    quick: tuple             # correspondents, with --quick
    quick_loads: tuple = ("udp-1000", "ssh")
    units: dict = field(default_factory=dict)  # of the systems' own figures, beside UNITS
    prepare: object = lambda lab, correspondents: None  # further, in a lab that is up

    def guest(self, lab, load, system):
        """That is booted for a move under a load."""
        name, address = next(self.names)
        words = f"{WORDS} {system.words}"
        options = ("--guest-agent",) if system.with_agent else ()
        if load not in PROGRAMS:
            memory = SERVING_MEMORY if system.with_agent else "96MiB"
            return RoutedGuest(lab, name, self.home, address, guest_image(system.with_agent)[1], memory, words, options)
        return RoutedGuest(lab, name, self.home, address, serving_guest(load, system.with_agent), SERVING_MEMORY,
                           f"{words} bench.serves={load}", options)

    def make(self, lab, correspondents):
        wait_until(lambda: all(host["state"] != "down" for host in lab.ask(self.home, "host", "ls")), 30,
                   "all sessions")
        lab.run(self.home, "godwit", "fabric", "set", self.fabric)
        self.prepare(lab, correspondents)


def figures_of(seen, idle, report, rules):
    rtt_ms = idle.rtt_ms or 0.0
    return {"connections_survived_percent": 100.0 * seen.survived, "blackout_ms": seen.gap_ms,
            "idle_gap_ms": idle.gap_ms, "in_vm_ms": seen.in_vm_ms, "pause_ms": report["pause_ms"], "rtt_ms": rtt_ms,
            "throughput_mbit_s": idle.mbit_s, "throughput_ratio": seen.mbit_s / idle.mbit_s if idle.mbit_s else None,
            "losses": seen.losses, "frames_lost": seen.lost, "idle_lost": idle.lost, "rules": rules,
            "bound_ms": report["pause_ms"] + rtt_ms + max(10.0, idle.gap_ms)}


def moved(scene, lab, system, load, correspondents, options):
    """Figures by correspondent, of one move of a vm that is booted for it."""
    guest = scene.guest(lab, load, scene.systems[system])
    after_s = QUICK_AFTER_S if options.quick else AFTER_S
    with Traffic(lab, load, correspondents, guest.address, scene.systems[system].flows) as traffic:
        mover = scene.systems[system](lab, guest, scene.target)
        warm_memory(WARM_BYTES)
        traffic.watch("idle", lambda: time.sleep(QUICK_IDLE_S if options.quick else IDLE_S))

        def move():
            report = mover.move()
            time.sleep(after_s)
            return report
        dropped = drops(lab, scene.vm_hosts)
        report = traffic.watch("move", move)
        dropped = sum((drops(lab, scene.vm_hosts) - dropped).values()) + report["held"]["dropped"]
        settled = traffic.watch("settled", lambda: mover.settled(correspondents)) if scene.units else {}
        idle, seen = traffic.seen("idle"), traffic.seen("move")
        after = traffic.seen("settled") if scene.units else {}
        rules = mover.rules()
    mover.clean()
    return {who: figures_of(seen[who], idle[who], report, rules) | {"dropped": dropped} |
            (of_mover(settled[who], after[who], load) if scene.units else {}) for who in correspondents}


def of_mover(settled, after, load):
    """A system's own figures; of `fresh_rtt_ms`, to where the guest is now, follows how long the old way is."""
    own = {metric: value for metric, value in settled.items() if metric != "fresh_rtt_ms"}
    fresh = settled.get("fresh_rtt_ms")
    if fresh is None or load not in PLAIN:
        return own
    return own | {"path_stretch": after.rtt_ms / fresh if after.survived and after.rtt_ms else None}


def moved_or_told_why_not(scene, lab, *what):
    """Figures, or None and the end of the logs of both agents."""
    try:
        return moved(scene, lab, *what)
    except (StageError, subprocess.TimeoutExpired) as error:
        say(f"  {what[1]}, {what[0]}: failed: {error}")
        for host in (scene.home, scene.target):
            say(f"---- {host} ----\n{lab.run(host, 'tail', '-n', '40', AGENT_LOG)}")
        return None


def show(scene, case, load, system, of_it):
    def text(metric):
        return "-" if of_it.get(metric) is None else f"{of_it[metric]:.4g}"
    say(f"  {case:<10} {load:<9} {system:<21} " + "  ".join(f"{metric.removesuffix('_ms')} {text(metric)}"
                                                            for metric in UNITS | scene.units))


def measure(scene, options):
    """Rows of the medians."""
    names = options.correspondent or (scene.quick if options.quick else scene.correspondents)
    correspondents = {name: scene.correspondents[name] for name in names}
    loads = options.load or (scene.quick_loads if options.quick else scene.loads)
    figures = {}
    turns = [(load, system, together) for load, together in rounds_of(loads, correspondents, options)
             for system in options.system or scene.systems if load in (scene.systems[system].loads or loads)]
    while turns:  # in one lab, as long as all goes well there
        with Lab(options.lab, config=scene.lab) as lab:
            scene.make(lab, correspondents)
            has_failed = False
            while turns and not has_failed:
                load, system, together = turns.pop(0)
                seen = moved_or_told_why_not(scene, lab, system, load, together, options)
                has_failed = seen is None
                for case in together:
                    of_it = seen[case] if seen else None
                    figures.setdefault((case, load, system), []).append(of_it)
                    if of_it:
                        show(scene, case, load, system, of_it)
                        if losses := of_it["losses"]:
                            say(f"    lost, from the blackout's begin: {losses}")
    return [row for key, rounds in figures.items() for row in rows_of(scene, *key, rounds)]


def rounds_of(loads, correspondents, options):
    """(Load, the correspondents that are measured at once), of all rounds."""
    for _ in range(options.rounds or (1 if options.quick else 3)):
        for load in loads:
            names = list(correspondents)
            while names:
                yield load, {name: correspondents[name] for name in names[:AT_ONCE[load]]}
                names = names[AT_ONCE[load]:]


def rows_of(scene, case, load, system, rounds):
    """`rounds`: the figures of each, or None of one that failed."""
    def row(metric, unit, **told):
        return {"bench": scene.bench, "case": f"{case}/{load}", "system": system, "metric": metric, "unit": unit} | told
    failed = rounds.count(None)
    rounds = [of_it for of_it in rounds if of_it]
    yield row("failed", "moves", value=failed)
    if not rounds:
        return
    for metric, unit in (UNITS | scene.units).items():
        values = [of_it.get(metric) for of_it in rounds]
        if None not in values:
            yield row(metric, unit, value=combined(metric, values))
        elif metric == "frames_lost" and load in NUMBERED or any(metric in of_it for of_it in rounds) and metric in scene.units:
            yield row(metric, unit, value=None, why_not="it did not come back")


def combined(metric, values):
    if metric == "connections_survived_percent":
        return statistics.mean(values)
    return max(values) if metric in WORST else statistics.median(values)


def judge(scene, rows):
    """Prints a table; whether the system that is judged kept the bounds. Of those it has in common with it, so does
    godwit-wire."""
    value = {(row["case"], row["system"], row["metric"]): row["value"] for row in rows}
    cases = {case: None for case, _, _ in value}
    say(f"\n  {'correspondent/load':<21}{'system':<21}{'survived':>9}{'blackout':>10}{'bound':>8}{'pause':>8}"
        f"{'lost':>6}{'rules':>7}   (ms; of all rounds)")
    kept = True
    for case in cases:
        for system in scene.systems:
            if failed := value.get((case, system, "failed"), 0):
                kept = kept and system != scene.judged
                say(f"  {case:<21}{system:<21} FAILED: {failed} of its moves")
            if (case, system, "blackout_ms") not in value:
                continue
            of_it = {metric: value.get((case, system, metric)) for metric in UNITS}
            met = of_it["connections_survived_percent"] == 100 and of_it["blackout_ms"] <= of_it["bound_ms"]
            kept = kept and (met or system != scene.judged)
            lost = "-" if of_it["frames_lost"] is None else f"{of_it['frames_lost']:.0f}"
            say(f"  {case:<21}{system:<21}{of_it['connections_survived_percent']:>7.0f} %{of_it['blackout_ms']:>10.1f}"
                f"{of_it['bound_ms']:>8.1f}{of_it['pause_ms']:>8.1f}{lost:>6}{of_it['rules']:>7.0f}   "
                f"{'met' if met else 'MISSED'}{in_vm(of_it, met)}")
    return kept


def in_vm(of_it, met):
    if met or of_it["in_vm_ms"] is None:
        return ""
    rest = of_it["blackout_ms"] - of_it["in_vm_ms"]
    return f"; without in_vm_ms: {max(0.0, rest):.1f}"


def add_options(parser, scene, lab_name):
    for what, choices in (("correspondent", scene.correspondents), ("load", scene.loads), ("system", scene.systems)):
        parser.add_argument(f"--{what}", action="append", choices=choices,
                            help="of moves: only this one; repeat for more")
    parser.add_argument("--rounds", type=int, metavar="N", help="of moves")
    parser.add_argument("--lab", default=lab_name, metavar="NAME", help="the lab's name")
    parser.add_argument("--json", metavar="FILE", help="write the figures as rows")
