#!/usr/bin/python3
"""The memory of one vm over a WAN: Godwit against QEMU as operators set it up (bench/stock.py).

    client (load, watching) --- e1 (the vm)  ==( WAN )==  w1

Guests are Debian (bench/debian_guest.py) at one of: `idle`; `redis`, which the client writes to; `compile`;
`dirtier`, the lab's own, with a known rate. In each case Godwit boots the vm and moves it once, then stock
does for all its configurations: there over the case's link, which is measured, and back over a quick one.

  completed   0: not within the bound, whatever is done about it (auto-converge, --on-diverge pause)
  total_s     from preparing the target until the vm runs there and the source has completed
  pause_ms    the vCPUs stand; as Godwit reports it, and from STOP to RESUME of stock's QEMUs
  blackout_ms the longest gap in 200 packets a second, from or to the client
  wan_bytes   all frames on the link between the sites, both ways, from the command to the end
  cpu_s       Godwit's agents at both ends, and QEMU's migration threads, with the main thread at the target
  rss_mib     by which agents and the source's QEMU grew

Exit status 1 if Godwit did not complete a case that a QEMU completed.
"""

import argparse
import contextlib
import itertools
import pathlib
import subprocess
import sys
from dataclasses import dataclass, fields

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))

from debian_guest import READY_PORT, REDIS_PORT, debian_guest  # noqa: E402
from postcopy import single_pages  # noqa: E402
from stage import (HOSTS, VM_ADDRESS, Client, Godwit, Lab, Load, StageError, gaps_ms,  # noqa: E402
                   performed, wait_until, warm_memory, write_rows)
from stock import NotConverged, Settings, Stock  # noqa: E402
from usage import PYTHON, Usage  # noqa: E402

WORKLOADS = ("idle", "redis", "compile", "dirtier")
LINKS = {  # each queue holds a round trip
    "100mbit-80ms": ("rate=100mbit", "delay=40ms", "queue=80ms"),
    "465mbit-27ms": ("rate=465mbit", "delay=13500us", "queue=27ms"),
    "1gbit-10ms": ("rate=1gbit", "delay=5ms", "queue=10ms"),
}
QUICK_LINK = ("rate=unlimited", "delay=0ms", "loss=0%")
LOSSES = ("0%", "0.1%")
XBZRLE_512 = {"xbzrle-cache-size": 512 << 20}
QEMUS = {
    "qemu-plain": Settings(),
    "qemu-xbzrle64": Settings(("xbzrle",), {"xbzrle-cache-size": 64 << 20}),
    "qemu-xbzrle512": Settings(("xbzrle",), XBZRLE_512),
    "qemu-multifd-zstd": Settings(("multifd",), {"multifd-channels": 4, "multifd-compression": "zstd"}),
    "qemu-autoconverge": Settings(("auto-converge", "xbzrle"), XBZRLE_512),
    "qemu-postcopy": Settings(("postcopy-ram",)),
}
POSTCOPY = "godwit-postcopy"  # of the dirtier: where no pre-copy may converge
SYSTEMS = ("godwit", POSTCOPY, *QEMUS)
BACK = "godwit-back"  # the same vm, at once, to where it came from
# What brings the vm back must only end.
RETURN = Settings(("auto-converge",), {"downtime-limit": 5000})
QUICK = {"workloads": ("idle", "redis"), "links": ("465mbit-27ms",), "losses": ("0%",),
         "systems": ("godwit", "qemu-plain", "qemu-xbzrle512", "qemu-multifd-zstd")}
BOOT_LIMIT_S = 300
WARM_BYTES = 3 << 30
PROBE = ("--rate", "200", "--connections", "0")
AGREE_WITHIN = 0.08  # headers of TCP, IP and TLS are 4 to 6 %
UNITS = {"completed": "bool", "total_s": "s", "pause_ms": "ms", "blackout_ms": "ms", "wan_bytes": "bytes",
         "cpu_s": "s", "rss_mib": "MiB"}


def say(text=""):
    print(text, flush=True)


@dataclass(frozen=True)
class Case:
    workload: str
    link: str
    loss: str

    def __str__(self):
        return f"{self.workload}/{self.link}/{self.loss}"

    def set_link(self, lab):
        lab.set_link(*LINKS[self.link], f"loss={self.loss}")


@dataclass(frozen=True)
class Figures:
    """Of one move; nothing but `completed` of one that was given up."""

    completed: int
    total_s: float | None = None
    pause_ms: float | None = None
    blackout_ms: float | None = None
    wan_bytes: int | None = None
    cpu_s: float | None = None
    rss_mib: float | None = None

    def values(self):
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        return {metric: value for metric, value in told.items() if value is not None}

    def rows(self, case, system):
        return [{"bench": "memory", "case": str(case), "system": system, "metric": metric, "value": value,
                 "unit": UNITS[metric]} for metric, value in self.values().items()]


