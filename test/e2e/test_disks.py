"""Disks of vms, which move with them. Topology: fleet.py. The guest writes to a disk at random, each
block on stable storage before the next, and knows in its memory what must be where."""

import json
import subprocess
import time

import pytest
from conftest import wait_until

CHECK_LIMIT_S = 60
WRITTEN = 500  # blocks of 4 KiB, before it moves


def run_writer(fleet, *disks, disk="vda", rate="8mbit", **options):
    vm = fleet.run_vm(disks=disks or ["root,size=128MiB"], disk=disk, disk_rate=rate, **options)
    wait_until(lambda: written(vm) > WRITTEN, 60, "writes of the guest")
    return vm


def written(vm):
    """Blocks, by the guest's word; 0 while it has none."""
    return (vm.ask("report") or {"disk": {"written": 0}})["disk"]["written"]


def expect_intact(vm):
    """The guest reads all that it has ever written to its disk, and goes on."""
    disk = wait_until(lambda: vm.ask("check", CHECK_LIMIT_S), 20, vm.why_silent)["disk"]
    assert disk["damaged"] == 0 < disk["written"], disk
    wait_until(lambda: written(vm) > disk["written"], 10, "more writes")


def disks_at(fleet, host):
    return {(disk["vm"], disk["name"]): disk for disk in fleet.get(host, "/disks")}


def files_at(fleet, host):
    return fleet.lab.exec(host, "find", "/var/lib/godwit-disks/vms", "-type", "f").stdout.split()


def clusters_written(fleet, host):
    """By the file's own tables, which QEMU writes when it is told to flush."""
    told = fleet.lab.exec(host, "sh", "-c", "qemu-img map -U --output=json /var/lib/godwit-disks/vms/*/root.qcow2",
                          check=False)
    return sum(part["length"] for part in json.loads(told.stdout or "[]") if part["data"]) >> 16


def phase_of_disks(fleet, host, move):
    migration = fleet.migration(host, move) or {}
    return migration.get("progress", {}).get("disks", {}).get("phase")


def begin_slow_move(fleet, vm, *options, rate="3mbit"):
    """One whose disks take some seconds: of a cluster that is in use most is zeroes."""
    move = fleet.begin_move(vm, "e1", "w1", "--bandwidth", rate, *options)
    wait_until(lambda: phase_of_disks(fleet, "e1", move) in ("copying", "in-step"), 20,
               "disks that are copied")
    return move


# Beside what the guest writes to all the time a disk that it never looks at, of which the first 24 of 32 MiB
# are noise.
WITH_DATA = ("root,size=128MiB", "data,size=32MiB,format=raw")
DATA = "/var/lib/godwit-disks/vms/*/data.raw"
NOISE_MIB = 24


def write_noise(fleet, host, at_mib, size_mib):
    fleet.lab.exec(host, "sh", "-ec", f"dd if=/dev/urandom of=$(echo {DATA}) conv=notrunc bs=1M "
                   f"seek={at_mib} count={size_mib} iflag=fullblock")


def sum_of_data(fleet, host):
    return fleet.lab.exec(host, "sh", "-ec", f"sha256sum < $(echo {DATA})").stdout


