"""`bench disk`, case cloudnet-4: four vms move at once, each a Debian with a raw disk of its own that has, beside the Debian,
files of this machine that no other has; it has read them, so that its memory has them, too.

Godwit moves them as a group; for QEMU each is mirrored and then copied by itself, as a script of an operator's would.

  total_s         until the last vm runs at the target
  memory_s        of it, since the last vm's disk was there
  pause_ms        of the vm that stood longest
  disk_identical  1: in each vm's disk the files that no other has are what they were
"""

import time
from concurrent.futures import ThreadPoolExecutor

from clones import COUNT, Clones, wait_until_idle
from disk_case import (LINKS, MOVE_LIMIT_S, DebianLoad, debian, digest_at, digest_of, disks_there_s, file_system_with,
                       files_of, lay_out, make_content, say, start_debian)
from mirror import MirroringVm
from stage import HOSTS, Lab, build_directory, warm_memory
from stock import MIGRATION_PORT

NAME = "cloudnet-4"
LINK = "465mbit-27ms"  # the only one that it is for
FILE, FILE_BYTES = "warm", 128 << 20
WARM_BYTES = 6 << 30
TO_REACH = {"memory_s": 0.35, "wan_bytes": 0.5}  # of QEMU's


class OwnLoad(DebianLoad):
    """Without a network."""

    def append(self, mtu=1500):
        return "root=/dev/vda console=ttyS0 quiet"


class Disks:
    """What they are copies of, by vm. A context."""

    def __init__(self):
        self.contents = [build_directory() / f"bench-disk-group{i}.content" for i in range(COUNT)]
        self.images = [build_directory() / f"bench-disk-group{i}.raw" for i in range(COUNT)]

    def __enter__(self):
        for i, (content, image) in enumerate(zip(self.contents, self.images)):
            make_content(content, FILE_BYTES, skip=i * FILE_BYTES)
            file_system_with(debian() / "root.qcow2", image, FILE, content)
        return self

    def __exit__(self, *_):
        for path in (*self.contents, *self.images):
            path.unlink(missing_ok=True)

    def are_at(self, lab, host, paths):
        return all(digest_at(lab, host, path, FILE) == digest_of(content) for path, content in zip(paths, self.contents))


class Group(Clones):
    limit_s = 2 * MOVE_LIMIT_S

    def start(self, images):
        """The paths of their disks."""
        paths = [start_debian(self.lab, name, self.load, image) for name, image in zip(self.names, images)]
        wait_until_idle(self.lab, self.host)
        return paths

    def move(self, host):
        reports = [move["report"] for move in self.move_as_a_group(host)[0]]
        total_s = max(report["total_ms"] for report in reports) / 1000
        return {"total_s": total_s, "memory_s": total_s - max(map(disks_there_s, reports)),
                "pause_ms": max(report["pause_ms"] for report in reports)}


def measured(lab, disks, paths, move):
    warm_memory(WARM_BYTES)
    before = lab.wan()
    figures = move()
    figures["wan_bytes"] = lab.wan().since(before).bytes
    return figures | {"disk_identical": int(disks.are_at(lab, HOSTS["west"], paths))}


def with_godwit(options, disks, argvs):
    with Lab(options.lab) as lab:
        group = Group(lab, OwnLoad())
        paths = group.start(disks.images)
        argvs += group.argvs()
        lab.set_link(*LINKS[LINK])
        yield "first", measured(lab, disks, paths, lambda: group.move(HOSTS["west"]))


def with_mirror(options, disks, argvs):
    with Lab(options.lab, agents=False) as lab, ThreadPoolExecutor(COUNT) as pool:
        paths = [files_of(argv)[-1] for argv in argvs]
        for path, image in zip(paths, disks.images):
            lay_out(lab, path, image)
        vms = [MirroringVm(lab, OwnLoad(), argv, MIGRATION_PORT + i) for i, argv in enumerate(argvs)]

        def move():
            begun = time.monotonic()
            moves = list(pool.map(lambda vm: vm.move_all(HOSTS["west"]), vms))
            total_s, there_s = time.monotonic() - begun, max(move["total_s"] - move["memory_s"] for move in moves)
            return {"total_s": total_s, "memory_s": total_s - there_s, "pause_ms": max(move["pause_ms"] for move in moves)}

        try:
            for vm in vms:
                vm.limit_s = 2 * MOVE_LIMIT_S
                vm.start()
            wait_until_idle(lab, HOSTS["east"])
            lab.set_link(*LINKS[LINK])
            yield "first", measured(lab, disks, paths, move)
        finally:
            for vm in vms:
                vm.stop()


def run(options, link, outcomes):
    if link != LINK:
        return
    argvs = []
    with Disks() as disks:
        outcomes.take(NAME, link, "godwit", with_godwit(options, disks, argvs))
        if argvs:
            outcomes.take(NAME, link, "qemu-mirror", with_mirror(options, disks, argvs))
    judge(outcomes.of(NAME))


def judge(figures):
    """Shows what was to be reached."""
    for metric, limit in TO_REACH.items():
        if (ours := figures.get(("godwit", metric))) and (theirs := figures.get(("qemu-mirror", metric))):
            say(f"    {metric:<10} {ours / theirs:.3f} of QEMU's (to reach: {limit}): "
                f"{'met' if ours / theirs <= limit else 'MISSED'}")
