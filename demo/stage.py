"""The stage of demos and benches: a lab, a vm in it, and a client that watches the vm.

    site east                                site west
      e1 (agent, the vm) --+               +-- w1 (agent)
      client (agent) ------+==== WAN ======+

Everything that is shown or measured goes through the programs a user has: `godwit`, `godwit lab`,
and the lab's client, `godwit lab probe`. What is waited for is a state, up to a deadline; the only
stretches of plain time are windows in which the client watches.
"""

import argparse
import contextlib
import json
import mmap
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOSTS = {"east": "e1", "west": "w1"}
VM, VM_PORT, CLIENT_PORT = "web", "web0", "lan0"
VM_ADDRESS, CLIENT_ADDRESS = "10.9.0.2", "10.9.0.1"
LINK = "east-west"
AGENT_LOG = "/var/log/godwitd.log"
RTT_MS = 40.0
MAX_DOWNTIME_MS = 300.0
SHORTEST_IDLE_S = 5.0

COMMAND_LIMIT_S = 60
MOVE_LIMIT_S = 120
POLL_S = 0.05
MADV_POPULATE_WRITE = 23  # Linux 5.14
WARM_BYTES = 3 << 29  # a vm of 512 MiB, and what agents keep of it


class StageError(Exception):
    """What was tried and what came of it, for the person who runs the demo."""


def build_directory():
    return pathlib.Path(os.environ.get("GODWIT_BUILD", ROOT / "build" / "release")).resolve()


def wait_until(condition, limit_s, what):
    """The first true value of condition(), which is asked again and again."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise StageError(f"{what}: not within {limit_s} s")
        time.sleep(POLL_S)
    return value


def performed(name, act):
    """The exit status of a demo or bench: 0 if act() is true, 1 if not or if it failed, 130 after Ctrl-C."""
    try:
        with ending_by_exception():
            return 0 if act() else 1
    except KeyboardInterrupt:
        print("\ninterrupted; the lab is removed", flush=True)
        return 130
    except (StageError, subprocess.TimeoutExpired) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1


def demonstrated(show):
    """As performed(); says whether show() kept every promise, and how long it took."""
    begun = time.monotonic()

    def act():
        kept = show()
        print(f"{'every promise was kept' if kept else 'A PROMISE WAS BROKEN'} "
              f"({time.monotonic() - begun:.0f} s)", flush=True)
        return kept
    return performed("demo", act)


def demo(name, description, show):
    """The main() of a demo that is told no more than its lab's name: the exit status of show(options)."""
    parser = argparse.ArgumentParser(prog=f"./dev demo {name}", description=description)
    parser.add_argument("--lab", default=f"demo-{name}", metavar="NAME", help="the lab's name")
    options = parser.parse_args()
    return demonstrated(lambda: show(options))


def all_kept(promises):
    """Prints promises, (text, value, the most it may be); whether every one was kept."""
    print("\npromises", flush=True)
    for text, value, most in promises:
        print(f"  {'kept' if value <= most else 'BROKEN':<7} {text:<52} {value:.2f} <= {most:.2f}", flush=True)
    return all(value <= most for _, value, most in promises)