def test_a_disk_moves_with_its_vm_and_back(fleet):
    """What it left there is compared, not trusted: of that, only what differs goes back."""
    vm = run_writer(fleet, *WITH_DATA)
    write_noise(fleet, "e1", 0, NOISE_MIB)
    noise = sum_of_data(fleet, "e1")
    there = fleet.move(vm, "e1", "w1")["report"]
    assert fleet.where(vm.name) == ["w1"]
    expect_intact(vm)
    assert disks_at(fleet, "e1")[vm.name, "root"]["moved_to"] == "w1"
    write_noise(fleet, "e1", 3, 1)
    write_noise(fleet, "e1", 30, 1)  # where the vm has zeroes
    back = fleet.move(vm, "w1", "e1")["report"]
    expect_intact(vm)
    assert sum_of_data(fleet, "e1") == sum_of_data(fleet, "w1") == noise
    assert "moved_to" not in disks_at(fleet, "e1")[vm.name, "root"]
    fleet.godwit("w1", "vm", "purge", vm.name)
    assert disks_at(fleet, "w1") == {} and files_at(fleet, "w1") == []
    assert there["disks"]["sent_bytes"] > NOISE_MIB << 20 and there["disks"]["same_bytes"] == 0
    assert back["disks"]["same_bytes"] >= (NOISE_MIB - 1) << 20
    assert back["disks"]["sent_bytes"] < there["disks"]["sent_bytes"] - (8 << 20)
    assert abs(sum(there["pause"].values()) - there["pause_ms"]) < 1
    # In step a write takes no round trip of 40 ms: so few wait for the target that the mean is less.
    disks = there["disks"]
    assert 0 < disks["usual_write_ms"] and 0 < disks["mean_write_ms"] < max(30, 2 * disks["usual_write_ms"]), disks


@pytest.mark.thorough
def test_several_disks_on_both_buses_and_in_both_formats(fleet):
    vm = run_writer(fleet, "data,size=64MiB,format=raw,bus=scsi", "more,size=48MiB,bus=scsi",
                    "root,size=64MiB", disk="sda")
    fleet.move(vm, "e1", "w1")
    expect_intact(vm)
    assert len(files_at(fleet, "w1")) == 3


@pytest.mark.drawn
def test_of_an_overlay_only_what_is_its_own_crosses(fleet):
    """The image is at both hosts; the guest has overwritten some of it."""
    noise = ("import random\n"
             "with open('/var/lib/base.raw', 'wb') as file:\n"
             "    file.write(random.Random(1).randbytes(64 << 20))\n")
    for host in ("e1", "w1"):
        fleet.lab.exec(host, "/usr/bin/python3", "-c", noise)
        fleet.godwit(host, "image", "add", "base", "/var/lib/base.raw", "--format", "raw")
    wait_for_index(fleet, "w1", "base")
    vm = run_writer(fleet, "root,image=base", rate="2mbit", cached=CACHED_MIB)
    moved = fleet.move(vm, "e1", "w1")
    expect_intact(vm)
    assert moved["report"]["disks"]["sent_bytes"] < 48 << 20, "the image is 64 MiB of noise"
    assert known_mib(moved) > CACHED_MIB - 10, "what it has read of the image, less what it writes to"
    assert fleet.godwit("w1", "image", "rm", "base", expect=1).stderr.count(vm.name) == 1
    # Of the image, what the guest has not written: at both hosts the same.
    fleet.godwit("w1", "vm", "stop", vm.name, "--force")
    there = fleet.lab.exec("w1", "sh", "-ec", "cd /var/lib/godwit-disks/vms/*; "
                           "qemu-img convert -O raw root.qcow2 /tmp/there.raw; "
                           "tail -c 16777216 /tmp/there.raw | sha256sum").stdout
    assert there == fleet.lab.exec("e1", "sh", "-c", "tail -c 16777216 /var/lib/base.raw | "
                                   "sha256sum").stdout


CACHED_MIB = 24  # of its disk's image in the guest's page cache


def wait_for_index(fleet, host, image):
    index = f"/var/lib/godwit/contents/image.{image}.index"
    wait_until(lambda: fleet.lab.exec(host, "test", "-e", index, check=False).returncode == 0, 60, "an index")


def known_mib(move):
    """Of the vm's memory what the target had, in one image or another."""
    return sum(use["bytes"] for use in move["report"]["encodings"] if use["name"] == "known") >> 20


# The same noise at every host.
NOISE = ("import random, sys\n"
         "with open(sys.argv[1], 'r+b' if sys.argv[1].endswith('data.raw') else 'wb') as file:\n"
         f"    file.write(random.Random(2).randbytes({NOISE_MIB} << 20))\n")
