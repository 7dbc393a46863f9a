"""A guest as clouds have them: Debian, systemd, ext4, UEFI, a TPM (tools/make-debian-image). Topology: fleet.py.
Its redis answers a write once it is on the disk; whatever happens to agents and links, what it answered is there
after a power cut at the target, and the file system is whole."""

import random
import subprocess
import time

import pytest
from conftest import ROOT, build_directory, wait_until

pytestmark = pytest.mark.thorough

SECRET = "0x1500016"  # an index of the TPM's memory
WRITES_PER_SECOND = 100
BOOT_LIMIT_S = 90
LONGEST_S = 8  # that a move takes


@pytest.fixture(scope="module")
def debian(shared_fleet):
    files = build_directory().resolve() / "debian"
    subprocess.run([ROOT / "tools" / "make-debian-image", files], check=True)
    for host in ("e1", "w1"):
        shared_fleet.godwit(host, "image", "add", "debian", files / "root.qcow2")
    return files


def shell(fleet, vm, command):
    """What a shell of root's in the guest says; None while there is none."""
    code = ("import socket, sys\n"
            "s = socket.create_connection((sys.argv[1], 7010), 2)\n"
            "s.settimeout(30)\n"
            "s.sendall(sys.argv[2].encode() + b'\\nexit\\n')\n"
            "print(s.makefile().read(), end='')\n")
    done = fleet.lab.exec("client", "/usr/bin/python3", "-c", code, vm.address, command, check=False)
    return done.stdout if done.returncode == 0 else None


def wait_for_redis(fleet, vm):
    wait_until(lambda: shell(fleet, vm, "redis-cli ping") == "PONG\n", BOOT_LIMIT_S, "redis in the guest")


# Over one connection: SET N N, N = 1, 2, ..., each when the one before was answered. Tells the last that was, and the
# longest wait, in ms.
WRITER = f"""
import select, socket, sys, time
s = socket.create_connection((sys.argv[1], 6379))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
answers, longest, n = s.makefile(), 0, 0
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


class Writer:
    def __init__(self, fleet, vm):
        self._process = fleet.popen("client", "/usr/bin/python3", "-c", WRITER, vm.address, stdin=subprocess.PIPE)

    def stop(self):
        """How many writes were answered; the connection has lived."""
        out, said = self._process.communicate("\n", timeout=60)
        assert self._process.returncode == 0, said
        answered, longest_ms = map(int, out.split())
        print(f"{answered} writes, the longest {longest_ms} ms")
        return answered


def expect_all_there(fleet, vm, answered):
    script = ("local n = tonumber(ARGV[1]); "
              "for i = 1, n do if redis.call('GET', tostring(i)) ~= tostring(i) then return i end end; return 0")
    assert shell(fleet, vm, f'redis-cli EVAL "{script}" 0 {answered}') == "0\n", f"the first that is lost, of {answered}"


def expect_sound_after_a_power_cut(fleet, host, vm, answered):
    fleet.godwit(host, "vm", "stop", vm.name, "--force")
    # ext4's journal is replayed, as the guest will; then nothing is left to mend.
    fleet.lab.exec(host, "sh", "-ec",
                   f"qemu-img convert -O raw $(echo {file_of(fleet, host, vm)}) /var/lib/check.raw; "
                   "e2fsck -p /var/lib/check.raw || [ $? = 1 ]; e2fsck -fn /var/lib/check.raw; rm /var/lib/check.raw")
    fleet.godwit(host, "vm", "start", vm.name)
    wait_for_redis(fleet, vm)
    expect_all_there(fleet, vm, answered)


def file_of(fleet, host, vm):
    return next(disk["path"] for disk in fleet.get(host, "/disks") if (disk["vm"], disk["name"]) == (vm.name, "root"))


def test_a_debian_with_uefi_and_a_tpm_moves_and_loses_nothing(fleet, debian):
    vm = fleet.run_debian("e1", debian, "--firmware", "uefi", "--tpm")
    wait_for_redis(fleet, vm)
    assert shell(fleet, vm, f"tpm2_nvdefine -s 6 -a 'ownerread|ownerwrite' {SECRET} >/dev/null && "
                 f"echo hello | tpm2_nvwrite -C o -i - {SECRET} && echo done") == "done\n"
    registers = shell(fleet, vm, "tpm2_pcrread sha256")
    assert "0x" in registers
    writer = Writer(fleet, vm)
    report = fleet.move(vm, "e1", "w1")["report"]
    answered = writer.stop()
    assert answered > 10
    assert report["disks"]["sent_bytes"] < 100 << 20, "of its own, not of the image's 330 MB"
    expect_all_there(fleet, vm, answered)
    assert shell(fleet, vm, "tpm2_pcrread sha256") == registers
    assert shell(fleet, vm, "journalctl -p err -b --no-pager -q | grep -i 'i/o error\\|ext4'") == ""
    expect_sound_after_a_power_cut(fleet, "w1", vm, answered)
    assert shell(fleet, vm, f"tpm2_nvread -C o -s 6 {SECRET}") == "hello\n"
    assert "uefi-vars" in fleet.godwit("w1", "disk", "ls").stdout


@pytest.mark.parametrize("victim", ["e1", "w1"])
def test_an_agent_is_killed_at_any_moment(fleet, debian, victim):
    """Wherever the guest is then, what it answered is there."""
    vm = fleet.run_debian("e1", debian)
    wait_for_redis(fleet, vm)
    writer = Writer(fleet, vm)
    fleet.begin_move(vm, "e1", "w1", "--bandwidth", "200mbit", *fleet.PATIENT)
    moment = random.uniform(0, LONGEST_S)
    print(f"killed after {moment:.2f} s")
    until = time.monotonic() + moment
    wait_until(lambda: time.monotonic() > until, 2 * LONGEST_S)
    fleet.restart_agent(victim)
    wait_until(lambda: fleet.sees_all("e1") and fleet.sees_all("client"), 40, "sessions")
    where = wait_until(lambda: (fleet.where(vm.name) or [None])[0], 60, lambda: f"a guest that runs: {fleet.logs()}")
    wait_until(vm.ping, 20, "its answer")
    answered = writer.stop()
    where = wait_until(lambda: (fleet.where(vm.name) or [None])[0], 60, "a guest that runs")
    expect_all_there(fleet, vm, answered)
    expect_sound_after_a_power_cut(fleet, where, vm, answered)
