"""`bench disk`, case postgres: a Debian (tools/make-debian-image, with files of this machine beside: ext4 of 8 GiB, 1.3 GB of it
used, raw) whose PostgreSQL serves pgbench from a client on a wire, synchronous_commit on.

  transactions_lost  of those that were answered, by client, not in the table after the move
  connections_lost   1: pgbench lost one
  blackout_ms        the longest time between two commits, of all clients
  commit_*_ms        the median and the 99th percentile of how long a commit takes, from when it was sent: of those that ended while
                     the guest's writes were in step (of the whole move where they never are), and `usual`, before the move
  disk_identical     1: a file that the guest had not touched is what it was
"""

import bisect
import collections
import glob
import itertools
import json
import os
import statistics
import subprocess
import time

from debian import BOOT_LIMIT_S, SHELL
from disk_case import (LINKS, MOVE_LIMIT_S, WAYS, DebianLoad, by_godwit, debian, digest_at, digest_of, file_system_with,
                       files_of, lay_out, make_content, start_debian)
from mirror import BACKGROUND, SYNCHRONOUS, Mirroring
from stage import (CLIENT_ADDRESS, CLIENT_PORT, COMMAND_LIMIT_S, ROOT, VM, VM_ADDRESS, VM_PORT, Godwit, Lab, StageError,
                   build_directory, wait_until, warm_memory)

NAME = "postgres"
CONTENT_NAME, CONTENT_BYTES = "content", 512 << 20
CLIENTS, RATE = 4, 20  # transactions a second: an emulated CPU does more
ENOUGH_COMMITS = 200
WARM_BYTES = 4 << 30
SYSTEMS = {"qemu-mirror": BACKGROUND, "qemu-mirror-sync": SYNCHRONOUS}
LOAD = ROOT / "bench" / "pgbench_load.py"
CONTENT, DISK = (build_directory() / f"bench-disk-postgres.{name}" for name in ("content", "raw"))
START = "systemctl start postgresql"


def shell(lab, command):
    return lab.run("client", "/usr/bin/python3", "-c", SHELL, VM_ADDRESS, command).strip()


