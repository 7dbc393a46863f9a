#!/usr/bin/python3
"""What it costs to move vms with their disks to a host that has nothing of them ("first"), and back to what they left.

Cases, of which each is a link and a way, like first-idle-465mbit-27ms:

  idle, random  a small guest; its disk is raw, sparse, and holds programs and libraries of this machine. `random`: it writes
                blocks of 4 KiB at random, each on stable storage before the next
  base-present  its disk is an overlay on an image with the same, which both hosts have
  elsewhere     as idle, and the target has an image with the same, of which the vm's disk knows nothing
  postgres      a Debian, its PostgreSQL at work (disk_postgres.py)
  debian-base   a Debian that has booted from an overlay on an image, which both hosts have (disk_debian.py)
  cloudnet-4    four vms at once, there only (disk_group.py)

Systems: Godwit; qemu-mirror, which is QEMU's blockdev-mirror and then its pre-copy (mirror.py); qemu-mirror-sync, the same with
writes in step; qemu-mirror-top, which copies the overlay alone; offline, what `zstd --long` makes of the disk's contents, which is
less than any copy of a running vm can cost.

  completed        0: not within the bound, with a reason; then there is no other figure
  total_s          from the command to the vm running at the target
  memory_s         of it, since the disk was there and memory began to go
  wan_bytes        both ways
  pause_ms         the vCPUs stand
  write_*_ms       how long the guest's writes on stable storage take: the slowest of the move (the pause is part of it); median and
                   99th percentile of those in step before the pause, or of all where none are (no figure: in step too shortly to be
                   looked at); `usual`: before the move
  known_bytes      of memory, what the target had in an image (debian-base)
  disk_identical   1: what the guest did not write meanwhile is at the target what it was
  blocks_damaged   of those that the guest wrote meanwhile and read again there

Exit status 1 if a move of Godwit's failed, or a disk was not what it was.
"""

import argparse
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))

from disk_case import (LINKS, WAYS, Outcomes, by_godwit, digest_of, files_of, make_content, say)  # noqa: E402
from disks import disk_of  # noqa: E402
from mirror import BACKGROUND, SYNCHRONOUS, Mirroring  # noqa: E402
from stage import (COMMAND_LIMIT_S, HOSTS, WARM_BYTES, Client, Godwit, Lab, Load, build_directory,  # noqa: E402
                   performed, wait_until, warm_memory, write_rows)
import disk_debian  # noqa: E402
import disk_group  # noqa: E402
import disk_postgres  # noqa: E402

RATES = {"idle": "0bit", "random": "8mbit"}  # the guest's writes
BASE_PRESENT, ELSEWHERE = "base-present", "elsewhere"
CASES = (*RATES, BASE_PRESENT, ELSEWHERE, disk_debian.NAME, disk_postgres.NAME, disk_group.NAME)
CONTENT = build_directory() / "bench-disk.raw"
CONTENT_BYTES = 256 << 20
DISK = "data,size=2GiB,format=raw"
IMAGE = "content"
INDEX = f"/var/lib/godwit/contents/image.{IMAGE}.index"
INDEX_LIMIT_S = 60
OVERLAY = f"data,size=2GiB,image={IMAGE}"
WRITTEN_BYTES = 32 << 20  # by the guest, from the front
ENOUGH_WRITES = 500
PEERS = {"qemu-mirror": {}, "qemu-mirror-sync": {"copy_mode": SYNCHRONOUS}, "qemu-mirror-top": {"sync": "top"}}
PEERS_OF = {"idle": ("qemu-mirror",), "random": ("qemu-mirror", "qemu-mirror-sync"),
            BASE_PRESENT: ("qemu-mirror", "qemu-mirror-top"), ELSEWHERE: ("qemu-mirror",)}


def offline_bytes():
    """None without the program zstd."""
    try:
        done = subprocess.run(["zstd", "-3", "--long", "-c", CONTENT], stdout=subprocess.PIPE, check=True)
    except FileNotFoundError:
        return None
    return len(done.stdout)


