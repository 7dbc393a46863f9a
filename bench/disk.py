#!/usr/bin/python3
"""What it costs to move a vm with its disk to a host that has nothing of it, and back to what it left; and one whose
disk is an overlay on an image that the target has, too ("base-present").

The disk is raw, sparse, and holds programs and libraries of this machine; so does the image. Systems: Godwit; qemu-mirror,
QEMU's own blockdev-mirror to an export of the target's QEMU and then its pre-copy, as libvirt's --copy-storage-all does;
qemu-mirror-top, which copies the overlay alone, as its --copy-storage-inc; offline, what `zstd --long` makes of the
disk's contents, which is less than any copy of a running vm can cost.

  total_s          from the command to the vm running at the target
  wan_bytes        both ways
  pause_ms         the vCPUs stand
  write_max_ms     the guest's slowest write on stable storage during the move (the pause is part of it)
  disk_identical   1: what the guest did not write meanwhile is at the target what it was
  blocks_damaged   of those that the guest wrote meanwhile and read again there

Exit status 1 if a move of Godwit's failed, or a disk was not what it was.
"""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))

from disks import disk_of  # noqa: E402
from stage import (COMMAND_LIMIT_S, HOSTS, WARM_BYTES, Client, Godwit, Lab, Load, StageError,  # noqa: E402
                   build_directory, performed, wait_until, warm_memory, write_rows)
from stock import NotConverged, Settings, Stock  # noqa: E402

LINKS = {  # each queue holds a round trip or so
    "465mbit-27ms": ("rate=465mbit", "delay=13.5ms", "loss=0%", "queue=27ms"),
    "100mbit-80ms": ("rate=100mbit", "delay=40ms", "loss=0%", "queue=100ms"),
}
CASES = {"idle": "0bit", "random": "8mbit"}  # the guest's writes
BASE_PRESENT = "base-present"
# Which host a vm moves to; what it left at the first is there when it comes back.
WAYS = {"first": HOSTS["west"], "back": HOSTS["east"]}
CONTENT = build_directory() / "bench-disk.raw"
CONTENT_BYTES = 256 << 20
DISK = "data,size=2GiB,format=raw"
IMAGE = "content"
OVERLAY = f"data,size=2GiB,image={IMAGE}"
WRITTEN_BYTES = 32 << 20  # by the guest, from the front
NBD_PORT = 4750
MOVE_LIMIT_S = 240


def say(text=""):
    print(text, flush=True)


def make_content():
    """Files as a disk has them, one after the other."""
    tar = subprocess.Popen(["tar", "-cf", "-", "-C", "/usr", "lib", "bin", "share"], stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL)
    with open(CONTENT, "wb") as file:
        while file.tell() < CONTENT_BYTES and (part := tar.stdout.read(1 << 20)):
            file.write(part[:CONTENT_BYTES - file.tell()])
    tar.kill()
    tar.wait()


def offline_bytes():
    """None without the program zstd."""
    try:
        done = subprocess.run(["zstd", "-3", "--long", "-c", CONTENT], stdout=subprocess.PIPE, check=True)
    except FileNotFoundError:
        return None
    return len(done.stdout)


def untouched(path):
    with open(path, "rb") as file:
        file.seek(WRITTEN_BYTES)
        return hashlib.sha256(file.read(CONTENT_BYTES - WRITTEN_BYTES)).hexdigest()


def untouched_at(lab, host, path):
    """As the guest sees it, of which the vm writes to the front."""
    raw = "/var/lib/check.raw"
    return lab.run(host, "sh", "-ec", f"qemu-img convert -U -O raw {path} {raw}; tail -c +{WRITTEN_BYTES + 1} {raw} | "
                   f"head -c {CONTENT_BYTES - WRITTEN_BYTES} | sha256sum; rm {raw}").split()[0]


def fill(lab, path):
    """The guest has not looked at its disk yet."""
    lab.run(HOSTS["east"], "dd", f"if={CONTENT}", f"of={path}", "bs=1M", "conv=notrunc", "status=none")