LIBRARY = "/var/lib/godwit-disks/images"


@pytest.fixture
def vm_of_noise(fleet):
    """A vm at e1 whose disk data, which is no overlay, has what is in the image noise of w1."""
    fleet.lab.exec("w1", "/usr/bin/python3", "-c", NOISE, "/var/lib/noise.raw")
    fleet.lab.exec("w1", "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "/var/lib/noise.raw", "/var/lib/noise.qcow2")
    fleet.godwit("w1", "image", "add", "noise", "/var/lib/noise.qcow2")
    vm = run_writer(fleet, *WITH_DATA)
    fleet.lab.exec("e1", "/usr/bin/python3", "-c", NOISE, disks_at(fleet, "e1")[vm.name, "data"]["path"])
    wait_for_index(fleet, "w1", "noise")
    yield vm
    fleet.godwit("w1", "image", "rm", "noise")


def test_what_the_target_has_in_an_image_does_not_cross(fleet, vm_of_noise):
    vm = vm_of_noise
    report = fleet.move(vm, "e1", "w1")["report"]
    expect_intact(vm)
    assert sum_of_data(fleet, "e1") == sum_of_data(fleet, "w1")
    assert report["disks"]["elsewhere_bytes"] >= NOISE_MIB << 20, report["disks"]
    assert report["disks"]["sent_bytes"] < NOISE_MIB << 20, "the noise itself did not go"


def test_an_image_that_has_changed_is_not_believed(fleet, vm_of_noise):
    """Behind everybody's back, in the middle and with its times as they were: that part goes after all."""
    vm = vm_of_noise
    fleet.lab.exec("w1", "sh", "-ec", f"cd {LIBRARY}; cp -p noise.qcow2 /tmp/times; "
                   "dd if=/dev/urandom of=noise.qcow2 bs=1M seek=8 count=6 conv=notrunc; "
                   "touch -r /tmp/times noise.qcow2")
    report = fleet.move(vm, "e1", "w1")["report"]
    expect_intact(vm)
    assert sum_of_data(fleet, "e1") == sum_of_data(fleet, "w1")
    found = report["disks"]["elsewhere_bytes"]
    assert (NOISE_MIB - 8) << 20 <= found <= (NOISE_MIB - 5) << 20, report["disks"]


@pytest.mark.thorough
def test_a_host_without_the_image_is_told_so_before(fleet):
    fleet.lab.exec("e1", "sh", "-ec", "truncate -s 64M /var/lib/empty.raw")
    fleet.godwit("e1", "image", "add", "only-here", "/var/lib/empty.raw", "--format", "raw")
    vm = run_writer(fleet, "root,image=only-here")
    refused = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=3)
    assert "image only-here" in refused.stderr and "godwit image add" in refused.stderr
    expect_intact(vm)


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_other_modes(fleet, mode):
    vm = run_writer(fleet)
    disks = fleet.move(vm, "e1", "w1", "--disk-mode", mode)["report"]["disks"]
    expect_intact(vm)
    # In `sync` a write takes the round trip of 40 ms, but the last, which are answered as the guest is stopped.
    assert (disks["mean_write_ms"] > 30) == (mode == "sync") and disks["mean_write_ms"] <= disks["slowest_write_ms"], disks


@pytest.mark.thorough
def test_a_move_is_held_back_for_the_guest_s_writes(fleet):
    vm = run_writer(fleet, memory="128MiB", dirty="2mbit", working_set="32MiB")
    move = fleet.begin_move(vm, "e1", "w1", "--no-compact", "--disk-mode", "sync", "--max-write-latency", "1ms", *fleet.PATIENT)
    wait_until(lambda: fleet.migration("e1", move).get("progress", {}).get("disks", {}).get("held_back_bps", 0) > 0, 20,
               "a cap")
    fleet.wait_for_state("e1", move, "committed", "draining", "done")
    expect_intact(vm)


