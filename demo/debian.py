#!/usr/bin/python3
"""A Debian as clouds have them, with systemd, ext4, UEFI and a TPM, moves with its disk while a client writes to the
redis in it; then its power is cut. Both hosts have its image, so that only what is its own crosses.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import contextlib
import subprocess
import sys

from stage import (CLIENT_ADDRESS, CLIENT_PORT, COMMAND_LIMIT_S, HOSTS, ROOT, VM, VM_ADDRESS, VM_PORT, Godwit, Lab, Load,
                   all_kept, build_directory, demo, wait_until)

BOOT_LIMIT_S = 90
SECRET = "0x1500016"  # an index of the TPM's memory
WRITES_PER_SECOND = 100
MOST_SENT_MB = 100  # of the disk; the image has 760

# Prints what a shell of root's in the guest says: ADDRESS COMMAND.
SHELL = ("import socket, sys\n"
         "s = socket.create_connection((sys.argv[1], 7010), 2)\n"
         "s.settimeout(30)\n"
         "s.sendall(sys.argv[2].encode() + b'\\nexit\\n')\n"
         "print(s.makefile().read(), end='')\n")
# Over one connection: SET N N, for N that follow one another, each when the one before was answered, until a line comes.
# ADDRESS N. Prints the last that was answered, and the longest wait, in ms.
WRITER = f"""
import select, socket, sys, time
s = socket.create_connection((sys.argv[1], 6379))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
answers, longest, n = s.makefile(), 0, int(sys.argv[2])
while not select.select([sys.stdin], [], [], 1 / {WRITES_PER_SECOND})[0]:
    began = time.monotonic()
    s.sendall(b"SET %d %d\\r\\n" % (n + 1, n + 1))
    answer = answers.readline()
    if answer.strip() != "+OK":
        sys.exit(repr(answer))
    n += 1
    longest = max(longest, time.monotonic() - began)
print(n, round(longest * 1e3))
"""
STORE_SECRET = (f"tpm2_nvdefine -s 6 -a 'ownerread|ownerwrite' {SECRET} >/dev/null && "
                f"echo hello | tpm2_nvwrite -C o -i - {SECRET} && echo done")
READ_SECRET = f"tpm2_nvread -C o -s 6 {SECRET}"


def first_lost(answered):
    """A command that tells the first write that is not there; 0: all are."""
    return ("redis-cli EVAL \"local n = tonumber(ARGV[1]); for i = 1, n do if redis.call('GET', tostring(i)) ~= "
            f"tostring(i) then return i end end; return 0\" 0 {answered}")


def make_image(directory):
    """{root.qcow2, vmlinuz, initrd.img} in `directory`."""
    subprocess.run([ROOT / "tools" / "make-debian-image", directory], check=True)
    return directory


def boot_words(files, address, gateway):
    """Of `godwit vm run`."""
    return ("--kernel", str(files / "vmlinuz"), "--initrd", str(files / "initrd.img"), "--append",
            "root=/dev/vda console=ttyS0 quiet net.ifnames=0 "
            f"ip={address}::{gateway}:255.255.255.0::eth0:off")


def say(text=""):
    print(text, flush=True)


def introduce():
    say(f"""
    east: client, e1 ==== 400 Mbit/s, 40 ms RTT ==== west: w1

  vm      {VM}, at e1: Debian with systemd on ext4, UEFI, a TPM with a secret in it; its disk is an overlay on the
          image debian, which both hosts have
  client  writes to its redis over one connection; a write is answered once it is on the disk
  job     e1 -> w1; then the vm's power is cut, and it boots again at w1
""")


class Debian(Godwit):
    def start(self):
        files = make_image(build_directory() / "debian")
        for host in HOSTS.values():
            self.lab.run(host, "godwit", "image", "add", "debian", str(files / "root.qcow2"))
        self.lab.run(self.host, "godwit", "vm", "run", VM, "--memory", "384MiB", "--firmware", "uefi", "--tpm", "--disk",
                     "root,image=debian", *boot_words(files, VM_ADDRESS, CLIENT_ADDRESS), "--nic", VM_PORT)
        self.lab.run("client", "godwit", "port", "add", CLIENT_PORT, "--uplink", "--address", f"{CLIENT_ADDRESS}/24")
        self.lab.run("client", "godwit", "connect", CLIENT_PORT, VM_PORT)
        self.await_redis()

    def await_redis(self):
        # One that does not answer yet fails.
        ping = self.lab.command("client", "/usr/bin/python3", "-c", SHELL, VM_ADDRESS, "redis-cli ping")
        wait_until(lambda: subprocess.run(ping, capture_output=True, text=True, check=False).stdout == "PONG\n",
                   BOOT_LIMIT_S, "redis in the guest")

    def shell(self, command):
        return self.lab.run("client", "/usr/bin/python3", "-c", SHELL, VM_ADDRESS, command).strip()

    def cut_power(self):
        self.lab.run(self.host, "godwit", "vm", "stop", VM, "--force")
        self.lab.run(self.host, "godwit", "vm", "start", VM)
        self.await_redis()


def show(options):
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(options.lab))
        introduce()
        debian = Debian(lab, Load())
        debian.start()
        if debian.shell(STORE_SECRET) != "done":
            raise RuntimeError("the guest's TPM keeps no secret")
        registers = debian.shell("tpm2_pcrread sha256")
        say(debian.shell("cat /etc/os-release | head -1; mount | grep ' / '"))
        writer = lab.start("client", "/usr/bin/python3", "-c", WRITER, VM_ADDRESS, "0", stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE)
        migration, text = debian.move(HOSTS["west"])
        say(text)
        out, _ = writer.communicate("\n", timeout=COMMAND_LIMIT_S)
        answered, longest_ms = map(int, out.split()) if writer.returncode == 0 else (0, 0)
        same = debian.shell("tpm2_pcrread sha256") == registers
        say(f"  {answered} writes were answered, over one connection, the slowest in {longest_ms} ms; now the power is cut\n")
        debian.cut_power()
        lost, secret = debian.shell(first_lost(answered)), debian.shell(READ_SECRET)
    return all_kept([
        ("of all writes that were answered, the first that is lost (0: none)", int(lost), 0),
        ("connections that broke", int(writer.returncode != 0), 0),
        ("TPMs that changed by the move", int(not same), 0),
        ("secrets that the TPM has no more", int(secret != "hello"), 0),
        ("MB sent for the disk", migration["report"]["disks"]["sent_bytes"] / 1e6, MOST_SENT_MB),
    ])


if __name__ == "__main__":
    sys.exit(demo("debian", __doc__, show))
