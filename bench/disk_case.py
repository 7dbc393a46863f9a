"""What the cases of `bench disk` have in common: links, what is on the disks, Godwit's moves, rows."""

import hashlib
import json
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from debian import boot_words, make_image
from stage import CLIENT_ADDRESS, HOSTS, VM_ADDRESS, Load, StageError, build_directory

LINKS = {  # each queue holds a round trip or so
    "465mbit-27ms": ("rate=465mbit", "delay=13.5ms", "loss=0%", "queue=27ms"),
    "100mbit-80ms": ("rate=100mbit", "delay=40ms", "loss=0%", "queue=100ms"),
}
# Which host a vm moves to; what it left at the first is there when it comes back.
WAYS = {"first": HOSTS["west"], "back": HOSTS["east"]}
MOVE_LIMIT_S = 300
LOOK_S = 0.25  # looking costs CPU time that is the move's
DEBIAN_SIZE = "8G"
# By a metric's last word; else bool.
UNITS = {"s": "s", "ms": "ms", "bytes": "bytes", "lost": "count", "transactions": "count", "damaged": "blocks"}
PERFECT = {"completed": 1, "disk_identical": 1, "blocks_damaged": 0, "transactions_lost": 0, "connections_lost": 0}


def say(text=""):
    print(text, flush=True)


def make_content(path, size, skip=0):
    """Files of this machine as a disk has them, one after the other, without the first `skip` bytes."""
    tar = subprocess.Popen(["tar", "-cf", "-", "-C", "/usr", "lib", "bin", "share"], stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL)
    tar_at = 0
    with open(path, "wb") as file:
        while file.tell() < size and (part := tar.stdout.read(1 << 20)):
            if (tar_at := tar_at + len(part)) > skip:
                file.write(part[:size - file.tell()])
    tar.kill()
    tar.wait()


def digest_of(path, begin=0):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(begin)
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def file_system_with(root, image, name, content):
    """At `image`, raw and sparse: the file system of `root` (tools/make-debian-image), with a file `name` in it."""
    subprocess.run(["qemu-img", "convert", "-O", "raw", root, image], check=True)
    subprocess.run(["debugfs", "-w", "-f", "-", image], input=f"write {content} {name}\n", text=True, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def digest_at(lab, host, disk, name):
    """Of a file that the guest has not written to, in the file system on a raw disk, which is mounted: its superblock may be between
    two checksums (-n). One that is not there is as an empty one."""
    out = "/var/lib/check.file"
    return lab.run(host, "sh", "-ec", f"debugfs -n -R 'dump /{name} {out}' {disk}; touch {out}; sha256sum {out}; rm {out}").split()[0]


def copy_to(lab, host, image, path):
    """Onto a disk that is there, and empty."""
    lab.run(host, "qemu-img", "convert", "-n", "--target-is-zero", "-O", "raw", image, path)


def files_of(argv):
    """What QEMU's command line names: images, and the disk last."""
    nodes = [json.loads(word) for word in argv if word.startswith("{")]
    return [node["filename"] for node in nodes if node.get("driver") == "file"]


def by_godwit(godwit, host, in_step=lambda: None):
    """Moves the vm: {total_s, pause_ms, memory_s}; calls `in_step` again and again while the guest's writes are answered by the
    target, before the pause."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch_steps, godwit.lab, godwit.host, in_step, over)
        try:
            begun = time.monotonic()
            report = godwit.move(host, progress=subprocess.DEVNULL, limit_s=MOVE_LIMIT_S)[0]["report"]
            total_s = time.monotonic() - begun
        finally:
            over.set()
        watching.result()
    return {"total_s": total_s, "memory_s": report["total_ms"] / 1000 - disks_there_s(report), "pause_ms": report["pause_ms"]}


def watch_steps(lab, host, in_step, over):
    while not over.wait(LOOK_S):
        if any(move["state"] == "copying" and move.get("progress", {}).get("disks", {}).get("phase") == "in-step"
               for move in lab.ask(host, "migration", "ls")):
            in_step()


def disks_there_s(report):
    """From the move's begin until its memory began to go."""
    return report["preparation_ms"] / 1000 + report["disks"]["copy_s"]


def debian():
    """The directory of a Debian's kernel, initrd and root.qcow2."""
    return make_image(build_directory() / "debian")


@dataclass
class DebianLoad(Load):
    """A Debian with a disk that was made with file_system_with()."""

    memory: str = "512MiB"

    def files(self):
        return debian() / "vmlinuz", debian() / "initrd.img"

    def append(self, mtu=1500):
        return boot_words(debian(), VM_ADDRESS, CLIENT_ADDRESS)[-1]


def start_debian(lab, name, load, image, *more):
    """At e1, with a copy of `image` as its disk, whose path there it returns; `more`: of `godwit vm run`."""
    host, (kernel, initrd) = HOSTS["east"], load.files()
    lab.run(host, "godwit", "vm", "run", name, "--memory", load.memory, "--disk", f"root,size={DEBIAN_SIZE}iB,format=raw",
            "--kernel", kernel, "--initrd", initrd, "--append", load.append(), *more)
    lab.run(host, "godwit", "vm", "stop", name, "--force")
    path = next(disk["path"] for disk in lab.ask(host, "disk", "ls") if disk["vm"] == name)
    copy_to(lab, host, image, path)
    lab.run(host, "godwit", "vm", "start", name)
    return path


def lay_out(lab, path, image):
    """A Debian's disk as an operator has it before a move: at e1 the copy of `image`, at w1 as large, and empty."""
    for host in HOSTS.values():
        lab.run(host, "sh", "-ec", f"mkdir -p $(dirname {path}); truncate -s {DEBIAN_SIZE} {path}")
    copy_to(lab, HOSTS["east"], image, path)


@dataclass
class Outcomes:
    """Rows as they come, and whether Godwit did all that it has to."""

    rows: list = field(default_factory=list)
    good: bool = True

    def add(self, case, system, metrics, **more):
        self.good = self.good and (system != "godwit" or all(metrics.get(metric, value) == value
                                                             for metric, value in PERFECT.items()))
        say(f"  {case:<32}{system:<18}" + "  ".join(f"{metric} {value:.6g}" for metric, value in metrics.items()))
        self.rows += [{"bench": "disk", "case": case, "system": system, "metric": metric, "value": value,
                       "unit": UNITS.get(metric.rsplit("_", 1)[-1], "bool"), **more} for metric, value in metrics.items()]

    def take(self, name, link, system, moves):
        """Of `moves`, which yields for each of WAYS what was measured, or fails."""
        done = []
        try:
            for way, metrics in moves:
                done.append(way)
                self.add(f"{way}-{name}-{link}", system, {"completed": 1} | metrics)
        except (StageError, subprocess.TimeoutExpired) as error:
            way, reason = next(way for way in WAYS if way not in done), str(error).strip()
            self.add(f"{way}-{name}-{link}", system, {"completed": 0}, reason=reason)
            say(f"    {reason.splitlines()[-1]}")

    def of(self, name):
        """By system and metric."""
        return {(row["system"], row["metric"]): row["value"] for row in self.rows if f"-{name}-" in row["case"]}
