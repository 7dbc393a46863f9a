"""A running vm's migration stream is recorded (`godwit debug stream record`), in the fleet of fleet.py.

Whatever ends a recording: the guest runs on, can be moved, and a file that is not whole is gone.
"""

import contextlib
import json
import os
import signal

import pytest
from conftest import wait_until
from fleet import Observer, Probe

FILE, OTHER, THIRD = (f"/var/lib/godwit/{name}.stream" for name in ("guest", "other", "third"))
SMALL = "/var/lib/godwit/small"


def record(fleet, vm, *options, host="e1", file=FILE, expect=0):
    return fleet.godwit(host, "debug", "stream", "record", vm.name, file, *options, expect=expect)


def size_of(fleet, host="e1", file=FILE):
    """None if there is no such file."""
    done = fleet.lab.exec(host, "stat", "-c", "%s %a", file, check=False)
    size, mode = done.stdout.split() if done.returncode == 0 else (None, "600")
    assert mode == "600"
    return None if size is None else int(size)


class Recording:
    """One that goes on until it is ended; from the moment on in which something was written."""

    def __init__(self, fleet, vm, host="e1", file=FILE):
        self.fleet, self.host, self.file = fleet, host, file
        self.process = fleet.popen(host, fleet.bin / "godwit", "debug", "stream", "record", vm.name,
                                   file, "--for", "60s")
        wait_until(lambda: size_of(fleet, host, file), 20, "something is recorded")

    def interrupt(self):
        for pid in self.fleet.processes(self.host, "godwit"):
            os.kill(pid, signal.SIGINT)

    def expect_failure(self, word):
        _, err = self.process.communicate(timeout=30)
        assert self.process.returncode == 1, err
        assert word in err and f"{self.file} is removed" in err, err
        assert size_of(self.fleet, self.host, self.file) is None


@contextlib.contextmanager
def small_disk(fleet):
    fleet.lab.exec("e1", "sh", "-ec", f"mkdir {SMALL}; mount -t tmpfs -o mode=700,size=4m tmpfs {SMALL}")
    try:
        yield SMALL
    finally:
        fleet.lab.exec("e1", "sh", "-ec", f"umount {SMALL}; rmdir {SMALL}")


def stops(fleet, vm):
    return [line for line in fleet.log("e1").splitlines() if f'"{vm.name}"' in line and "STOP" in line]


@pytest.mark.drawn
def test_a_guest_is_recorded_and_moves_afterwards(fleet):
    vm = fleet.run_vm()
    with Observer(vm):
        with Probe(vm) as probe:
            done = record(fleet, vm, "--json")
            told = json.loads(done.stdout)
            assert "secrets" in done.stderr
            assert told["rounds"] == 2 and told["bytes"] == size_of(fleet) > 10 << 20
            again = record(fleet, vm, expect=1)
            assert "exists already" in again.stderr and size_of(fleet) == told["bytes"]

            timed = json.loads(record(fleet, vm, "--for", "1s", "--json", file=OTHER).stdout)
            assert timed["bytes"] == size_of(fleet, file=OTHER) > 1 << 20
            fleet.lab.exec("e1", "rm", OTHER)

            recording = Recording(fleet, vm, file=OTHER)
            refused = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=3)
            assert f"{vm.name} is being recorded" in refused.stderr
            assert "is being recorded already" in record(fleet, vm, file=THIRD, expect=1).stderr
            assert size_of(fleet, file=THIRD) is None
            recording.interrupt()
            recording.expect_failure("interrupted")
        probe.expect_nothing_lost()

        # All of it would take longer, and what is cut is a stream, too.
        fleet.lab.exec("e1", "sh", "-c", f"head -c 16M {FILE} > {THIRD}")
        shown = json.loads(fleet.godwit("e1", "debug", "stream", "bench", THIRD, "--json").stdout)
        assert shown["exact"] and shown["memory_bytes"] > 96 << 20 and shown["pages"] > 2000
        assert shown["codings"][1]["ratio"] > 1.1, shown
        fleet.lab.exec("e1", "rm", THIRD)

        with small_disk(fleet) as disk:
            full = record(fleet, vm, file=f"{disk}/x", expect=1)
            assert "No space left" in full.stderr and size_of(fleet, file=f"{disk}/x") is None

        recording = Recording(fleet, vm, file=OTHER)
        fleet.kill_agent("e1")
        recording.expect_failure("closed the connection")
        fleet.restart_agent("e1")
        assert stops(fleet, vm) == []

        identifier = fleet.begin_move(vm, "e1", "w1", *fleet.PATIENT)
        assert "is migrating" in record(fleet, vm, file=OTHER, expect=1).stderr
        fleet.godwit("e1", "migration", "wait", identifier)
        vm.wait_until_it_counts()

    recording = Recording(fleet, vm, host="w1")
    fleet.godwit("w1", "vm", "stop", vm.name, "--force")
    recording.expect_failure(f"QEMU of vm {vm.name} ended")


def test_a_guest_that_QEMU_stops_goes_on(fleet):
    """It writes so little that QEMU, which no downtime limit keeps from it, would hand it over."""
    vm = fleet.run_vm(dirty="0bit", nic=False)
    told = json.loads(record(fleet, vm, "--rounds", "1000", "--json", file=THIRD).stdout)
    assert told["paused_ms"] > 0 and told["rounds"] < 1000, told
    wait_until(lambda: fleet.vms_of("e1")[vm.name]["state"] == "running", 20, "it runs")
