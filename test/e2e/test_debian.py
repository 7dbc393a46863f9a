"""A guest as clouds have them: Debian, systemd, ext4, UEFI, a TPM (tools/make-debian-image). Topology: fleet.py.
Its redis answers a write once it is on the disk; whatever happens to agents and links, what it answered is there
after a power cut at the target, and the file system is whole."""

import os
import random
import subprocess
import time

import pytest
from conftest import build_directory, wait_until
from debian import BOOT_LIMIT_S, READ_SECRET, SHELL, STORE_SECRET, WRITER, first_lost, make_image

pytestmark = pytest.mark.thorough

LONGEST_MOVE_S, LONGEST_CUT_S = 8, 5
READ_CD = "head -n 1 /dev/sr0; (echo x >/dev/sr0) 2>/dev/null || echo read-only"


@pytest.fixture(scope="module")
def debian(shared_fleet):
    files = make_image(build_directory().resolve() / "debian")
    for host in ("e1", "w1"):
        shared_fleet.godwit(host, "image", "add", "debian", files / "root.qcow2")
        shared_fleet.lab.exec(host, "sh", "-ec", "truncate -s 1M /var/lib/seed.raw; "
                              "echo seed | dd of=/var/lib/seed.raw conv=notrunc status=none")
        shared_fleet.godwit(host, "image", "add", "seed", "/var/lib/seed.raw", "--format", "raw")
    return files


def shell(fleet, vm, command):
    """What a shell of root's in the guest says; None while there is none."""
    done = fleet.lab.exec("client", "/usr/bin/python3", "-c", SHELL, vm.address, command, check=False)
    return done.stdout if done.returncode == 0 else None


def wait_for_redis(fleet, vm):
    wait_until(lambda: shell(fleet, vm, "redis-cli ping") == "PONG\n", BOOT_LIMIT_S, "redis in the guest")


class Writer:
    def __init__(self, fleet, vm, answered=0):
        self._process = fleet.popen("client", "/usr/bin/python3", "-c", WRITER, vm.address, str(answered),
                                    stdin=subprocess.PIPE)

    def stop(self):
        """The last write that was answered; the connection has lived."""
        out, said = self._process.communicate("\n", timeout=60)
        assert self._process.returncode == 0, said
        answered, longest_ms = map(int, out.split())
        print(f"{answered} writes, the longest took {longest_ms} ms")
        return answered


def expect_all_there(fleet, vm, answered):
    assert shell(fleet, vm, first_lost(answered)) == "0\n", f"the first that is lost, of {answered}"


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
    vm = fleet.run_debian("e1", debian, "--firmware", "uefi", "--tpm", "--disk", "seed,image=seed,bus=cdrom")
    wait_for_redis(fleet, vm)
    assert shell(fleet, vm, READ_CD) == "seed\nread-only\n"
    assert shell(fleet, vm, STORE_SECRET) == "done\n"
    registers = shell(fleet, vm, "tpm2_pcrread sha256")
    assert "0x" in registers
    writer = Writer(fleet, vm)
    report = fleet.move(vm, "e1", "w1")["report"]
    answered = writer.stop()
    assert answered > 10
    assert report["disks"]["sent_bytes"] < 100 << 20, "of its own, not of the image's 760 MB"
    expect_all_there(fleet, vm, answered)
    assert shell(fleet, vm, "tpm2_pcrread sha256") == registers
    assert shell(fleet, vm, READ_CD) == "seed\nread-only\n"
    assert shell(fleet, vm, "journalctl -p err -b --no-pager -q | grep -i 'i/o error\\|ext4'") == ""
    expect_sound_after_a_power_cut(fleet, "w1", vm, answered)
    assert shell(fleet, vm, READ_SECRET) == "hello\n"
    assert "uefi-vars" in fleet.godwit("w1", "disk", "ls").stdout


def wait_a_while(longest_s, chance):
    """A moment of chance is what is tried."""
    until = time.monotonic() + chance.uniform(0, longest_s)
    wait_until(lambda: time.monotonic() > until, 2 * longest_s)


def cut_link(fleet, chance):
    link = fleet.lab.ls()["links"][0]["name"]
    fleet.lab.run("cut", link)
    try:
        wait_a_while(LONGEST_CUT_S, chance)
    finally:
        fleet.lab.run("heal", link)


def is_over(fleet, vm):
    """No move of it is under way, and it runs at one host."""
    moves = [move for host in ("e1", "w1") for move in fleet.get(host, "/migrations") or [] if move["vm"] == vm.name]
    return all(move["state"] in ("aborted", "done", "draining") for move in moves) and len(fleet.where(vm.name)) == 1


def begin(fleet, vm):
    """From where it is. Nothing while a move goes on with another's, that its agent's end had broken off."""
    source, target = ("e1", "w1") if fleet.where(vm.name) == ["e1"] else ("w1", "e1")
    done = fleet.godwit(source, "migrate", vm.name, "--to", target, "--detach", "--bandwidth", "200mbit",
                        *fleet.PATIENT, expect=None)
    return (source, target) if done.returncode == 0 else None


def test_whatever_happens_what_was_answered_is_there(fleet, debian):
    """Moves there and back, in which an agent is killed or the link is cut at a moment of chance."""
    seed = os.environ.get("GODWIT_SEED", str(random.randrange(1 << 32)))
    points = int(os.environ.get("GODWIT_POINTS", "4"))
    chance = random.Random(seed)
    print(f"seed {seed}")
    vm = fleet.run_debian("e1", debian)
    wait_for_redis(fleet, vm)
    answered = 0
    for point in range(points):
        writer = Writer(fleet, vm, answered)
        source, target = wait_until(lambda: begin(fleet, vm), 120, "a move that begins")
        wait_a_while(LONGEST_MOVE_S, chance)
        what = chance.choice(["the source's agent killed", "the target's agent killed", "the link cut"])
        if what == "the link cut":
            cut_link(fleet, chance)
        else:
            fleet.restart_agent(source if "source" in what else target)
        wait_until(lambda: fleet.sees_all("e1") and fleet.sees_all("client"), 40, "sessions")
        wait_until(lambda: is_over(fleet, vm), 120, lambda: f"an end of the move: {fleet.logs()}")
        wait_until(vm.ping, 20, "its answer")
        answered = writer.stop()
        expect_all_there(fleet, vm, answered)
        print(f"{point + 1:3} {what}: it is at {fleet.where(vm.name)[0]}, {answered} writes are there", flush=True)
    expect_sound_after_a_power_cut(fleet, fleet.where(vm.name)[0], vm, answered)
