"""Replicas of vms' disks at other hosts. Topology: fleet.py. As in test_disks.py the guest writes to one disk at
random, and a second one is noise."""

import json
import os
import signal

import pytest
from conftest import wait_until
from test_disks import (NOISE_MIB, WITH_DATA, disks_at, expect_intact, files_at, run_writer, sum_of_data,
                        wait_until_some_came, write_noise)

MEBIBYTE = 1 << 20


def replica_of(fleet, vm, host="e1"):
    found = [each for each in fleet.get(host, "/replicas") if each["vm"] == vm.name]
    return found[0] if found else None


def sync(fleet, vm):
    return json.loads(fleet.godwit("e1", "replica", "sync", vm.name, "--json").stdout)["last_run"]


def expect_only_changes(run):
    """It went by the bitmaps: a comparison would have found the same."""
    assert run["same_bytes"] == 0 < run["sent_bytes"] < NOISE_MIB * MEBIBYTE, run


def end_guest(fleet):
    """QEMU closes its files, as when its guest turns itself off."""
    (qemu,) = fleet.processes("e1", "qemu-system-x86")
    os.kill(qemu, signal.SIGTERM)
    wait_until(lambda: fleet.processes("e1", "qemu-system-x86") == [], 20, "an end of QEMU")


def bitmaps_at(fleet, host):
    """In files that no QEMU has open."""
    told = fleet.lab.exec(host, "sh", "-ec", "qemu-img info --output=json /var/lib/godwit-disks/vms/*/root.qcow2")
    return json.loads(told.stdout)["format-specific"]["data"].get("bitmaps", [])


def test_a_replica_follows_and_a_move_sends_what_it_lacks(fleet):
    vm = run_writer(fleet, *WITH_DATA)
    write_noise(fleet, "e1", 0, NOISE_MIB)
    noise = sum_of_data(fleet, "e1")
    added = fleet.godwit("e1", "replica", "add", vm.name, "--to", "west", "--every", "1h")
    assert f"vm {vm.name} is replicated at w1" in added.stdout
    assert disks_at(fleet, "w1")[vm.name, "data"]["replica_from"] == "e1"
    assert "replica of e1's" in fleet.godwit("w1", "disk", "ls").stdout
    assert sum_of_data(fleet, "w1") == noise
    first = replica_of(fleet, vm)
    assert first["last_run"]["sent_bytes"] > NOISE_MIB * MEBIBYTE and first["behind_s"] >= 0
    expect_only_changes(sync(fleet, vm))
    fleet.restart_agent("e1")
    fleet.restart_agent("w1")
    wait_until(lambda: fleet.sees_all("e1") and fleet.sees_all("client"), 40, "sessions")
    expect_only_changes(sync(fleet, vm))
    wait_until(lambda: (replica_of(fleet, vm) or {}).get("behind_bytes", 0) > 0, 20, "writes that are counted")
    # What is not as it was left is noticed: a purge makes it whole again.
    fleet.godwit("w1", "vm", "purge", vm.name)
    assert sync(fleet, vm)["sent_bytes"] > NOISE_MIB * MEBIBYTE
    report = fleet.move(vm, "e1", "w1")["report"]["disks"]
    assert report["same_bytes"] >= NOISE_MIB * MEBIBYTE, report
    expect_intact(vm)
    assert "replica_from" not in disks_at(fleet, "w1")[vm.name, "root"]
    wait_until(lambda: replica_of(fleet, vm) is None, 60, "an end of the replica, whose vm has moved")
    expect_intact(vm)


@pytest.mark.drawn
def test_a_replica_outlives_its_guest_and_nothing_is_left_of_one_that_is_removed(fleet):
    vm = run_writer(fleet)
    fleet.godwit("e1", "replica", "add", vm.name, "--to", "w1")
    end_guest(fleet)
    assert "godwit replica rm" in fleet.godwit("e1", "vm", "rm", vm.name, expect=1).stderr
    assert len(bitmaps_at(fleet, "e1")) > 0
    assert "is stopped" in fleet.godwit("e1", "replica", "sync", vm.name, expect=1).stderr
    fleet.godwit("e1", "vm", "start", vm.name)
    expect_only_changes(sync(fleet, vm))
    fleet.godwit("e1", "replica", "rm", vm.name)
    assert files_at(fleet, "w1") == [] and disks_at(fleet, "w1") == {}
    assert fleet.lab.exec("w1", "ls", "-A", "/run/godwit/replicas").stdout == ""
    assert replica_of(fleet, vm) is None
    end_guest(fleet)
    assert bitmaps_at(fleet, "e1") == []
    assert "has no replica" in fleet.godwit("e1", "replica", "rm", vm.name, expect=1).stderr