@dataclass(frozen=True)
class Scale:
    """How much of everything, and how long for a move."""

    memory: str = "1GiB"
    redis_mib: int = 200
    writes_per_second: int = 1000
    limit_s: int = 120

    def load(self, workload):
        if workload == "dirtier":  # more than the slowest link carries
            return Load(memory=self.memory, dirty="160mbit", working_set="128MiB")
        return Load(memory=self.memory, dirty="0bit", working_set="1MiB", initrd=debian_guest(workload),
                    words=f"bench.workload={workload}")


class Bench:
    def __init__(self, lab_name, scale, systems):
        self.lab_name, self.scale, self.systems = lab_name, scale, systems
        self.figures = {}  # by case and system
        self.shown = set()  # whose commands were

    def run(self, case):
        load = self.scale.load(case.workload)
        say(f"\n{case}")
        with Lab(self.lab_name) as lab:
            case.set_link(lab)
            godwit = Godwit(lab, load)
            godwit.start()
            argv = godwit.qemu_argv()
            if ours := [system for system in ("godwit", POSTCOPY) if self.measures(system, case)]:
                with at_work(lab, self.scale, case.workload) as client:
                    if "godwit" in ours:
                        self._godwit(lab, client, case, godwit)
                    if POSTCOPY in ours:
                        self._postcopy(lab, client, case, godwit)
        if peers := [system for system in self.systems if system in QEMUS]:
            with Lab(self.lab_name, agents=False) as lab:
                self._peers(lab, case, Stock(lab, load, argv), peers)

    def measures(self, system, case):
        return system in self.systems and (system != POSTCOPY or case.workload == "dirtier")

    def _move(self, godwit, host, *options):
        """(total_s, pause_ms, report); None if it was not done in time."""
        try:
            report = godwit.move(HOSTS[host], progress=subprocess.DEVNULL, options=options,
                                 limit_s=self.scale.limit_s)[0]["report"]
        except subprocess.TimeoutExpired:
            return None
        return report["total_ms"] / 1000, report["pause_ms"], report

    def _godwit(self, lab, client, case, godwit):
        say(f"  godwit migrate --to {HOSTS['west']} --on-diverge pause; and back")
        report = self._keep(lab, client, case, "godwit", lambda: self._move(godwit, "west", "--on-diverge", "pause"))
        if report:
            say_pause(report)
            counted, told = self.figures[case, "godwit"].wan_bytes, report["bytes"]["wan"]
            if abs(told / counted - 1) > AGREE_WITHIN:
                say(f"    its report has {told / 1e6:.1f} MB over the WAN, {told / counted:.3f} of the link's count")
            self._way_back(lab, client, case, godwit)

    def _postcopy(self, lab, client, case, godwit):
        options = ("--on-diverge", "postcopy", "--no-known")
        say(f"  godwit migrate --to {HOSTS['west']} {' '.join(options)}")
        with single_pages():
            report = self._keep(lab, client, case, POSTCOPY, lambda: self._move(godwit, "west", *options))
        if report:
            say_pause(report)

    def _way_back(self, lab, client, case, godwit):
        """At once, to a host that still knows most of it."""
        if report := self._keep(lab, client, case, BACK, lambda: self._move(godwit, "east", "--on-diverge", "pause")):
            say_pause(report)
            there, back = (self.figures[case, system].wan_bytes for system in ("godwit", BACK))
            say(f"    {back / there:.2f} of the bytes of the way there")

    def _peers(self, lab, case, stock, peers):
        stock.start()
        try:
            with at_work(lab, self.scale, case.workload) as client:
                for system in peers:
                    case.set_link(lab)
                    self._peer(lab, client, case, system, stock)
                    if stock.host != HOSTS["east"]:
                        lab.set_link(*QUICK_LINK)
                        stock.move(HOSTS["east"], RETURN)
                        stock.end_source()
        finally:
            stock.stop()

    def _peer(self, lab, client, case, system, stock):
        stock.commands.clear()

        def move():
            try:
                return stock.move(HOSTS["west"], QEMUS[system], self.scale.limit_s)
            except NotConverged:
                return None

        if self._keep(lab, client, case, system, move):
            stock.end_source()
        if system not in self.shown:
            self.shown.add(system)
            for line in stock.commands:
                say(f"      {line}")

    def _keep(self, lab, client, case, system, move):
        """Measures move(), which returns (total_s, pause_ms, report), or None if it was given up."""
        warm_memory(WARM_BYTES)

        def counted():
            with Usage(lab, HOSTS["east"], HOSTS["west"]) as usage:
                before = lab.wan()
                result = move()
                return result, lab.wan().since(before).bytes, usage

        (result, wan_bytes, usage), window = client.watch(system, counted)
        if result:
            total_s, pause_ms, report = result
            figures = Figures(1, total_s, pause_ms, max(gaps_ms(window).values()), wan_bytes, usage.cpu_s(),
                              usage.rss_mib())
        else:
            report, figures = None, Figures(0)
        self.figures[case, system] = figures
        say(f"  {system:<18} " + "  ".join(f"{k} {v:.6g}" for k, v in figures.values().items()))
        return report

    def rows(self):
        return [row for (case, system), figures in self.figures.items() for row in figures.rows(case, system)]


