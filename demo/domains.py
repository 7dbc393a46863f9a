"""libvirt in a host of the lab: a libvirtd of its own, and the domain `web1` with a disk and a NIC on the bridge br0.

`run(host, *words)` runs a command in the host and returns what it prints; `start(host, *words)` starts one there.
"""

import shutil
import subprocess
import time

DOMAIN, BRIDGE = "web1", "br0"
POOL = "/var/lib/libvirt/images"
DISK = f"{POOL}/{DOMAIN}.qcow2"
EMULATOR = "/var/lib/libvirt/qemu-two-pages-more"
STARTS_WITHIN_S = 30

# QEMU before 9 under TCG does not see all that a guest writes while it migrates (docs/ARCHITECTURE.md): Godwit's own vms
# get two pages more than they ask for, and libvirt gives whole MiB only.
TWO_PAGES_MORE = """#!/usr/bin/python3 -BIS
import json, os, sys
words = sys.argv[1:]
for at, word in enumerate(words):
    if word.startswith("{") and '"pc.ram"' in word:
        ram = json.loads(word)
        ram["size"] += 8192
        words[at] = json.dumps(ram)
        words[words.index("-m") + 1] = f"{ram['size'] // 1024}k"
os.execv("/usr/bin/qemu-system-x86_64", ["/usr/bin/qemu-system-x86_64", *words])
"""

# libvirtd keeps to directories that a host of the lab has from the machine: in a mount namespace of its own they
# are empty. QEMU runs as root, as the lab's hosts may be a user namespace in which there is nobody else.
DAEMON = r"""
set -e
for directory in /etc/libvirt /var/cache /var/log/libvirt; do
  [ ! -d $directory ] || mount -t tmpfs tmpfs $directory
done
cat > /etc/libvirt/qemu.conf <<END
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
END
cat > /etc/libvirt/libvirtd.conf <<END
auth_unix_rw = "none"
host_uuid = "$(cat /proc/sys/kernel/random/uuid)"
END
mkdir -p /run/libvirt
exec libvirtd
"""
XML = """
<domain type='qemu'>
  <name>{domain}</name>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>{append}</cmdline>
  </os>
  <devices>
    <emulator>{emulator}</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <source bridge='{bridge}'/>
      <model type='virtio'/>
    </interface>
    <console type='pty'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def is_installed():
    return all(shutil.which(program) for program in ("libvirtd", "virsh"))


class Libvirt:
    """The libvirtds of some hosts, with a storage pool and a bridge each; stop() ends them and their domains."""

    def __init__(self, run, start, hosts):
        self._run, self.daemons = run, {}
        try:
            for host in hosts:
                self.daemons[host] = start(host, "unshare", "-m", "sh", "-c", DAEMON, stdout=subprocess.DEVNULL,
                                           stderr=subprocess.DEVNULL)
            for host in hosts:
                self._prepare(host)
        except BaseException:
            self.stop()
            raise

    def _prepare(self, host):
        deadline = time.monotonic() + STARTS_WITHIN_S
        wait = "until virsh -q uri >/dev/null 2>&1; do sleep 0.05; done"
        self._run(host, "timeout", f"{deadline - time.monotonic():.0f}", "sh", "-c", wait)
        self._run(host, "sh", "-c", f"cat > {EMULATOR} <<'END'\n{TWO_PAGES_MORE}END\nchmod 755 {EMULATOR}")
        self.virsh(host, "pool-define-as", "default", "dir", "--target", POOL)
        self.virsh(host, "pool-build", "default")
        self.virsh(host, "pool-start", "default")
        self._run(host, "sh", "-c", f"ip link add {BRIDGE} type bridge && ip link set {BRIDGE} up")

    def virsh(self, host, *words):
        return self._run(host, "virsh", "-q", "-c", "qemu:///system", *words)

    def start_domain(self, host, image, append, memory_mib=256, disk_size="1G"):
        """`image`: (kernel, initrd)."""
        kernel, initrd = image
        self._run(host, "qemu-img", "create", "-q", "-f", "qcow2", DISK, disk_size)
        xml = XML.format(domain=DOMAIN, kernel=kernel, initrd=initrd, append=append, memory_mib=memory_mib, disk=DISK,
                         bridge=BRIDGE, emulator=EMULATOR)
        self._run(host, "sh", "-c", f"cat > /tmp/{DOMAIN}.xml <<'END'\n{xml}\nEND")
        self.virsh(host, "define", f"/tmp/{DOMAIN}.xml")
        self.virsh(host, "start", DOMAIN)

    def state(self, host):
        """ "running", "paused", "shut off"; None: there is no such domain."""
        return next((line.split(None, 2)[2] for line in self.virsh(host, "list", "--all").splitlines()
                     if line.split()[1] == DOMAIN), None)

    def at_console(self, host, words):
        """What the shell on the domain's console answers within some seconds."""
        script = ('tty=$(virsh -q ttyconsole "$1"); stty -F "$tty" raw -echo; timeout 6 cat "$tty" & sleep 0.2; '
                  'echo "$2" > "$tty"; wait')
        return self._run(host, "sh", "-c", script, "sh", DOMAIN, words)

    def monitor(self, host, command):
        return self.virsh(host, "qemu-monitor-command", DOMAIN, "--hmp", command)

    def stop(self):
        for host, daemon in self.daemons.items():
            if daemon.poll() is None:
                self._run(host, "sh", "-c", f"virsh -q destroy {DOMAIN} >/dev/null 2>&1 || :")
            daemon.terminate()
        for daemon in self.daemons.values():
            daemon.wait()