@pytest.mark.thorough
@pytest.mark.parametrize("victim", ["e1", "w1"])
def test_an_agent_is_killed_while_a_replica_is_copied(fleet, victim):
    vm = run_writer(fleet, *WITH_DATA)
    write_noise(fleet, "e1", 0, NOISE_MIB)
    fleet.godwit("e1", "replica", "add", vm.name, "--to", "w1", "--every", "1h", "--rate", "30mbit", "--detach")
    wait_until_some_came(fleet, vm)
    fleet.restart_agent(victim)
    done = wait_until(lambda: (replica_of(fleet, vm) or {}).get("last_run"), 40,
                      lambda: f"{replica_of(fleet, vm)}\n{fleet.logs()}")
    assert done["same_bytes"] > 4 * MEBIBYTE, "what had come did not come again"
    assert sum_of_data(fleet, "w1") == sum_of_data(fleet, "e1")
    expect_intact(vm)


@pytest.mark.thorough
def test_a_replica_that_finds_no_room_says_so_and_goes_on_later(fleet, small_target):
    vm = run_writer(fleet, *WITH_DATA)
    write_noise(fleet, "e1", 0, NOISE_MIB)
    small_target(64)
    fleet.godwit("e1", "replica", "add", vm.name, "--to", "w1", "--rate", "12mbit", "--detach")
    wait_until(lambda: files_at(fleet, "w1"), 20, "its files")
    filler = "/var/lib/godwit-disks/vms/filler"
    fleet.lab.exec("w1", "dd", "if=/dev/zero", f"of={filler}", check=False)
    wait_until(lambda: "No space left" in replica_of(fleet, vm).get("reason", ""), 30,
               lambda: f"a reason: {replica_of(fleet, vm)}")
    expect_intact(vm)
    fleet.lab.exec("w1", "rm", filler)
    wait_until(lambda: replica_of(fleet, vm)["runs"] > 0, 90, lambda: f"a run: {replica_of(fleet, vm)}")
    fleet.godwit("e1", "replica", "rm", vm.name)


@pytest.mark.thorough
def test_a_move_takes_the_place_of_a_replica_that_is_copied(fleet):
    vm = run_writer(fleet, *WITH_DATA)
    write_noise(fleet, "e1", 0, NOISE_MIB)
    fleet.godwit("e1", "replica", "add", vm.name, "--to", "w1", "--rate", "12mbit", "--detach")
    wait_until_some_came(fleet, vm)
    report = fleet.move(vm, "e1", "w1")["report"]["disks"]
    assert report["same_bytes"] > 4 * MEBIBYTE
    expect_intact(vm)
    fleet.move(vm, "w1", "e1")
    expect_intact(vm)


@pytest.mark.thorough
def test_what_cannot_be_is_said_and_changes_nothing(fleet):
    vm = run_writer(fleet)
    nothing = fleet.run_vm()
    def refused(*words, status=1):
        return fleet.godwit("e1", "replica", *words, expect=status).stderr
    assert "no running vm 'ghost'" in refused("add", "ghost", "--to", "w1")
    assert "nowhere" in refused("add", vm.name, "--to", "nowhere", status=3)
    assert "no disks" in refused("add", nothing.name, "--to", "w1", status=3)
    assert "from 1 s" in refused("add", vm.name, "--to", "w1", "--every", "10ms", status=2)
    assert fleet.get("e1", "/replicas") == [] and files_at(fleet, "w1") == []
    fleet.godwit("e1", "replica", "add", vm.name, "--to", "w1")
    fleet.godwit("e1", "replica", "add", vm.name, "--to", "w1", "--every", "2m")
    assert [each["every_s"] for each in fleet.get("e1", "/replicas")] == [120]
    fleet.kill_agent("w1")
    wait_until(lambda: not fleet.sees_all("e1"), 60, "an end of the session")
    assert "--force" in refused("rm", vm.name)
    fleet.godwit("e1", "replica", "rm", vm.name, "--force")
    assert fleet.get("e1", "/replicas") == []