def untouched_at(lab, host, path):
    """As the guest sees it, of which the vm writes to the front."""
    raw = "/var/lib/check.raw"
    return lab.run(host, "sh", "-ec", f"qemu-img convert -U -O raw {path} {raw}; tail -c +{WRITTEN_BYTES + 1} {raw} | "
                   f"head -c {CONTENT_BYTES - WRITTEN_BYTES} | sha256sum; rm {raw}").split()[0]


def fill(lab, path):
    """The guest has not looked at its disk yet."""
    lab.run(HOSTS["east"], "dd", f"if={CONTENT}", f"of={path}", "bs=1M", "conv=notrunc", "status=none")


class Writes:
    """How long the guest's writes take."""

    def __init__(self, lab):
        self._lab, self._slowest_ms, self._looks, self._in_step = lab, 0.0, 0, {}

    def await_some(self):
        before = self._look()["written"]
        disk_of(self._lab, "forget")
        wait_until(lambda: self._look()["written"] > before + ENOUGH_WRITES, COMMAND_LIMIT_S, "writes of the guest")
        usual = self._percentiles("_usual")
        disk_of(self._lab, "forget")
        self._slowest_ms = 0.0
        return usual

    def in_step(self):
        """They are; the first time that this is called, they have just begun to be."""
        seen = self._percentiles()
        if self._looks > 0:
            self._in_step = seen
        else:
            disk_of(self._lab, "forget")
        self._looks += 1

    def figures(self):
        seen = self._percentiles()
        return (self._in_step if self._looks > 0 else seen) | {"write_max_ms": self._slowest_ms}

    def _percentiles(self, word=""):
        seen = self._look()
        return {f"write_{name}{word}_ms": seen[f"{name}_us"] / 1e3 for name in ("p50", "p99")}

    def _look(self):
        seen = disk_of(self._lab, "report")
        self._slowest_ms = max(self._slowest_ms, seen["slowest_us"] / 1e3)
        return seen


def measured(lab, path, is_written, host, move):
    """Of a move to `host`; `move` takes what is to be called when writes are in step."""
    warm_memory(WARM_BYTES)
    figures = {}
    with Client(lab):
        writes = Writes(lab)
        if is_written:
            figures = writes.await_some()
        before = lab.wan()
        figures |= move(writes.in_step)
        figures["wan_bytes"] = lab.wan().since(before).bytes
        if is_written:
            figures |= writes.figures()
        figures["blocks_damaged"] = disk_of(lab, "check")["damaged"]
    identical = untouched_at(lab, host, path) == digest_of(CONTENT, WRITTEN_BYTES)
    return figures | {"disk_identical": int(identical)}


def load_of(rate, disk=DISK):
    return Load(memory="256MiB", dirty="2mbit", working_set="4MiB", disks=(disk,),
                words=f"godwit.disk=vda godwit.disk-rate={rate}")


def add_image(lab, *hosts):
    for host in hosts:
        lab.run(host, "godwit", "image", "add", IMAGE, str(CONTENT), "--format", "raw")


def with_godwit(options, link, name, load, argv):
    """What was measured, by way; `argv` takes QEMU's command line."""
    with Lab(options.lab) as lab:
        lab.set_link(*LINKS[link])
        if name == BASE_PRESENT:
            add_image(lab, *HOSTS.values())
        if name == ELSEWHERE:
            add_image(lab, HOSTS["west"])
            wait_until(lambda: lab.start(HOSTS["west"], "test", "-e", INDEX).wait(COMMAND_LIMIT_S) == 0, INDEX_LIMIT_S,
                       "an index of the image")
        godwit = Godwit(lab, load)
        godwit.start()
        path = lab.ask(HOSTS["east"], "disk", "ls")[0]["path"]
        if DISK in load.disks:
            fill(lab, path)
        argv += godwit.qemu_argv()
        for way, host in WAYS.items():
            yield way, measured(lab, path, is_written(load), host,
                                lambda in_step, host=host: by_godwit(godwit, host, in_step))


