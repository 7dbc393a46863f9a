"""Debian guests of the lab, made with mmdebstrap from packages.

Disks do not move yet, so a guest's Debian is in its initramfs, behind the lab's own image, which sets
up the network, answers the lab's client, and starts the workload beside (/start-agent):

    /             the lab's image: busybox, godwit-guest
    /start-agent  starts the workload that the kernel's command line names (bench.workload=redis)
    /debian       the root of the Debian that the workload runs in

Port READY_PORT is open as soon as the workload is at work.
"""

import hashlib
import pathlib
import subprocess
import tarfile
import tempfile

from stage import StageError, build_directory, guest_image

SUITE = "bookworm"
READY_PORT = 7020  # none of the lab's own guest (src/lab/guest/protocol.hh)
REDIS_PORT = 6379
PACKAGES = {"idle": "redis-server", "redis": "redis-server", "compile": "redis-server,g++"}
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")

# Unpacked, the archive leaves memory filled with the kernel's poison (0xcc), which no vm has that
# booted from a disk: its free memory is zeroed first, but for what the kernel needs to go on.
START = f"""#!/bin/busybox sh
for system in proc sys dev; do mount -o rbind /$system /debian/$system; done
mkdir /fill
mount -t tmpfs -o size=100% fill /fill
free_kib=$(awk '/^MemFree:/ {{ print $2 }}' /proc/meminfo)
dd if=/dev/zero of=/fill/zeroes bs=1M count=$((free_kib / 1024 - 64)) 2>/dev/null
umount /fill

cat > /debian/tmp/source.cc <<'SOURCE'
#include <cstdio>
#include <string>
#include <vector>
int main() {{
  std::vector<std::string> lines;
  for (int i = 0; i < 100; ++i) lines.push_back(std::to_string(i));
  for (const auto& line : lines) std::puts(line.c_str());
}}
SOURCE

workload=idle
for word in $(cat /proc/cmdline); do
  case $word in bench.workload=*) workload=${{word#*=}} ;; esac
done
case $workload in
  idle)
    chroot /debian find /usr /etc /var -type f -exec cat {{}} + >/dev/null ;;
  redis)
    chroot /debian redis-server --port {REDIS_PORT} --save "" --protected-mode no --bind 0.0.0.0 >/dev/null &
    until chroot /debian redis-cli -p {REDIS_PORT} ping >/dev/null 2>&1; do sleep 1; done ;;
  compile)
    (while :; do chroot /debian g++ -o /tmp/program /tmp/source.cc; done) &
    until [ -f /debian/tmp/program ]; do sleep 1; done ;;
esac
httpd -p {READY_PORT} -h /fill
"""


def debian_guest(workload):
    """The initrd of a guest that can run `workload`. One archive after the other is one image."""
    directory = build_directory() / "bench-guests"
    directory.mkdir(exist_ok=True)
    debian = debian_archive(directory, PACKAGES[workload])
    image = directory / f"{workload}.img"
    with open(image, "wb") as out:
        out.write(guest_image()[1].read_bytes())
        with Archive(out) as archive:
            archive.add("start-agent", 0o100755, START.encode())
        out.write(debian.read_bytes())
    return image


def debian_archive(directory, packages):
    """Kept in `directory` until the recipe changes. lz4 is what an emulated CPU unpacks fastest."""
    recipe = ("mmdebstrap", "--variant=minbase", f"--include={packages}",
              *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT), SUITE)
    path = directory / f"debian-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]}.cpio.lz4"
    if path.exists():
        return path
    print(f"making a Debian of {packages}, once: this takes minutes", flush=True)
    with tempfile.TemporaryDirectory(dir=directory) as work:
        tree, archive, packed = (pathlib.Path(work) / name for name in ("tar", "cpio", "lz4"))
        run(*recipe, "--format=tar", str(tree))
        with tarfile.open(tree) as source, open(archive, "wb") as out:
            put_below("debian", source, out)
        run("lz4", "-l", "-9", "-q", str(archive), str(packed))  # the kernel knows the old format only
        packed.replace(path)
    return path


def run(*argv):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StageError(f"{' '.join(argv)}: status {done.returncode}\n{done.stderr[-2000:]}")


# Type bits of st_mode by tarfile's type; a hard link becomes a file of its own.
MODES = {tarfile.REGTYPE: 0o100000, tarfile.LNKTYPE: 0o100000, tarfile.SYMTYPE: 0o120000,
         tarfile.DIRTYPE: 0o040000, tarfile.CHRTYPE: 0o020000}


class Archive:
    """A cpio archive in the format "newc" (Documentation/driver-api/early-userspace/buffer-format)."""

    def __init__(self, out):
        self._out, self._inode = out, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.add("TRAILER!!!", 0)

    def add(self, name, mode, content=b"", owner=(0, 0), device=(0, 0)):
        self._inode += 1
        path = name.encode() + b"\0"
        fields = (self._inode, mode, *owner, 1, 0, len(content), 0, 0, *device, len(path), 0)
        for part in (b"070701" + b"".join(b"%08X" % field for field in fields) + path, content):
            self._out.write(part + bytes(-len(part) % 4))


def put_below(directory, tree, out):
    with Archive(out) as archive:
        archive.add(directory, 0o040755)
        for member in tree:
            content = member.linkname.encode() if member.issym() else b""
            if member.isreg() or member.islnk():
                content = tree.extractfile(member).read()
            archive.add(f"{directory}/{member.name.removeprefix('./')}", MODES[member.type] | member.mode,
                        content, (member.uid, member.gid),
                        (member.devmajor, member.devminor) if member.ischr() else (0, 0))