def measured(lab, path, writes, host, move):
    """Of a move to `host`; `move` returns (total_s, pause_ms)."""
    warm_memory(WARM_BYTES)
    with Client(lab):
        if writes:
            wait_until(lambda: disk_of(lab, "report")["written"] > 500, COMMAND_LIMIT_S, "writes of the guest")
        disk_of(lab, "forget")
        before = lab.wan()
        total_s, pause_ms = move()
        wan_bytes = lab.wan().since(before).bytes
        slowest_ms = disk_of(lab, "report")["slowest_us"] / 1e3
        damaged = disk_of(lab, "check")["damaged"]
    identical = untouched_at(lab, host, path) == untouched(CONTENT)
    return {"total_s": (total_s, "s"), "wan_bytes": (wan_bytes, "bytes"), "pause_ms": (pause_ms, "ms"),
            "write_max_ms": (slowest_ms, "ms"), "blocks_damaged": (damaged, "blocks"),
            "disk_identical": (int(identical), "bool")}


def load_of(rate, disk=DISK):
    return Load(memory="256MiB", dirty="2mbit", working_set="4MiB", disks=(disk,),
                words=f"godwit.disk=vda godwit.disk-rate={rate}")


def with_godwit(options, link, rate, disk=DISK):
    """(what was measured by way, QEMU's command line)"""
    with Lab(options.lab) as lab:
        lab.set_link(*LINKS[link])
        if disk == OVERLAY:
            for host in HOSTS.values():
                lab.run(host, "godwit", "image", "add", IMAGE, str(CONTENT), "--format", "raw")
        godwit = Godwit(lab, load_of(rate, disk))
        godwit.start()
        path = lab.ask(HOSTS["east"], "disk", "ls")[0]["path"]
        if disk == DISK:
            fill(lab, path)

        def move(host):
            begun = time.monotonic()
            report = godwit.move(host, progress=subprocess.DEVNULL, limit_s=MOVE_LIMIT_S)[0]["report"]
            return time.monotonic() - begun, report["pause_ms"]
        argv = godwit.qemu_argv()
        return {way: measured(lab, path, rate != "0bit", host, lambda host=host: move(host))
                for way, host in WAYS.items()}, argv


class Mirroring(Stock):
    """As libvirt does it: the disk first, then memory, and the job ends while the vCPUs stand."""

    sync = "full"

    def move_all(self, host):
        begun = time.monotonic()
        self.vm.forget_events()
        address, uri = self.addresses[host], f"tcp:{self.addresses[host]}:{self.port}"
        target = self._qemu(host, "-incoming", "defer")
        settings = Settings(capabilities=("pause-before-switchover",))
        try:
            self._set(self.vm, settings)
            self._set(target, Settings())
            self._qmp(target, "migrate-incoming", uri=uri)
            server = {"type": "inet", "data": {"host": address, "port": str(NBD_PORT)}}
            self._qmp(target, "nbd-server-start", addr=server)
            self._qmp(target, "block-export-add", id="disk", type="nbd", **{"node-name": "disk0"}, writable=True)
            self._qmp(self.vm, "blockdev-add", driver="nbd", **{"node-name": "there"}, export="disk0",
                      server={"type": "inet", "host": address, "port": str(NBD_PORT)})
            self._qmp(self.vm, "blockdev-mirror", device="disk0", target="there", sync=self.sync,
                      **{"job-id": "copy"})
            self.vm.event_s("BLOCK_JOB_READY", MOVE_LIMIT_S)
            self._qmp(self.vm, "migrate", uri=uri)
            wait_until(lambda: self._account()["status"] == "pre-switchover", MOVE_LIMIT_S, "pre-switchover")
            self._qmp(self.vm, "block-job-cancel", device="copy")
            self.vm.event_s("BLOCK_JOB_COMPLETED", MOVE_LIMIT_S)
            self._qmp(target, "nbd-server-stop")
            self._qmp(self.vm, "migrate-continue", state="pre-switchover")
            self._completed(begun + MOVE_LIMIT_S)
            resumed = target.event_s("RESUME")
        except BaseException:
            target.end()
            raise
        total_s, pause_ms = time.monotonic() - begun, (resumed - self.vm.event_s("STOP")) * 1000
        self._left, self.vm = self.vm, target
        return total_s, pause_ms