def wait_until_some_came(fleet, vm):
    """Of the disk data: more than a move that breaks off throws away."""
    wait_until(lambda: disks_at(fleet, "w1").get((vm.name, "data"), {}).get("used_bytes", 0) > 8 << 20, 60,
               "some of a disk")


@pytest.mark.drawn
def test_aborted_while_it_is_copied(fleet):
    vm = run_writer(fleet, *WITH_DATA)
    write_noise(fleet, "e1", 0, NOISE_MIB)
    move = begin_slow_move(fleet, vm, rate="12mbit")
    wait_until_some_came(fleet, vm)
    fleet.godwit("e1", "migration", "abort", move)
    fleet.wait_for_state("e1", move, "aborted")
    expect_intact(vm)
    wait_until(lambda: files_at(fleet, "w1") == [], 20, "an end of the partial disk")
    fleet.move(vm, "e1", "w1")
    expect_intact(vm)


@pytest.mark.drawn
def test_aborted_before_anything_is_copied(fleet):
    """A few milliseconds apart: at each of them QEMU is asked for something else, and has to answer."""
    vm = fleet.run_vm(disks=["root,size=32MiB"])
    for late_ms in range(0, 32, 4):
        move = fleet.ask("e1", "POST", "/migrations", {"vm": vm.name, "to": "w1"})["id"]
        time.sleep(late_ms / 1000)
        fleet.ask("e1", "POST", f"/migrations/{move}/abort")
        fleet.wait_for_state("e1", move, "aborted", limit_s=15)
    vm.wait_until_it_counts()
    fleet.move(vm, "e1", "w1")
    fleet.wait_for_nothing_of(vm, "e1")


@pytest.mark.parametrize("victim", [pytest.param("e1", marks=pytest.mark.thorough), "w1"])
@pytest.mark.drawn
def test_an_agent_is_killed_while_disks_are_copied(fleet, victim):
    """The next move goes on with what came, unless its operator wants nothing of it."""
    vm = run_writer(fleet, *WITH_DATA)
    write_noise(fleet, "e1", 0, NOISE_MIB)
    move = begin_slow_move(fleet, vm, "--on-restart", "abort", rate="12mbit")
    wait_until_some_came(fleet, vm)
    wait_until(lambda: clusters_written(fleet, "w1") > 0, 60, "some of the other, flushed")
    fleet.restart_agent(victim)  # meanwhile nobody answers for the mirror: the guest goes on with its own disk
    wait_until(lambda: fleet.sees_all("e1") and fleet.sees_all("client"), 40, "sessions")
    vm.wait_until_it_answers()
    expect_intact(vm)
    fleet.wait_for_state("e1", move, "aborted")
    wait_until(lambda: disks_at(fleet, "w1").get((vm.name, "root"), {}).get("unfinished_from") == "e1", 60,
               lambda: f"a disk that is kept: {fleet.logs()}")
    assert "unfinished move from e1" in fleet.godwit("w1", "disk", "ls").stdout
    if victim == "e1":
        fleet.godwit("w1", "vm", "purge", vm.name)
        assert files_at(fleet, "w1") == []
    report = fleet.move(vm, "e1", "w1")["report"]
    assert (report["disks"]["same_bytes"] > 4 << 20) == (victim == "w1"), report
    expect_intact(vm)
    assert "unfinished_from" not in disks_at(fleet, "w1")[vm.name, "root"]


@pytest.mark.thorough
def test_the_source_s_agent_is_killed_and_goes_on_with_another_move(fleet):
    vm = run_writer(fleet)
    begin_slow_move(fleet, vm, rate="20mbit")
    fleet.restart_agent("e1")
    wait_until(lambda: fleet.where(vm.name) == ["w1"], 60, lambda: f"the vm at w1: {fleet.logs()}")
    vm.wait_until_it_answers()
    expect_intact(vm)


