"""Disks on storage that both hosts see. Topology: fleet.py; a directory of this machine is what e1 and w1 have
in the place of their vms' disks, as if it were mounted from a server."""

import subprocess
import sys

import pytest
from conftest import wait_until
from test_disks import (NOISE_MIB, WITH_DATA, disks_at, expect_intact, files_at, phase_of_disks, run_writer,
                        sum_of_data, write_noise)

PLACE = "/var/lib/godwit-disks/vms"


# Takes a directory along into another's mount namespace: open_tree(2), setns(2), move_mount(2).
MOUNT_IN = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid, source, at = sys.argv[1:]
AT_FDCWD, OPEN_TREE_CLONE, CLONE_NEWNS, MOVE_MOUNT_F_EMPTY_PATH = -100, 1, 0x20000, 4
tree = libc.syscall(428, AT_FDCWD, source.encode(), OPEN_TREE_CLONE)
done = libc.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), CLONE_NEWNS)
done = done or libc.syscall(429, tree, b"", AT_FDCWD, at.encode(), MOVE_MOUNT_F_EMPTY_PATH)
sys.exit(os.strerror(ctypes.get_errno()) if tree < 0 or done else 0)
"""


@pytest.fixture
def shared(fleet, tmp_path):
    tmp_path.chmod(0o711)
    for host in ("e1", "w1"):
        subprocess.run([sys.executable, "-c", MOUNT_IN, str(fleet.lab.node(host)["pid"]), tmp_path, PLACE], check=True)
    yield tmp_path
    for host in ("e1", "w1"):
        for vm in fleet.vms_of(host):
            fleet.godwit(host, "vm", "stop", vm, "--force")
            fleet.godwit(host, "vm", "purge", vm)
        fleet.lab.exec(host, "umount", "-l", PLACE)


def markers(place):
    return list(place.rglob("*.marker"))


@pytest.mark.thorough  # 34 s; volumes are shared, too
def test_a_disk_that_both_hosts_see_stays_where_it_is(fleet, shared):
    vm = run_writer(fleet, *WITH_DATA)
    write_noise(fleet, "e1", 0, NOISE_MIB)
    tried = fleet.json("e1", "migrate", vm.name, "--to", "w1", "--dry-run")
    assert tried["estimate"]["shared_disks"] and tried["estimate"]["disk_bytes"] == 0, tried
    noise = sum_of_data(fleet, "e1")
    there = fleet.move(vm, "e1", "w1", "--delete-source")
    assert there["shared_disks"] and "disks" not in there["report"], there
    expect_intact(vm)
    assert disks_at(fleet, "e1") == {} and len(files_at(fleet, "w1")) == 2
    fleet.godwit("e1", "vm", "purge", vm.name, expect=1)  # the disks are not its any more
    assert fleet.move(vm, "w1", "e1")["shared_disks"]
    expect_intact(vm)
    assert sum_of_data(fleet, "e1") == noise and markers(shared) == []


@pytest.mark.thorough
@pytest.mark.parametrize("victim", ["e1", "w1"])
def test_an_agent_is_killed_meanwhile(fleet, shared, victim):
    vm = run_writer(fleet)
    move = fleet.begin_move(vm, "e1", "w1", "--hold", "--on-restart", "abort", *fleet.PATIENT)
    fleet.wait_for_state("e1", move, "ready")
    assert phase_of_disks(fleet, "e1", move) is None
    fleet.restart_agent(victim)
    fleet.wait_for_state("e1", move, "aborted")
    wait_until(lambda: fleet.sees_all("e1") and fleet.where(vm.name) == ["e1"], 40, "sessions, and the vm at e1")
    vm.wait_until_it_answers()
    expect_intact(vm)
    assert len(files_at(fleet, "w1")) == 1, "what w1 did not make it does not remove"
    fleet.move(vm, "e1", "w1")
    expect_intact(vm)


@pytest.mark.thorough
def test_aborted_meanwhile(fleet, shared):
    vm = run_writer(fleet)
    move = fleet.begin_move(vm, "e1", "w1", "--hold", *fleet.PATIENT)
    fleet.wait_for_state("e1", move, "ready")
    fleet.godwit("e1", "migration", "abort", move)
    fleet.wait_for_state("e1", move, "aborted")
    expect_intact(vm)
    wait_until(lambda: vm.name not in fleet.vms_of("w1"), 20, "an end of the vm at w1")
    expect_intact(vm)
    assert len(files_at(fleet, "e1")) == 1


@pytest.mark.thorough
def test_a_host_that_finds_what_it_does_not_know_takes_nothing(fleet, shared):
    """Without a marker nothing proves that they are the same."""
    vm = run_writer(fleet)
    directory = fleet.lab.exec("e1", "sh", "-c", f"echo {PLACE}/*").stdout.strip()
    fleet.lab.exec("e1", "chattr", "+i", directory)
    try:
        refused = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=3).stderr
    finally:
        fleet.lab.exec("e1", "chattr", "-i", directory)
    assert "no record of what is in" in refused, refused
    refused = fleet.godwit("e1", "replica", "add", vm.name, "--to", "w1", expect=3).stderr
    assert "no record of what is in" in refused, refused
    expect_intact(vm)