@contextlib.contextmanager
def at_work(lab, scale, workload):
    """The client; meanwhile the vm is at work."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(lab, *PROBE, boot_limit_s=BOOT_LIMIT_S))
        if workload != "dirtier":
            wait_until(lambda: accepts(lab, READY_PORT), BOOT_LIMIT_S, "the workload starts")
        if workload == "redis":
            load = lab.start("client", PYTHON, "-c", (ROOT / "bench" / "redis_load.py").read_text("utf-8"),
                             VM_ADDRESS, str(REDIS_PORT), str(scale.redis_mib),
                             str(scale.writes_per_second), stdout=subprocess.PIPE)
            stack.callback(load.wait)
            stack.callback(load.kill)
            if not load.stdout.readline():
                raise StageError("the client's load has ended")
        yield client


def accepts(lab, port):
    program = f"import socket; socket.create_connection(('{VM_ADDRESS}', {port}), 5)"
    try:
        lab.run("client", PYTHON, "-c", program)
    except StageError:
        return False
    return True


def say_pause(report):
    parts = ", ".join(f"{name.removesuffix('_ms')} {ms:.0f}" for name, ms in report["pause"].items())
    say(f"    pause: {parts}; predicted {report['prediction']['pause_ms']:.0f} ms; {len(report['rounds'])} rounds")


def best(of_case, metric):
    """Of the QEMUs that finished; None if none did."""
    return min((getattr(figures, metric) for system, figures in of_case.items()
                if system in QEMUS and figures.completed), default=None)


def show_case(case, of_case):
    say(f"\n{str(case):<32}{'total_s':>9}{'of best':>8}{'wan_MB':>9}{'of best':>8}{'pause_ms':>10}"
        f"{'blackout_ms':>13}{'cpu_s':>7}{'rss_mib':>9}")
    time, size = best(of_case, "total_s"), best(of_case, "wan_bytes")
    for system, it in of_case.items():
        if not it.completed:
            say(f"  {system:<30}  not completed within the bound")
            continue
        say(f"  {system:<30}{it.total_s:>9.2f}{ratio(it.total_s, time):>8}{it.wan_bytes / 1e6:>9.1f}"
            f"{ratio(it.wan_bytes, size):>8}{it.pause_ms:>10.0f}{it.blackout_ms:>13.0f}{it.cpu_s:>7.2f}"
            f"{it.rss_mib:>9.1f}")


def ratio(value, to):
    return f"{value / to:.3f}" if to else "-"


def judge(by_case):
    """Shows the tables; whether Godwit completed what any QEMU did."""
    lost = []
    for case, of_case in by_case.items():
        show_case(case, of_case)
        if "godwit" in of_case and not of_case["godwit"].completed and best(of_case, "total_s") is not None:
            lost.append(str(case))
    if lost:
        say(f"\nMISSED: Godwit did not complete {', '.join(lost)}")
    return not lost


def cases_of(options):
    quick = QUICK if options.quick else {}
    for words in itertools.product(quick.get("workloads", WORKLOADS), quick.get("links", LINKS),
                                   quick.get("losses", LOSSES)):
        if options.case in str(case := Case(*words)):
            yield case


def run(options):
    scale = Scale(memory="512MiB", redis_mib=64, limit_s=60) if options.quick else Scale()
    systems = options.system or (QUICK["systems"] if options.quick else SYSTEMS)
    bench = Bench(options.lab, scale, systems)
    by_case = {}
    try:
        for case in cases_of(options):
            bench.run(case)
            by_case[case] = {system: bench.figures[case, system] for system in systems if bench.measures(system, case)}
    finally:
        if options.json:
            write_rows(options.json, bench.rows())
    if not by_case:
        raise StageError(f"no case has '{options.case}' in its name WORKLOAD/LINK/LOSS")
    say("\nof best: as a multiple of the best QEMU that finished; cpu_s: Godwit's agents and QEMU's migration "
        "threads, not the vCPU; rss_mib: growth of agents and of the source's QEMU")
    return judge(by_case)


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench memory", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="idle and redis, one link, three QEMUs, 512 MiB")
    parser.add_argument("--json", metavar="FILE", help="write all figures as rows")
    parser.add_argument("--case", metavar="TEXT", default="",
                        help="only cases with TEXT in WORKLOAD/LINK/LOSS, like redis/465mbit-27ms/0%%")
    parser.add_argument("--system", action="append", choices=SYSTEMS, help="only this one; may be repeated")
    parser.add_argument("--lab", default="bench-memory", metavar="NAME", help="the lab's name")
    return parser.parse_args()


def main():
    options = arguments()
    return performed("bench memory", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