@pytest.mark.drawn
def test_a_cut_link_holds_the_guest_s_writes_up_once(fleet):
    vm = run_writer(fleet)
    move = fleet.begin_move(vm, "e1", "w1", "--hold", *fleet.PATIENT)
    fleet.wait_for_state("e1", move, "ready")
    assert phase_of_disks(fleet, "e1", move) == "in-step"
    link = fleet.lab.ls()["links"][0]["name"]
    fleet.lab.run("cut", link)
    try:
        wait_until(lambda: phase_of_disks(fleet, "e1", move) == "asynchronous", 10, "the fall-back")
    finally:
        fleet.lab.run("heal", link)
    wait_until(lambda: phase_of_disks(fleet, "e1", move) == "in-step", 40, "disks in step again")
    fleet.godwit("e1", "migration", "cutover", move)
    fleet.wait_for_state("e1", move, "committed", "draining", "done")
    expect_intact(vm)


def test_no_room_at_the_target_is_told_before(fleet, small_target):
    vm = run_writer(fleet)
    small_target(1)
    refused = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=3)
    assert "has 1 MiB free in /var/lib/godwit-disks/vms" in refused.stderr, refused.stderr


@pytest.mark.thorough
def test_a_disk_that_fills_up_at_the_target_ends_the_move(fleet, small_target):
    vm = run_writer(fleet, *WITH_DATA)
    write_noise(fleet, "e1", 0, NOISE_MIB)
    small_target(64)
    move = begin_slow_move(fleet, vm, rate="12mbit")
    wait_until_some_came(fleet, vm)
    fleet.lab.exec("w1", "dd", "if=/dev/zero", "of=/var/lib/godwit-disks/vms/filler", check=False)
    aborted = fleet.wait_for_state("e1", move, "aborted")
    assert "No space left" in aborted["reason"], aborted
    expect_intact(vm)
    wait_until(lambda: [f for f in files_at(fleet, "w1") if "filler" not in f] == [], 20,
               "an end of the partial disk")


@pytest.mark.thorough
def test_snapshots_that_find_no_room_or_no_link(fleet, small_target):
    vm = run_writer(fleet, rate="1mbit")
    make_snapshots(fleet, "e1", vm, "nightly")
    before = snapshots_at(fleet, "e1", vm)
    small_target(64)

    def begin():
        move = fleet.begin_move(vm, "e1", "w1", "--bandwidth", "1mbit")
        wait_until(lambda: any(f.endswith(".snapshots") for f in files_at(fleet, "w1")), 20, "their file")
        return move

    move = begin()
    fleet.lab.exec("w1", "dd", "if=/dev/zero", "of=/var/lib/godwit-disks/vms/filler", check=False)
    aborted = fleet.wait_for_state("e1", move, "aborted")
    assert "No space left" in aborted["reason"], aborted
    wait_until(lambda: [f for f in files_at(fleet, "w1") if "filler" not in f] == [], 20, "an end of the partial file")
    fleet.lab.exec("w1", "rm", "/var/lib/godwit-disks/vms/filler")
    move = begin()
    fleet.lab.run("cut", "east-west")
    assert fleet.migration("e1", move)["state"] == "planned"
    fleet.lab.run("heal", "east-west")
    fleet.godwit("e1", "migration", "set", move, "--bandwidth", "100mbit")
    fleet.wait_for_state("e1", move, "committed", "draining", "done")
    expect_intact(vm)
    assert snapshots_at(fleet, "w1", vm) == before