def is_written(load):
    return load.words != load_of(RATES["idle"]).words


def make_files(lab, argv):
    """At each host: the disk, with its image if it has one. The disk's path."""
    *image, path = files_of(argv)
    for host in HOSTS.values():
        lab.run(host, "sh", "-ec", f"for file in {' '.join([*image, path])}; do mkdir -p $(dirname $file); done; " +
                (f"cp {CONTENT} {image[0]}; qemu-img create -q -f qcow2 -b {image[0]} -F raw {path} 2G" if image else
                 f"truncate -s 2G {path}"))
    if not image:
        fill(lab, path)
    return path


def with_mirror(options, link, load, argv, sync="full", copy_mode=BACKGROUND):
    with Lab(options.lab, agents=False) as lab:
        lab.set_link(*LINKS[link])
        path = make_files(lab, argv)
        stock = Mirroring(lab, load, argv)
        stock.sync, stock.copy_mode = sync, copy_mode
        try:
            stock.start()
            for way, host in WAYS.items():
                yield way, measured(lab, path, is_written(load), host,
                                    lambda in_step, host=host: stock.move_all(host, in_step))
                stock.end_source()
        finally:
            stock.stop()


def small_guest(options, link, name, outcomes):
    load, argv = load_of(RATES.get(name, RATES["idle"]), OVERLAY if name == BASE_PRESENT else DISK), []
    outcomes.take(name, link, "godwit", with_godwit(options, link, name, load, argv))
    for peer in PEERS_OF[name] if argv else ():
        outcomes.take(name, link, peer, with_mirror(options, link, load, argv, **PEERS[peer]))


def run(options):
    outcomes = Outcomes()
    make_content(CONTENT, CONTENT_BYTES)
    try:
        if (bound := offline_bytes()) is not None:
            say(f"{CONTENT_BYTES / 1e6:.0f} MB of files by zstd -3 --long:")
            outcomes.add("first", "offline", {"wan_bytes": bound})
        for link in options.link or list(LINKS)[:1 if options.quick else None]:
            for name in options.case or CASES:
                if name == disk_debian.NAME:
                    disk_debian.run(options, link, outcomes)
                elif name == disk_postgres.NAME:
                    disk_postgres.run(options, link, outcomes)
                elif name == disk_group.NAME:
                    disk_group.run(options, link, outcomes)
                else:
                    small_guest(options, link, name, outcomes)
    finally:
        CONTENT.unlink(missing_ok=True)
        if options.json:
            write_rows(options.json, outcomes.rows)
    return outcomes.good


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench disk", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first link only")
    parser.add_argument("--link", action="append", choices=LINKS, help="only this one; repeat for more")
    parser.add_argument("--case", action="append", choices=CASES, help="only this one; repeat for more")
    parser.add_argument("--torture", action="store_true",
                        help="instead: a Debian moves to and fro while agents are killed and the link is cut")
    parser.add_argument("--points", type=int, default=200, help="of --torture (default: 200, which is an hour)")
    parser.add_argument("--json", metavar="FILE", help="writes the rows")
    parser.add_argument("--lab", default="bench-disk", metavar="NAME", help="the lab's name")
    return parser.parse_args()


def torture(points):
    """Its judge is the end-to-end test: every write that the guest's redis answered is there, its file system is sound."""
    test = ROOT / "test" / "e2e" / "test_debian.py"
    return subprocess.run([sys.executable, "-B", "-m", "pytest", test, "-q", "-s", "-p", "no:cacheprovider", "-k", "whatever"],
                          env={**os.environ, "GODWIT_POINTS": str(points), "GODWIT_BUILD": str(build_directory())},
                          check=False).returncode == 0


def main():
    options = arguments()
    return torture(options.points) if options.torture else run(options)


if __name__ == "__main__":
    sys.exit(performed("bench disk", main))