def asked(lab, query):
    """What the database answers; None while it cannot."""
    psql = lab.command("client", "psql", "-h", VM_ADDRESS, "-U", "postgres", "-Atc", query, "postgres")
    done = subprocess.run(psql, env={**os.environ, "PGCONNECT_TIMEOUT": "2"}, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def start_database(lab):
    wait_until(lambda: answers(lab), BOOT_LIMIT_S, "a shell in the guest")
    shell(lab, START)
    wait_until(lambda: asked(lab, "select 1") == "1", COMMAND_LIMIT_S, "PostgreSQL in the guest")


def join_client_and_start_database(lab):
    """By a wire, to the NIC of a vm that Godwit has begun to run."""
    lab.run("client", "godwit", "port", "add", CLIENT_PORT, "--uplink", "--address", f"{CLIENT_ADDRESS}/24")
    lab.run("client", "godwit", "connect", CLIENT_PORT, VM_PORT)
    start_database(lab)


def answers(lab):
    try:
        return shell(lab, "echo here") == "here"
    except StageError:
        return False


class Pgbench:
    """It runs from when it is made until finish(); a context, so that it ends in any case."""

    def __init__(self, lab, run):
        self._lab, self._run = lab, run
        program = max(glob.glob("/usr/lib/postgresql/*/bin/pgbench"), default=None)
        if program is None:
            raise StageError("there is no pgbench: install the package postgresql-15")
        scale = asked(lab, "select count(*) from pgbench_branches")
        self._process = lab.start("client", "/usr/bin/python3", LOAD, program, VM_ADDRESS, scale, str(run), str(CLIENTS),
                                  str(RATE), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self.finish()

    def await_more(self, count):
        """As the database has them."""
        before = self._count()
        wait_until(lambda: self._count() >= before + count, MOVE_LIMIT_S, "transactions of pgbench")

    def _count(self):
        return int(asked(self._lab, f"select count(*) from ledger where run = {self._run}") or 0)

    def finish(self):
        return json.loads(self._process.communicate("\n", MOVE_LIMIT_S)[0])

    def lost(self, commits):
        """How many of them are not in the table."""
        there = {tuple(map(int, line.split("|")))
                 for line in asked(self._lab, f"select client, number from ledger where run = {self._run}").splitlines()}
        answered = collections.Counter(client for client, *_ in commits)
        return sum((client, number) not in there for client, count in answered.items() for number in range(1, count + 1))


def percentiles(took_s, word=""):
    cuts = statistics.quantiles(took_s, n=100, method="inclusive")
    return {f"commit_p50{word}_ms": cuts[49] * 1e3, f"commit_p99{word}_ms": cuts[98] * 1e3}


def measured(lab, path, run, host, move):
    warm_memory(WARM_BYTES)
    with Pgbench(lab, run) as pgbench:
        pgbench.await_more(ENOUGH_COMMITS)
        wan, begun, steps = lab.wan(), time.time(), []
        figures = move(lambda: steps.append(time.time()))
        ended = time.time()
        figures["wan_bytes"] = lab.wan().since(wan).bytes
        pgbench.await_more(1)
        seen = pgbench.finish()
    commits = seen["commits"]
    in_step = steps[0] if steps else begun
    at = [when for _, when, _ in commits]
    since = bisect.bisect(at, begun) - 1  # the last one before the move
    figures |= {"blackout_ms": max(later - when for when, later in itertools.pairwise(at[since:])) * 1e3}
    figures |= percentiles([took for _, when, took in commits if when < begun], "_usual")
    figures |= percentiles([took for _, when, took in commits if in_step <= when <= ended])
    identical = digest_at(lab, host, path, CONTENT_NAME) == digest_of(CONTENT)
    return figures | {"transactions": len(commits), "transactions_lost": pgbench.lost(commits),
                      "connections_lost": int(seen["status"] != 0), "disk_identical": int(identical)}


class Postgres(Godwit):
    """At e1, with the disk that was made."""

    def start(self):
        self.path = start_debian(self.lab, VM, self.load, DISK, "--nic", VM_PORT)
        join_client_and_start_database(self.lab)


def with_godwit(options, link, argv):
    with Lab(options.lab) as lab:
        lab.set_link(*LINKS[link])
        vm = Postgres(lab, DebianLoad())
        vm.start()
        argv += vm.qemu_argv()
        for run, (way, host) in enumerate(WAYS.items()):
            yield way, measured(lab, vm.path, run, host, lambda in_step, host=host: by_godwit(vm, host, in_step))


def with_mirror(options, link, argv, copy_mode):
    [path] = files_of(argv)
    with Lab(options.lab, agents=False) as lab:
        lab.set_link(*LINKS[link])
        lay_out(lab, path, DISK)
        stock = Mirroring(lab, DebianLoad(), argv)
        stock.copy_mode = copy_mode
        try:
            stock.start()
            start_database(lab)
            for run, (way, host) in enumerate(WAYS.items()):
                yield way, measured(lab, path, run, host,
                                    lambda in_step, host=host: stock.move_all(host, in_step))
                stock.end_source()
        finally:
            stock.stop()


def run(options, link, outcomes):
    argv = []
    try:
        make_content(CONTENT, CONTENT_BYTES)
        file_system_with(debian() / "root.qcow2", DISK, CONTENT_NAME, CONTENT)
        outcomes.take(NAME, link, "godwit", with_godwit(options, link, argv))
        for system, copy_mode in SYSTEMS.items() if argv else ():
            outcomes.take(NAME, link, system, with_mirror(options, link, argv, copy_mode))
    finally:
        CONTENT.unlink(missing_ok=True)
        DISK.unlink(missing_ok=True)