@pytest.mark.thorough
def test_a_vm_that_died_while_it_moves_is_not_started(fleet):
    """Its target may own it by then: here it waits for the source's word."""
    vm = run_writer(fleet)
    fleet.restart_agent("w1", "target.owner.run_guest.before")
    move = fleet.begin_move(vm, "e1", "w1", *fleet.PATIENT)
    wait_until(lambda: fleet.agent_stopped("w1"), 60, "the target's agent, frozen as owner")
    fleet.godwit("e1", "vm", "stop", vm.name, "--force")
    wait_until(lambda: fleet.vms_of("e1")[vm.name]["state"] == "stopped", 10, "the end of QEMU")
    for verb in ("start", "purge"):
        assert "is migrating" in fleet.godwit("e1", "vm", verb, vm.name, expect=1).stderr
    fleet.restart_agent("w1")
    fleet.wait_for_state("e1", move, "committed", "draining", "done")
    assert fleet.where(vm.name) == ["w1"]
    expect_intact(vm)


def snapshots_at(fleet, host, vm):
    """Inside of the file of its disk: when they were made, and what each of them has."""
    path = disks_at(fleet, host)[vm.name, "root"]["path"]
    info = json.loads(fleet.lab.exec(host, "qemu-img", "info", "-U", "--output=json", path).stdout)
    found = {}
    for each in info.get("snapshots", []):
        content = fleet.lab.exec(host, "sh", "-ec", f"qemu-img convert -U -l snapshot.id={each['id']} -O raw "
                                 f"{path} /tmp/snapshot; sha256sum < /tmp/snapshot; rm /tmp/snapshot").stdout
        found[each["name"]] = (each["date-sec"], each["date-nsec"], content)
    return found


def make_snapshots(fleet, host, vm, *names):
    path = disks_at(fleet, host)[vm.name, "root"]["path"]
    fleet.godwit(host, "vm", "stop", vm.name, "--force")
    for name in names:
        fleet.lab.exec(host, "qemu-img", "snapshot", "-c", name, path)
    fleet.godwit(host, "vm", "start", vm.name)
    vm.wait_until_it_answers()


@pytest.mark.thorough
def test_snapshots_inside_of_a_disk_move_with_it(fleet):
    vm = run_writer(fleet, rate="1mbit")
    make_snapshots(fleet, "e1", vm, "before upgrade", "nightly")
    before = snapshots_at(fleet, "e1", vm)
    assert list(before) == ["before upgrade", "nightly"]
    checks = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", "--dry-run").stdout
    assert "disk root has snapshots in its file (before upgrade, nightly): they move with it" in checks
    fleet.move(vm, "e1", "w1")
    expect_intact(vm)
    assert snapshots_at(fleet, "w1", vm) == before
    # Another one there: what was left here has it not, and is made anew.
    make_snapshots(fleet, "w1", vm, "in the west")
    there = snapshots_at(fleet, "w1", vm)
    fleet.move(vm, "w1", "e1")
    expect_intact(vm)
    assert snapshots_at(fleet, "e1", vm) == there and len(there) == 3
    # And nothing of them crosses where they are.
    fleet.move(vm, "e1", "w1")
    assert snapshots_at(fleet, "w1", vm) == there
    assert not [file for file in files_at(fleet, "w1") if file.endswith(".snapshots")]


@pytest.mark.thorough
def test_snapshots_that_do_not_come_whole_leave_the_vm_where_it_is(fleet):
    vm = run_writer(fleet, rate="1mbit")
    make_snapshots(fleet, "e1", vm, "nightly")
    before = snapshots_at(fleet, "e1", vm)

    def begin():
        move = fleet.begin_move(vm, "e1", "w1", "--bandwidth", "1mbit")
        wait_until(lambda: fleet.migration("e1", move).get("progress", {}).get("phase") == "snapshots", 20,
                   "snapshots that are copied")
        wait_until(lambda: any(f.endswith(".snapshots") for f in files_at(fleet, "w1")), 20, "their file")
        return move

    move = begin()
    fleet.godwit("e1", "migration", "abort", move)
    fleet.wait_for_state("e1", move, "aborted")
    wait_until(lambda: files_at(fleet, "w1") == [], 10, "nothing that is left")
    move = begin()
    fleet.kill_agent("w1")
    fleet.restart_agent("w1")
    aborted = fleet.wait_for_state("e1", move, "aborted")
    assert "snapshots in the disks' files" in aborted["reason"], aborted
    move = begin()
    fleet.kill_agent("e1")
    fleet.restart_agent("e1")
    fleet.wait_for_state("e1", move, "aborted")
    expect_intact(vm)
    fleet.move(vm, "e1", "w1")
    expect_intact(vm)
    assert snapshots_at(fleet, "w1", vm) == before
    assert not [file for file in files_at(fleet, "w1") if file.endswith(".snapshots")]


