"""Flows to services as guests have them: redis-server and iperf3 of Debian.

  redis    SET and GET in turn, every 5 ms at most, of numbers that count up, over one connection; each answer is
           looked at, the next command waits for it
  iperf3   `iperf3 -c GUEST -J`: one connection that takes all it gets; what follows is from its report, which tells
           bytes by the tenth of a second

Of iperf3 the longest time without bytes is the most that it may have been: from the begin of the last tenth that had
some to the end of the next. So it is never less than 0.2 s, in the window before neither, and the bound is wider.
"""

import itertools
import json
import subprocess
import threading
import time
from dataclasses import dataclass

from guest_programs import AS_IT_LEAVES, REDIS_PORT, SHELL_PORT
from guest_seen import ALIVE_MS, Seen, median, silence
from stage import StageError, wait_until

SERVE_LIMIT_S = 60
REPORT_LIMIT_S = 30
REDIS_EVERY_S = 0.005
INTERVAL_S = 0.1  # the least that iperf3 takes
WARM_UP_S = 2.0  # in which its connection is made and finds its rate
RATE_S = 3.0  # of a window's end: behind a move the second half
ENDED_BY_US = "interrupt - the client has terminated"


class Service:
    """A client at a correspondent, and the windows in which it is looked at."""

    def __init__(self, lab, who, address, *words):
        self._windows = {}
        open_port = lab.command(who.host, "busybox", "nc", "-w", "5", address, f"{SHELL_PORT}")
        wait_until(lambda: subprocess.run(open_port, stdin=subprocess.DEVNULL, capture_output=True,
                                          check=False).returncode == 0, SERVE_LIMIT_S, f"{address} serves")
        self._process = lab.start(who.host, *who.within(), *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  start_new_session=True)

    def begin(self, name):
        self._windows[name] = [time.time(), None]

    def end(self, name):
        self._windows[name][1] = time.time()

    def stop(self):
        try:
            self._process.stdin.close()  # what runs in a guest ends by that
        except BrokenPipeError:  # it has ended
            pass
        self._process.kill()
        self._process.wait()


class Redis(Service):
    def __init__(self, lab, who, address):
        super().__init__(lab, who, address, "busybox", "nc", address, f"{REDIS_PORT}")
        self._key = who.guest or who.host
        self._answers = []  # (time, ms that it took)
        self._wrong = False
        threading.Thread(target=self._converse, daemon=True).start()
        wait_until(lambda: self._answers, SERVE_LIMIT_S, f"redis' answer to {self._key}")

    def _converse(self):
        for words, due in conversation(self._key):
            asked = time.time()
            try:
                right = answer_to(words, self._process.stdin, self._process.stdout) == due
            except (OSError, ValueError):  # it has ended
                right = False
            if not right:
                self._wrong = True
                return
            answered = time.time()
            self._answers.append((answered, (answered - asked) * 1000))
            time.sleep(max(0.0, asked + REDIS_EVERY_S - answered))

    def seen(self, name):
        return self.of(list(self._answers), *self._windows[name], self._wrong)

    @staticmethod
    def of(answers, begun, ended, wrong):
        inside = [(at, took) for at, took in answers if begun <= at < ended]
        gap_ms, alive = silence([at for at, _ in inside], begun, ended)
        return Seen(gap_ms, alive and not wrong, median([took for _, took in inside]))


def conversation(key):
    """Commands, and what each is answered."""
    for number in itertools.count(1):
        yield ("SET", key, f"{number}"), "+OK"
        yield ("GET", key), f"{number}"


def answer_to(words, stdin, stdout):
    """As RESP has both; "" if the connection has ended."""
    stdin.write(f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words))
    stdin.flush()
    answer = stdout.readline()
    return (stdout.readline() if answer.startswith("$") else answer).rstrip("\r\n")


class Iperf(Service):
    def __init__(self, lab, who, address):
        if who.guest is None:
            lab.run(who.host, "sh", "-c", AS_IT_LEAVES)
        super().__init__(lab, who, address, "iperf3", "-c", address, "-p", f"{who.iperf_port}", "-J", "-t", "600",
                         "-i", f"{INTERVAL_S}", "-l", "16K")
        self._in_host = who.guest is None
        self._text = self._asked = self._ended = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        time.sleep(WARM_UP_S)

    def _read(self):
        self._text, self._ended = self._process.stdout.read(), time.time()

    def seen(self, name):
        report = self._report()
        return self.of(report, min(self._asked, self._ended), *self._windows[name])

    def _report(self):
        """Which it gives as it ends."""
        if self._asked is None:
            self._asked = time.time()
            self._process.stdin.close()  # ends one in a guest
            if self._in_host:
                self._process.terminate()
        self._reader.join(REPORT_LIMIT_S)
        if self._ended is None:
            raise StageError(f"iperf3 gives no report within {REPORT_LIMIT_S} s")
        return json.loads(self._text)

    @staticmethod
    def of(report, reported, begun, ended):
        """`reported`: when its last interval ended, as it was asked to end, or as it broke off."""
        if not report["intervals"]:
            raise StageError(f"iperf3: {report.get('error', 'it reports no interval')}")
        first = reported - report["intervals"][-1]["sum"]["end"]
        spans = [Span(first + each["sum"]["start"], first + each["sum"]["end"], each["sum"]["bytes"],
                      each["streams"][0]["rtt"] / 1000) for each in report["intervals"]]
        spans = [span for span in spans if begun < span.end and span.begin < ended]
        with_bytes = [span for span in spans if span.bytes > 0]
        edges = [begun, *(span.begin for span in with_bytes)], [*(span.end for span in with_bytes), ended]
        gap_ms = max(b - a for a, b in zip(*edges)) * 1000
        alive = bool(with_bytes) and ended - with_bytes[-1].end < ALIVE_MS / 1000
        last = [span for span in spans if span.begin >= ended - RATE_S]
        rate = sum(span.bytes for span in last) * 8e-6 / (last[-1].end - last[0].begin) if last else 0.0
        return Seen(gap_ms, alive and report.get("error") == ENDED_BY_US, median([span.rtt_ms for span in with_bytes]),
                    mbit_s=rate)


@dataclass
class Span:
    """Of an interval of iperf3's report."""

    begin: float
    end: float
    bytes: int
    rtt_ms: float
