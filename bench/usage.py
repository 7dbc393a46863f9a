"""What a host's processes use while something happens: CPU by thread, and memory.

This file is also the program that watches in the host of the lab, until its standard input ends.
"""

import json
import os
import pathlib
import subprocess
import sys
import threading

PYTHON = "/usr/bin/python3"
INTERVAL_S = 0.1  # what a thread does in its last interval is missed
NAMES = ("godwitd", "qemu-system-x86")  # as in /proc/PID/comm: 15 characters
# Of QEMU 7.2, with debug-threads=on. The target's QEMU loads in its main thread, besides.
MIGRATION_THREADS = ("live_migration", "multifdsend", "multifdrecv", "return path", "postcopy/")
END_LIMIT_S = 10


class Usage:
    """A watch in each host. A context; afterwards it has the figures."""

    def __init__(self, lab, source, target):
        self._source, self._target = source, target
        self._watches = {host: lab.start(host, PYTHON, "-c", pathlib.Path(__file__).read_text(encoding="utf-8"),
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                         for host in (source, target)}
        for watch in self._watches.values():
            watch.stdout.readline()  # it has looked once

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._seen = {host: json.loads(watch.communicate("", END_LIMIT_S)[0])
                      for host, watch in self._watches.items()}

    def cpu_s(self):
        """Of the migration: agents, and what QEMU has threads for; not the guest's vCPU and devices."""
        total = 0.0
        for host, processes in self._seen.items():
            for process in processes:
                total += sum(thread["cpu_s"] for thread in process["threads"]
                             if process["name"] == "godwitd"
                             or thread["name"].startswith(MIGRATION_THREADS)
                             or host == self._target and thread["is_main"])
        return total

    def rss_mib(self):
        """By which processes grew at most, but for the target's QEMU, which is given the guest's memory."""
        return sum(process["rss_growth_kib"] for host, processes in self._seen.items()
                   for process in processes if host == self._source or process["name"] == "godwitd") / 1024


def read(path):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""  # it has ended


class Process:
    def __init__(self, pid):
        self.pid, self.name = pid, ""
        self.threads = {}  # id -> (name, ticks at the start, ticks)
        self.rss_kib = []

    def look(self, is_new):
        name = read(f"/proc/{self.pid}/comm").strip()
        if name not in (self.name, ""):  # an agent's child has become a QEMU
            self.name, self.rss_kib = name, []
        if rss := read(f"/proc/{self.pid}/status").partition("VmRSS:")[2]:
            self.rss_kib.append(int(rss.split()[0]))
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            name, _, fields = read(f"/proc/{self.pid}/task/{thread}/stat").rpartition(") ")
            if fields:
                ticks = sum(map(int, fields.split()[11:13]))
                first = self.threads[thread][1] if thread in self.threads else 0 if is_new else ticks
                self.threads[thread] = (name.partition("(")[2], first, ticks)

    def told(self):
        tick = os.sysconf("SC_CLK_TCK")
        return {"name": self.name, "rss_growth_kib": max(self.rss_kib) - self.rss_kib[0] if self.rss_kib else 0,
                "threads": [{"name": name, "is_main": thread == self.pid, "cpu_s": (last - first) / tick}
                            for thread, (name, first, last) in self.threads.items()]}


def watch():
    processes, is_new = {}, False
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while True:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if pid not in processes and read(f"/proc/{pid}/comm").strip() in NAMES:
                processes[pid] = Process(pid)
        for process in processes.values():
            try:
                process.look(is_new)
            except FileNotFoundError:
                pass  # it has ended
        if not is_new:
            print("watching", flush=True)
        is_new = True
        if ended.wait(INTERVAL_S):
            break
    print(json.dumps([process.told() for process in processes.values()]), flush=True)


if __name__ == "__main__":
    watch()