def warm_memory(size):
    """Has free memory of the machine touched, about `size` bytes of it.

    A vm whose host takes free pages back within seconds (balloon, free page reporting) pays for each
    page it touches first, here 2 s per GiB instead of 0.1 (2026-11). A move fills new memory at its
    target: whoever moved first would pay, and whoever came next find the memory that he left.
    """
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with mmap.mmap(-1, min(size, available // 2), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        memory.madvise(MADV_POPULATE_WRITE)


@contextlib.contextmanager
def ending_by_exception():
    """SIGTERM and SIGHUP end the program as Ctrl-C does, so that what was made is removed."""
    def interrupt(*_):
        raise KeyboardInterrupt
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Wan:
    """Readings of the emulator: bytes both ways, and UDP datagrams it dropped for any cause."""

    bytes: int
    udp_drops: int

    def since(self, earlier):
        return Wan(self.bytes - earlier.bytes, self.udp_drops - earlier.udp_drops)


class Lab:
    """One lab. A context: what it made is removed at the end, whatever the end is."""

    def __init__(self, name, agents=True, config=None):
        self.name, self.agents, self.config = name, agents, config
        self.program = build_directory() / "bin" / "godwit"
        if not self.program.exists():
            raise StageError(f"{self.program} is not built: run ./dev build release")

    def __enter__(self):
        if self.describe()["up"]:
            raise StageError(f"the lab '{self.name}' is up already: end it with "
                             f"{self.program} lab down --name {self.name}")
        try:
            self._lab("up", *([] if self.agents else ["--no-agents"]),
                      *([] if self.config is None else [self.config]))
        except BaseException:
            self._down()
            raise
        return self

    def __exit__(self, *_):
        self._down()

    def _down(self):
        # In a session of its own: an impatient second Ctrl-C must not leave half a lab behind.
        subprocess.run(self._argv("down"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, start_new_session=True, check=False)

    def _argv(self, command, *arguments):
        return [str(self.program), "lab", command, "--name", self.name, *map(str, arguments)]

    def _lab(self, command, *arguments):
        return finished(self._argv(command, *arguments))

    def describe(self):
        return json.loads(self._lab("ls", "--json"))

    def set_link(self, *settings):
        self._lab("set", LINK, *settings)

    def cut(self, link):
        self._lab("cut", link)

    def heal(self, link):
        self._lab("heal", link)

    def command(self, host, *words):
        """The argument vector that runs `words` in a host."""
        words = [self.program if word == "godwit" else word for word in words]
        return self._argv("exec", host, "--", *words)

    def run(self, host, *words, told=""):
        return finished(self.command(host, *words), told=told)

    def ask(self, host, *words):
        """What a `godwit ... --json` in a host says."""
        return json.loads(self.run(host, "godwit", *words, "--json"))

    def start(self, host, *words, **options):
        return subprocess.Popen(self.command(host, *words), text=True, **options)

    def wan(self):
        directions = self.describe()["links"][0]["directions"]
        return Wan(bytes=sum(d["bytes"] for d in directions),
                   udp_drops=sum(cause["udp"] for d in directions for cause in d["drops"].values()))

    def cpu_s(self, host):
        """CPU seconds of all processes a host has, and of those that ended and were reaped."""
        ticks = 0
        for line in self.run(host, "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null || :").splitlines():
            ticks += sum(map(int, line.rsplit(")", 1)[1].split()[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")


def finished(argv, limit_s=COMMAND_LIMIT_S, ok=(0,), told=""):
    """The output of a command that must succeed; `told`: on its standard input."""
    done = subprocess.run(argv, input=told, capture_output=True, text=True,
                          timeout=limit_s, check=False)
    if done.returncode not in ok:
        raise StageError(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Client:
    """`godwit lab probe` in the client's host, or another: 1,000 packets per second each way, and TCP.

    `within`: words before the command, like those of bench/place.py.
    """

    def __init__(self, lab, *options, address=VM_ADDRESS, within=(), boot_limit_s=COMMAND_LIMIT_S,
                 host="client"):
        self._probe = lab.start(host, *within, "godwit", "lab", "probe", address, "--wait",
                                f"{boot_limit_s}s", *options,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                start_new_session=True)  # Ctrl-C is for us
        self._lines = queue.Queue()
        self.windows = {}
        threading.Thread(target=self._read, daemon=True).start()
        self._await("ready", boot_limit_s + 10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._probe.stdin.close()  # what runs in a guest (bench/guest_traffic.py) ends by that
        self._probe.kill()  # on SIGTERM it would ask the vm for a last report, and wait for it
        self._probe.wait()

    def _read(self):
        for line in self._probe.stdout:
            self._lines.put(json.loads(line))
        self._lines.put({"event": "error", "error": "the probe has ended"})

    def _await(self, event, limit_s):
        try:
            said = self._lines.get(timeout=limit_s)
        except queue.Empty:
            raise StageError(f"the client says nothing for {limit_s} s, {event} is due") from None
        if said["event"] != event:
            raise StageError(f"the client: {said.get('error', said)}")
        return said

    def _tell(self, line):
        self._probe.stdin.write(line + "\n")
        self._probe.stdin.flush()

    def begin(self, name):
        self._tell(f"mark {name} start")

    def end(self, name):
        self._tell(f"mark {name} end")

    def window(self, name):
        """What the client saw in the window that ended last."""
        self.windows[name] = self._await("window", COMMAND_LIMIT_S)
        return self.windows[name]

    def watch(self, name, action):
        """Runs action() in a window called `name`: (its result, what the client saw)."""
        self.begin(name)
        result = action()
        self.end(name)
        return result, self.window(name)

    def watch_idle(self, name, length_s):
        return self.watch(name, lambda: time.sleep(length_s))[1]

    def stop(self):
        """Ends the traffic; what the client saw from its first to its last packet."""
        self._tell("stop")
        return self._await("summary", COMMAND_LIMIT_S)["total"]


@dataclass
class Load:
    """What the vm is and does."""

    memory: str = "512MiB"
    dirty: str = "20mbit"
    working_set: str = "64MiB"
    initrd: pathlib.Path | None = None  # None: the lab's own
    words: str = ""                     # further ones of the kernel's command line
    disks: tuple = ()                   # as `vm run --disk` takes them

    def files(self):
        """The kernel, and its initrd."""
        kernel, initrd = guest_image()
        return kernel, self.initrd or initrd

    def append(self, mtu=1500):
        # Where the kernel unpacks itself decides whether 8 MiB of its image stay behind as pages to
        # move: at random, no two vms would be the same.
        return (f"console=ttyS0 quiet nokaslr godwit.ip={VM_ADDRESS}/24 godwit.mtu={mtu} "
                f"godwit.dirty={self.dirty} godwit.working-set={self.working_set} {self.words}").strip()


def guest_image(with_agent=False):
    directory = build_directory() / "guest"
    return directory / "vmlinuz", directory / ("initrd-agent.img" if with_agent else "initrd.img")


class Godwit:
    """The vm, its wire to the client, and its moves, with `godwit` only."""

    def __init__(self, lab, load):
        self.lab, self.load = lab, load
        self.host = HOSTS["east"]

    def start(self):
        kernel, initrd = self.load.files()
        self.lab.run(self.host, "godwit", "vm", "run", VM, "--memory", self.load.memory,
                     "--kernel", kernel, "--initrd", initrd,
                     "--append", self.load.append(),
                     *(word for disk in self.load.disks for word in ("--disk", disk)),
                     "--nic", VM_PORT)
        self.lab.run("client", "godwit", "port", "add", CLIENT_PORT, "--uplink",
                     "--address", f"{CLIENT_ADDRESS}/24")
        self.lab.run("client", "godwit", "connect", CLIENT_PORT, VM_PORT)
        wait_until(lambda: self.wire()["state"] == "up", COMMAND_LIMIT_S, "the wire comes up")

    def wire(self):
        return self.lab.ask("client", "wire", "ls")[0]

    def vm(self):
        return next(vm for vm in self.lab.ask(self.host, "vm", "ls") if vm["name"] == VM)

    def qemu_argv(self):
        return self.lab.run(self.host, "cat", f"/proc/{self.vm()['pid']}/cmdline").split("\0")[:-1]

    def move(self, host, progress=None, options=(), limit_s=MOVE_LIMIT_S):
        """Moves the vm; returns (the migration as the agent tells it, the CLI's text).

        `progress`: where the CLI's live progress goes, None = to this terminal. After `limit_s` the
        move is aborted: subprocess.TimeoutExpired.
        """
        moving = self.lab.start(self.host, "godwit", "migrate", VM, "--to", host,
                                "--max-downtime", f"{MAX_DOWNTIME_MS:.0f}ms", *options,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=progress)
        try:
            text, _ = moving.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            moving.terminate()
            moving.wait(COMMAND_LIMIT_S)  # until the vm goes on at the source
            raise
        except BaseException:
            moving.terminate()
            raise
        if moving.returncode != 0:
            raise StageError(f"godwit migrate ended with status {moving.returncode}\n{text}")
        move_id = text.split("(migration ", 1)[1].split(")", 1)[0]
        migration = self.lab.ask(self.host, "migration", "show", move_id)
        self.host = host
        return migration, text

    def stop(self):
        self.lab.run("client", "godwit", "disconnect", CLIENT_PORT, VM_PORT)
        self.lab.run("client", "godwit", "port", "rm", CLIENT_PORT)
        self.lab.run(self.host, "godwit", "vm", "stop", VM, "--force")
        self.lab.run(self.host, "godwit", "vm", "purge", VM)


WAYS = ("to_vm", "from_vm")


@dataclass
class Move:
    """One move: what the mover says, what the client saw, and what it cost."""

    case: str
    system: str
    total_s: float
    pause_ms: float
    window: dict  # of the move, as the probe tells it
    idle: dict    # an equally long one without a move
    wan: Wan
    cpu_s: dict   # by host
    report: dict = field(default_factory=dict)

    @property
    def blackout_ms(self):
        return max(gaps_ms(self.window).values())

    @property
    def in_vm_ms(self):
        """The part of the blackout in which the vm ran, by its own clock, and sent nothing."""
        gap = max((self.window[way]["gap"] for way in WAYS), key=lambda gap: gap["ms"])
        return min(gap["in_vm_ms"], gap["ms"])  # what it sends late may come closer together

    @property
    def idle_gap_ms(self):
        return max(gaps_ms(self.idle).values())

    @property
    def blackout_limit_ms(self):
        """As a guest can keep that answers at once when it resumes."""
        return self.pause_ms + RTT_MS + max(10.0, self.idle_gap_ms)

    @property
    def blackout_promise_ms(self):
        """Without KVM a guest cannot: QEMU translates the code it runs anew, which takes 50 to 90 ms."""
        return max(self.blackout_limit_ms, self.pause_ms + RTT_MS + self.in_vm_ms)

    def frames(self, fate):
        """`fate`: lost, duplicated or reordered; both ways."""
        return sum(self.window[way][fate] or 0 for way in WAYS)

    @property
    def resets(self):
        return self.window["tcp"]["resets"] + self.window["tcp"]["mismatches"]

    @property
    def rto(self):
        return self.window["tcp"]["rto_client"] + (self.window["tcp"]["rto_vm"] or 0)

    @property
    def counter_jumps(self):
        guest = self.window["guest"] or {"counter_damaged": 0, "pages_damaged": 0}
        return self.window["counter_jumps"] + guest["counter_damaged"] + guest["pages_damaged"]

    def rows(self, bench):
        values = {"total_s": (self.total_s, "s"), "pause_ms": (self.pause_ms, "ms"),
                  "blackout_ms": (self.blackout_ms, "ms"), "idle_gap_ms": (self.idle_gap_ms, "ms"),
                  "in_vm_ms": (self.in_vm_ms, "ms"),
                  "frames_lost": (self.frames("lost"), "frames"),
                  "frames_duplicated": (self.frames("duplicated"), "frames"),
                  "frames_reordered": (self.frames("reordered"), "frames"),
                  "resets": (self.resets, "connections"), "rto": (self.rto, "time-outs"),
                  "wan_bytes": (self.wan.bytes, "bytes"), "cpu_s": (sum(self.cpu_s.values()), "s")}
        return [{"bench": bench, "case": self.case, "system": self.system, "metric": metric,
                 "value": value, "unit": unit} for metric, (value, unit) in values.items()]


def gaps_ms(window):
    return {way: window[way]["gap"]["ms"] for way in WAYS}


def measure(lab, client, case, system, move):
    """Measures move(), which returns (total_s, pause_ms, report), and an equal window after it."""
    warm_memory(WARM_BYTES)
    wan, cpu = lab.wan(), {host: lab.cpu_s(host) for host in HOSTS.values()}
    (total_s, pause_ms, report), window = client.watch(case, move)
    wan = lab.wan().since(wan)
    cpu = {host: lab.cpu_s(host) - before for host, before in cpu.items()}
    idle = client.watch_idle(f"{case}-idle", max(SHORTEST_IDLE_S, window["length_ms"] / 1000))
    return Move(case, system, total_s, pause_ms, window, idle, wan, cpu, report)


def write_rows(path, rows):
    pathlib.Path(path).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
