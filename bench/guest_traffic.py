"""What correspondents of a guest that moves send it and get back, for `./dev bench nat` and `bench mobility`.

  ping       ICMP every 10 ms
  udp-1000   1,000 datagrams a second each way, and as many echoes, numbered: `godwit lab probe`
  ssh        a long TCP connection: 80 bytes every 20 ms, which the guest echoes; each byte is looked at
  bulk       a TCP connection that sends as fast as the guest echoes, up to 1 MiB ahead of it
  redis, iperf3   guest_services.py

The correspondent `displaced` is a guest that has moved before, which runs what a host runs: guest_programs.py.
"""

import dataclasses
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from guest_programs import IPERF_PORTS, SHELL_PORT
from guest_seen import ALIVE_MS, Seen, median, silence
from guest_services import Iperf, Redis
from stage import Client, StageError, wait_until

PING_S = 0.01
ANSWER_LIMIT_S = 60
SETTLE_S = 2


@dataclass
class Correspondent:
    """Where the traffic begins: a host of the lab, or a guest that is reached from there."""

    host: str
    guest: str | None = None  # its address
    iperf_port: int = IPERF_PORTS[0]  # of the server that is its own
    behind: str | None = None  # the router by whose address others know it

    def within(self):
        """Words that a command has before it."""
        if self.guest is None:
            return ()
        return ("sh", "-c", f'{{ echo "$*"; exec cat; }} | exec busybox nc {self.guest} {SHELL_PORT}', "sh")

    def awaits(self, lab, address):
        """Waits until it is answered."""
        def answered():
            process = lab.start(self.host, *self.within(), "ping", "-c", "1", "-W", "1", address,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            return "time=" in process.communicate(timeout=20)[0]
        wait_until(answered, ANSWER_LIMIT_S, f"{address}'s answer to {self.guest or self.host}")


class Probed:
    """Traffic of the probe."""

    def __init__(self, lab, who, address, options):
        self._client = Client(lab, *options, "--settle", f"{SETTLE_S}s", address=address, host=who.host,
                              within=who.within())

    def begin(self, name):
        self._client.begin(name)

    def end(self, name):
        self._client.end(name)

    def stop(self):
        self._client.__exit__()

    def seen(self, name):
        return self.of(self._client.window(name))


class Datagrams(Probed):
    def __init__(self, lab, who, address):
        super().__init__(lab, who, address, ("--rate", "1000", "--connections", "0"))

    @staticmethod
    def of(window):
        ends_ns = window["start_unix_ns"] + window["length_ms"] * 1e6
        gap = max((window[way]["gap"] for way in ("to_vm", "from_vm")), key=lambda each: each["ms"])
        there = window["to_vm"]["lost"]
        survived = gap["at_unix_ns"] + gap["ms"] * 1e6 < ends_ns - 1e6 or gap["ms"] < ALIVE_MS
        lost = None if there is None or not survived else there + window["from_vm"]["lost"]
        return Seen(gap["ms"], survived, window["rtt"]["median_ms"], lost, min(gap["in_vm_ms"], gap["ms"]),
                    losses_of(window, gap["at_unix_ns"]))


def losses_of(window, gap_ns):
    """For who asks where frames went: how many, of which, how long after the gap began."""
    lists = {"there": window["to_vm"].get("losses", ()), "back": window["from_vm"].get("losses", ()),
             "echoes": window["from_vm"].get("losses_of_echoes", ())}
    return ", ".join(f"{loss['count']} {way} at {(loss['at_unix_ns'] - gap_ns) / 1e6:+.0f} ms"
                     for way, losses in lists.items() for loss in losses)


class Stream(Probed):
    """One TCP connection, and ten datagrams a second that tell the round trip."""

    def __init__(self, lab, who, address, every, size):
        super().__init__(lab, who, address, ("--rate", "10", "--connections", "1", "--tcp-every", every,
                                             "--tcp-bytes", f"{size}"))

    @staticmethod
    def of(window):
        tcp = window["tcp"]
        broken = tcp["silent"] + tcp["resets"] + tcp["mismatches"]
        return Seen(tcp["stall_ms"], broken == 0, window["rtt"]["median_ms"])


class Ping:
    """Answers are as old as they were when their line was read; of a host's, when ping had them."""

    LINE = re.compile(r"(?:\[(\d+\.\d+)\] )?.*seq=(\d+) .*time=([0-9.]+) ms")

    def __init__(self, lab, who, address):
        self._process = lab.start(who.host, *who.within(), *self.command(who, address),
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._answers = []  # (time, number, round trip in ms)
        self._windows = {}
        threading.Thread(target=self._read, daemon=True).start()
        wait_until(lambda: self._answers, ANSWER_LIMIT_S, f"the first answer to {who.guest or who.host}")

    @staticmethod
    def command(who, address):
        words = ("-D",) if who.guest is None else ()  # busybox has no -D
        return "ping", *words, "-i", f"{PING_S}", address

    def _read(self):
        for line in self._process.stdout:
            if found := self.LINE.search(line):
                at, number, took = found.groups()
                self._answers.append((float(at) if at else time.time(), int(number), float(took)))

    def begin(self, name):
        self._windows[name] = [time.time(), None]

    def end(self, name):
        self._windows[name][1] = time.time()

    def seen(self, name):
        return self.of(list(self._answers), *self._windows[name])

    @staticmethod
    def of(answers, begun, ended):
        gap_ms, survived = silence([at for at, _, _ in answers if begun <= at < ended], begun, ended)
        if not survived:
            return Seen(gap_ms, False)
        numbers = {number for _, number, _ in answers}
        inside = sorted(number for at, number, _ in answers if begun <= at < ended)
        took = median([ms for at, _, ms in answers if begun <= at < ended])
        return Seen(gap_ms, True, took, len(set(range(inside[0], inside[-1] + 1)) - numbers))

    def stop(self):
        self._process.stdin.close()  # what runs in a guest ends by that
        self._process.kill()
        self._process.wait()


class Multipath(Ping):
    """The load ssh by one connection of MPTCP, to the guest's port for these: its kernel takes what paths it is offered."""

    CLIENT = """
import socket, sys, threading, time
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
for tries in range(300):  # a guest answers pings before it serves
    try:
        s.connect((sys.argv[1], 7009))
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
sent = {}
def read():
    for line in s.makefile():
        number, now = int(line), time.time()
        print(f'[{now:.6f}] seq={number} time={1000 * (now - sent.pop(number)):.3f} ms', flush=True)
threading.Thread(target=read, daemon=True).start()
for number in range(1 << 30):
    sent[number] = time.time()
    s.sendall(b'%079d\\n' % number)
    time.sleep(0.02)
"""

    def __init__(self, lab, who, address):
        lab.run(who.host, "ip", "mptcp", "limits", "set", "add_addr_accepted", "4", "subflows", "4")
        super().__init__(lab, who, address)

    @classmethod
    def command(cls, _who, address):
        return sys.executable, "-u", "-c", cls.CLIENT, address

    def seen(self, name):
        return dataclasses.replace(super().seen(name), lost=None)


# What a guest with an emulated CPU serves at once without being what is measured.
AT_ONCE = {"ping": 4, "udp-1000": 2, "ssh": 4, "bulk": 2, "redis": 4, "iperf3": 2}
LOADS = {
    "ping": Ping,
    "udp-1000": Datagrams,
    "ssh": lambda lab, who, address: Stream(lab, who, address, "20ms", 80),
    "bulk": lambda lab, who, address: Stream(lab, who, address, "1ms", 32 << 10),
    "redis": Redis,
    "iperf3": Iperf,
}


class Traffic:
    """A load of several correspondents, for as long as this context lasts."""

    def __init__(self, lab, load, correspondents, address, own=None):
        """`own`: clients of some loads, instead of these."""
        self._flows = {}
        client = (LOADS | (own or {}))[load]
        try:
            for name, who in correspondents.items():
                who.awaits(lab, address)
                self._flows[name] = client(lab, who, address)
        except StageError as error:
            self._stop()
            raise StageError(f"{name}: {error}") from None
        except BaseException:
            self._stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop()

    def _stop(self):
        for flow in self._flows.values():
            flow.stop()

    def watch(self, name, action):
        """The result of action(), in a window of that name."""
        for flow in self._flows.values():
            flow.begin(name)
        result = action()
        for flow in self._flows.values():
            flow.end(name)
        time.sleep(SETTLE_S)
        return result

    def seen(self, name):
        """What each correspondent saw in a window; of all windows one after the other, as iperf3 tells when it ends."""
        seen = {}
        for who, flow in self._flows.items():
            try:
                seen[who] = flow.seen(name)
            except StageError as error:
                raise StageError(f"{who}: {error}") from None
        return seen