@pytest.mark.thorough
def test_what_was_left_goes_without_a_vm_of_the_same_name(fleet):
    vm = run_writer(fleet)
    fleet.move(vm, "e1", "w1")
    fleet.godwit("e1", "vm", "run", vm.name, "--kernel", fleet.guest / "vmlinuz", "--initrd",
                 fleet.guest / "initrd.img", "--disk", "root,size=16MiB")
    fleet.godwit("e1", "vm", "stop", vm.name, "--force")
    assert len(files_at(fleet, "e1")) == 2
    fleet.godwit("e1", "vm", "purge", vm.name)
    assert fleet.vms_of("e1")[vm.name]["state"] == "stopped" and len(files_at(fleet, "e1")) == 1


# A boot sector that says so on the serial port, again and again: xor ax,ax; mov ds,ax; mov si,text;
# next: lodsb; test al,al; jz -> mov si; mov dx,0x3f8; out dx,al; jmp next; text.
BOOT_SECTOR = bytes.fromhex("31c0 8ed8 be147c ac 84c0 7406 baf803 ee ebf5 ebf0") + b"booted from the disk\r\n\0"


def says_that_it_booted(fleet, host, name):
    console = fleet.popen(host, fleet.bin / "godwit", "vm", "console", name, stdin=subprocess.PIPE)
    try:
        return any("booted from the disk" in line for line in console.stdout)
    finally:
        console.kill()
        console.communicate()


def test_a_vm_boots_from_its_disk_and_goes_on_elsewhere(fleet):
    code = ("import sys\n"
            "with open('/var/lib/boot.raw', 'wb') as file:\n"
            "    file.write(bytes.fromhex(sys.argv[1]).ljust(510, b'\\0') + b'\\x55\\xaa' + bytes(1 << 20))\n")
    for host in ("e1", "w1"):
        fleet.lab.exec(host, "/usr/bin/python3", "-c", code, BOOT_SECTOR.hex())
        fleet.godwit(host, "image", "add", "boot", "/var/lib/boot.raw", "--format", "raw")
    fleet.godwit("e1", "vm", "run", "bare", "--memory", "64MiB", "--disk", "root,image=boot,size=8MiB")
    assert says_that_it_booted(fleet, "e1", "bare")
    fleet.godwit("e1", "migrate", "bare", "--to", "w1", "--delete-source", *fleet.PATIENT)
    assert says_that_it_booted(fleet, "w1", "bare")
    assert ("bare", "root") not in disks_at(fleet, "e1") and files_at(fleet, "e1") == []


@pytest.mark.drawn
def test_a_stopped_vm_keeps_its_disks(fleet):
    vm = fleet.run_vm(disks=["root,size=16MiB"])
    fleet.godwit("e1", "vm", "stop", vm.name, "--force")
    refused = fleet.godwit("e1", "vm", "rm", vm.name, expect=1)
    assert "vm purge" in refused.stderr and "--keep-disks" in refused.stderr
    fleet.godwit("e1", "vm", "start", vm.name)
    vm.wait_until_it_answers()
    fleet.godwit("e1", "vm", "stop", vm.name, "--force")
    fleet.godwit("e1", "vm", "rm", vm.name, "--keep-disks")
    assert len(files_at(fleet, "e1")) == 1
    fleet.godwit("e1", "vm", "purge", vm.name)
    assert files_at(fleet, "e1") == []
