"""A host as a user would have it: its own root file system, its own services, systemd as PID 1.

    lab host e1 (network namespace, WAN)
      '-- machine: an overlay of this machine's files in memory, systemd, what is installed into it

What it writes is in memory and gone with it. It shares the network of the lab's host, so that the
lab's links and its emulator are the way to other machines. Only root can make one.
"""

import os
import pathlib
import signal
import subprocess
import uuid

import pytest
from conftest import wait_until

# Of what is installed here for other purposes nothing runs but the bus and the journal.
START = r"""
set -eu
disk=/run/machine
mkdir -p $disk
mount -t tmpfs -o mode=755 machine $disk
mkdir $disk/changes $disk/work $disk/root
mount -t overlay machine -o lowerdir=/,upperdir=$disk/changes,workdir=$disk/work $disk/root
cd $disk/root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
mkdir dev/net dev/pts dev/shm
for node in null zero full random urandom tty net/tun kvm; do
  [ -e /dev/$node ] || continue
  : > dev/$node
  mount --bind /dev/$node dev/$node
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs shm dev/shm
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
rm -rf var/lib/godwit usr/sbin/policy-rc.d etc/godwit var/lib/man-db/auto-update
echo "$2" > etc/hostname
: > etc/machine-id
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
exec env -i container=$1 PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
  /lib/systemd/systemd --system --unit=basic.target --show-status=false
"""
# A control group of its own, or two systemds would share one.
ENTER = r"""
set -eu
mkdir -p /run/cgroups
mount -t cgroup2 cgroup2 /run/cgroups
mkdir /run/cgroups/$1
echo $$ > /run/cgroups/$1/cgroup.procs
umount /run/cgroups
exec unshare --mount --pid --cgroup --ipc --uts --fork --kill-child sh -c "$3" start "$1" "$2"
"""


def requires_root():
    if os.geteuid() != 0:
        pytest.skip("only root can make a machine with services of its own")


class Machine:
    """Runs in a lab's host until end()."""

    def __init__(self, lab, host):
        self.host = host
        self.label = f"machine-{uuid.uuid4().hex[:12]}"
        self.process = subprocess.Popen(
            lab.argv("exec", host, "--", "sh", "-c", ENTER, "enter", self.label, host, START),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.init = wait_until(self._find_init, 20, f"systemd on {host}")
        wait_until(lambda: self.run("systemctl", "is-system-running", check=False).stdout.strip() in
                   ("running", "degraded"), 30, f"the start of {host}")

    def _find_init(self):
        if self.process.poll() is not None:
            pytest.fail(f"no machine on {self.host}: {self.process.stderr.read()}")
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                if pathlib.Path(f"/proc/{entry}/comm").read_text() != "systemd\n":
                    continue
                environment = pathlib.Path(f"/proc/{entry}/environ").read_bytes()
                status = pathlib.Path(f"/proc/{entry}/status").read_text()
            except OSError:
                continue
            inside = status.partition("NSpid:")[2].splitlines()[0].split()
            if f"container={self.label}".encode() in environment.split(b"\0") and inside[-1] == "1":
                return int(entry)
        return None

    def argv(self, *command):
        return ["nsenter", "--target", str(self.init), "--all", "--root", "--wd", "env", "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
                "DEBIAN_FRONTEND=noninteractive", *map(str, command)]

    def run(self, *command, check=True, limit_s=120):
        done = subprocess.run(self.argv(*command), capture_output=True, text=True, check=False,
                              timeout=limit_s, stdin=subprocess.DEVNULL)
        if check and done.returncode != 0:
            pytest.fail(f"{self.host}: {' '.join(map(str, command))}: {done.returncode}: "
                        f"{done.stdout}{done.stderr}\n{self.journal()}")
        return done

    def sh(self, script, **options):
        return self.run("sh", "-c", script, **options)

    def journal(self):
        lines = self.run("journalctl", "-u", "godwitd", "--no-pager", "-n", "80", check=False)
        return lines.stdout

    def end(self):
        if hasattr(self, "init"):
            os.kill(self.init, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait(20)
        # The control group goes when its last process is gone.
        mount = "set -e; mkdir -p /run/cgroups; mount -t cgroup2 cgroup2 /run/cgroups; "
        subprocess.run(["unshare", "--mount", "sh", "-c", mount +
                        f"find /run/cgroups/{self.label} -depth -type d -exec rmdir {{}} +"],
                       check=False, capture_output=True)