def make_files(lab, argv):
    """What QEMU's command line names, at each host: the disk, with its image if it has one. The disk's path."""
    nodes = [json.loads(word) for word in argv if word.startswith("{")]
    *image, path = (node["filename"] for node in nodes if node.get("driver") == "file")
    for host in HOSTS.values():
        lab.run(host, "sh", "-ec", f"for file in {' '.join([*image, path])}; do mkdir -p $(dirname $file); done; " +
                (f"cp {CONTENT} {image[0]}; qemu-img create -q -f qcow2 -b {image[0]} -F raw {path} 2G" if image else
                 f"truncate -s 2G {path}"))
    if not image:
        fill(lab, path)
    return path


def with_mirror(options, link, rate, argv, sync="full"):
    with Lab(options.lab, agents=False) as lab:
        lab.set_link(*LINKS[link])
        path = make_files(lab, argv)
        stock = Mirroring(lab, load_of(rate, DISK if path.endswith(".raw") else OVERLAY), argv)
        stock.sync = sync
        try:
            stock.start()
            by_way = {}
            for way, host in WAYS.items():
                by_way[way] = measured(lab, path, rate != "0bit", host, lambda host=host: stock.move_all(host))
                stock.end_source()
            return by_way
        finally:
            stock.stop()


def show(case, system, metrics):
    say(f"  {case:<34}{system:<16}{metrics['total_s'][0]:6.1f} s {metrics['wan_bytes'][0] / 1e6:7.1f} MB  "
        f"pause {metrics['pause_ms'][0]:4.0f} ms  slowest write {metrics['write_max_ms'][0]:4.0f} ms  "
        f"identical {metrics['disk_identical'][0]}, damaged {metrics['blocks_damaged'][0]}")


def told(name, link, system, by_way):
    """The rows; all disks are what they have to be."""
    rows = []
    for way, metrics in by_way.items():
        case = f"{way}-{name}-{link}"
        show(case, system, metrics)
        rows += rows_of(case, system, metrics)
    return rows, all(metrics["disk_identical"][0] == 1 and metrics["blocks_damaged"][0] == 0
                     for metrics in by_way.values())


def rows_of(case, system, metrics):
    return [{"bench": "disk", "case": case, "system": system, "metric": metric, "value": value, "unit": unit}
            for metric, (value, unit) in metrics.items()]


def peers_of(options, link, name, rate, argv, systems):
    rows = []
    for system, sync in systems.items():
        try:
            rows += told(name, link, system, with_mirror(options, link, rate, argv, sync))[0]
        except (NotConverged, StageError) as error:
            say(f"  {f'{name}-{link}':<34}{system:<16}failed: {str(error).splitlines()[0]}")
    return rows


def run(options):
    rows, good = [], True
    make_content()
    try:
        if (bound := offline_bytes()) is not None:
            rows += rows_of("first", "offline", {"wan_bytes": (bound, "bytes")})
            say(f"  offline bound: {CONTENT_BYTES / 1e6:.0f} MB of files are {bound / 1e6:.1f} MB by zstd -3 --long")
        for link in list(LINKS)[:1] if options.quick else LINKS:
            for name, rate in CASES.items():
                by_way, argv = with_godwit(options, link, rate)
                more, is_good = told(name, link, "godwit", by_way)
                rows, good = rows + more, good and is_good
                rows += peers_of(options, link, name, rate, argv, {"qemu-mirror": "full"})
            by_way, argv = with_godwit(options, link, CASES["idle"], OVERLAY)
            more, is_good = told(BASE_PRESENT, link, "godwit", by_way)
            rows, good = rows + more, good and is_good
            rows += peers_of(options, link, BASE_PRESENT, CASES["idle"], argv,
                             {"qemu-mirror": "full", "qemu-mirror-top": "top"})
    finally:
        CONTENT.unlink(missing_ok=True)
        if options.json:
            write_rows(options.json, rows)
    return good


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench disk", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first link only")
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
