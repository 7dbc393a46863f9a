"""The crash table of a hand-over (docs/ARCHITECTURE.md, design 9): processes killed and the WAN cut at
exact points of a move. The agent freezes at a point (src/agent/fault.hh), then the test strikes.

In all of them an observer looks for two running instances, and the vm's memory counter, as far as
the client sees it, never jumps. Topology: fleet.py.
"""

import contextlib
import os
import signal

import pytest
from conftest import wait_until
from fleet import ADDRESSES, Observer, Probe
from pytest import param

thorough = pytest.mark.thorough  # beside a neighbouring point that ./dev test has
AFTER_RELEASE = "source.released.commit_target.before"


@contextlib.contextmanager
def watched(fleet, judge=Probe.expect_one_history):
    """A new vm, watched from outside while the block runs; then the client's probe is judged."""
    vm = fleet.run_vm()
    with Observer(vm), Probe(vm) as probe:
        yield vm
    judge(probe)


def begin(fleet, vm, *options):
    return fleet.begin_move(vm, "e1", "w1", *fleet.PATIENT, *options)


def begin_slow(fleet, vm):
    """A move that stays in `copying`."""
    identifier = begin(fleet, vm, "--bandwidth", "20mbit")
    fleet.wait_for_state("e1", identifier, "copying")
    return identifier


def begin_until_frozen(fleet, vm, host, point):
    """A move that has come to `point`, where the agent of `host` stands still."""
    fleet.restart_agent(host, fault=point)
    identifier = begin(fleet, vm)
    wait_until(lambda: fleet.agent_stopped(host), 60,
               lambda: f"{host} at {point}: {fleet.logs()}")
    return identifier


def thaw(fleet, host):
    os.kill(fleet.agent(host), signal.SIGCONT)


def kill_qemu(fleet, vm, host):
    pids = [pid for pid, name in fleet.guests(host) if name == vm.name]
    assert len(pids) == 1, pids
    os.kill(pids[0], signal.SIGKILL)


def cut(fleet):
    fleet.lab.run("cut", "east-west")


def heal(fleet):
    fleet.lab.run("heal", "east-west")
    wait_until(lambda: fleet.sees_all("e1") and fleet.sees_all("w1"), 40, "the sessions over the WAN")


def expect_at_source(fleet, vm, identifier):
    """Nothing has happened: it runs where it was, and nothing of it is at the target."""
    fleet.wait_for_state("e1", identifier, "aborted")
    vm.wait_until_it_counts()
    assert fleet.where(vm.name) == ["e1"]
    fleet.wait_for_nothing_of(vm, "w1")


def expect_at_target(fleet, vm, identifier):
    """It has moved, and nothing of it is at the source."""
    fleet.wait_for_state("e1", identifier, "draining", "done")
    vm.wait_until_it_counts()
    assert fleet.where(vm.name) == ["w1"]
    fleet.wait_for_nothing_of(vm, "e1")


def expect_decided(fleet, vm, identifier):
    """The target decides: the vm runs there if all of it has come, else its refusal gives it back."""
    reached = fleet.wait_for_state("e1", identifier, "draining", "done", "aborted")
    if reached["state"] == "aborted":
        assert "did not arrive whole" in reached["reason"], reached
        return expect_at_source(fleet, vm, identifier)
    return expect_at_target(fleet, vm, identifier)


# ---- the agents ----

# Whose agent dies, where, and where the vm runs then. At the target's `loaded` it has everything.
@pytest.mark.parametrize(("host", "point", "expect"), [
    ("e1", "source.preparing.start_memory.after", expect_at_source),
    param("e1", "source.copying.continue_memory.after", expect_at_source, marks=thorough),
    param("e1", "source.switching.pause_ports.before", expect_at_source, marks=thorough),
    ("e1", "source.switching.continue_switchover.after", expect_at_source),
    param("e1", "source.released.record.before", expect_at_source, marks=thorough),
    param("e1", "source.released.record.after", expect_decided, marks=thorough),
    # The end of its stream, by which the target knows that it has all, may not have left.
    ("e1", "source.released.commit_target.after", expect_decided),
    param("e1", "source.committed.record.before", expect_at_target, marks=thorough),
    ("e1", "source.committed.end_guest.before", expect_at_target),
    param("w1", "target.preparing.reply_prepared.before", expect_at_source, marks=thorough),
    ("w1", "target.loaded.record.before", expect_at_source),
    param("w1", "target.loaded.record.after", expect_at_target, marks=thorough),
    param("w1", "target.owner.record.before", expect_at_target, marks=thorough),
    ("w1", "target.owner.record.after", expect_at_target),
    param("w1", "target.owner.reply_owns.before", expect_at_target, marks=thorough),
])
def test_agent_dies(fleet, host, point, expect):
    with watched(fleet) as vm:
        identifier = begin_until_frozen(fleet, vm, host, point)
        fleet.restart_agent(host)
        expect(fleet, vm, identifier)


def test_target_agent_dies_while_copying(fleet):
    with watched(fleet, Probe.expect_nothing_lost) as vm:
        identifier = begin_slow(fleet, vm)
        fleet.restart_agent("w1")
        expect_at_source(fleet, vm, identifier)


# ---- the WAN ----

def test_cut_while_copying_is_survived(fleet):
    with watched(fleet) as vm:
        identifier = begin(fleet, vm, "--bandwidth", "60mbit")
        fleet.wait_for_state("e1", identifier, "copying")
        wait_until(lambda: fleet.migration("e1", identifier).get("progress", {})
                   .get("sent_bytes", 0) > 2 << 20, 20, "some memory at the target")
        cut(fleet)
        wait_until(lambda: not fleet.migration("e1", identifier)["progress"]["lane_up"], 30,
                   "the loss of the lane")
        heal(fleet)
        expect_at_target(fleet, vm, identifier)


def test_cut_for_ever_while_copying(fleet):
    with watched(fleet, Probe.expect_nothing_lost) as vm:
        identifier = begin_slow(fleet, vm)
        cut(fleet)
        fleet.godwit("e1", "migration", "abort", identifier)
        fleet.wait_for_state("e1", identifier, "aborted")
        vm.wait_until_it_counts()
        heal(fleet)
        expect_at_source(fleet, vm, identifier)


def test_cut_in_the_pause_ends_at_the_source(fleet):
    with watched(fleet) as vm:
        identifier = begin_until_frozen(fleet, vm, "e1", "source.switching.pause_ports.before")
        cut(fleet)
        thaw(fleet, "e1")
        fleet.wait_for_state("e1", identifier, "aborting", "aborted")
        vm.wait_until_it_counts()
        heal(fleet)
        expect_at_source(fleet, vm, identifier)


def test_cut_after_release_waits_for_the_target(fleet):
    with watched(fleet) as vm:
        identifier = begin_until_frozen(fleet, vm, "e1", AFTER_RELEASE)
        cut(fleet)
        thaw(fleet, "e1")
        fleet.wait_for_state("e1", identifier, "undecided")
        assert fleet.where(vm.name) == []
        refused = fleet.godwit("e1", "migration", "abort", identifier, expect=1)
        assert "migration resolve" in refused.stderr
        heal(fleet)
        expect_at_target(fleet, vm, identifier)


def test_operator_resolves_when_the_target_is_destroyed(fleet):
    vm = fleet.run_vm()
    with Observer(vm):
        identifier = begin_until_frozen(fleet, vm, "e1", AFTER_RELEASE)
        cut(fleet)
        kill_qemu(fleet, vm, "w1")  # the operator sees to it ...
        thaw(fleet, "e1")
        fleet.wait_for_state("e1", identifier, "undecided")
        unanswered = fleet.godwit("e1", "migration", "resolve", identifier, expect=None)
        assert fleet.migration("e1", identifier)["state"] == "undecided", unanswered
        fleet.godwit("e1", "migration", "resolve", identifier, "--target-destroyed")  # ... and says so
        fleet.wait_for_state("e1", identifier, "aborted")
        vm.wait_until_it_counts()
        heal(fleet)
        expect_at_source(fleet, vm, identifier)


def test_operator_gives_up_at_the_target(fleet):
    """The source has released the vm and cannot be reached: the target's refusal gives it back."""
    with watched(fleet) as vm:
        identifier = begin_until_frozen(fleet, vm, "e1", AFTER_RELEASE)
        cut(fleet)
        fleet.godwit("w1", "migration", "abort", identifier)
        fleet.wait_for_state("w1", identifier, "aborted")
        fleet.godwit("w1", "migration", "abort", identifier)  # harmless
        refused = fleet.godwit("w1", "migration", "resolve", identifier, "--source-destroyed", expect=1)
        assert "cannot run here" in refused.stderr
        thaw(fleet, "e1")
        heal(fleet)
        expect_at_source(fleet, vm, identifier)


def tcp_of_agents(fleet):
    """The (port at e1, port at w1) of e1's connections to w1."""
    lines = fleet.lab.exec("e1", "ss", "-Htn", "state", "established").stdout.splitlines()
    ends = [[end.replace("[::ffff:", "").replace("]", "").split(":") for end in line.split()[2:4]]
            for line in lines]
    return {(here[1], there[1]) for here, there in ends if there[0] == ADDRESSES["w1"]}


@contextlib.contextmanager
def all_tcp_but(fleet, lanes):
    """Of e1's connections only these go on: memory still arrives, no word of the agents does."""
    rules = ["add table inet firewall"]
    for hook, here, there in (("input", "dport", "sport"), ("output", "sport", "dport")):
        rules += [f"add chain inet firewall {hook} {{ type filter hook {hook} priority 0; }}"]
        rules += [f"add rule inet firewall {hook} tcp {here} {a} tcp {there} {b} accept"
                  for a, b in lanes]
        rules += [f"add rule inet firewall {hook} tcp {port} 4747 drop" for port in (here, there)]
    fleet.lab.exec("e1", "nft", "; ".join(rules))
    try:
        yield
    finally:
        fleet.lab.exec("e1", "nft", "delete table inet firewall")


def test_operator_resolves_when_the_source_is_destroyed(fleet):
    """All of the vm has come, and the source dies before its word does."""
    vm = fleet.run_vm()
    sessions = tcp_of_agents(fleet)
    with Observer(vm):
        identifier = begin(fleet, vm, "--hold")
        fleet.wait_for_state("e1", identifier, "ready")
        with all_tcp_but(fleet, tcp_of_agents(fleet) - sessions):
            fleet.godwit("e1", "migration", "cutover", identifier)
            fleet.wait_for_state("w1", identifier, "switching")
            fleet.wait_for_state("e1", identifier, "undecided")
            assert fleet.where(vm.name) == []
            fleet.kill_agent("e1")  # the operator sees to it ...
            kill_qemu(fleet, vm, "e1")
        fleet.godwit("w1", "migration", "resolve", identifier, "--source-destroyed")  # ... and says so
        wait_until(lambda: fleet.where(vm.name) == ["w1"], 20, "the vm runs at the target")
        vm.wait_until_it_counts()
        refused = fleet.godwit("w1", "migration", "abort", identifier, expect=1)
        assert "migrate it back" in refused.stderr
        fleet.restart_agent("e1")  # the source was not destroyed after all: it learns who owns the vm
        expect_at_target(fleet, vm, identifier)


# ---- a vm's start ----

def start_a_vm_and_die(fleet, point):
    """The agent is killed at `point` of the start of a vm `early`, and comes back."""
    fleet.restart_agent("e1", fault=point)
    start = fleet.begin_vm("e1", "early")
    wait_until(lambda: fleet.agent_stopped("e1"), 20, f"the fault at {point}")
    fleet.restart_agent("e1")
    assert start.wait(20) != 0


def test_agent_dies_before_the_vm_is_recorded(fleet):
    start_a_vm_and_die(fleet, "vm.starting.record.before")
    wait_until(lambda: not fleet.qemus("e1"), 5, "no QEMU")
    assert fleet.vms_of("e1") == {}


def test_agent_dies_when_the_vm_has_just_started(fleet):
    """No QEMU runs that no agent knows."""
    start_a_vm_and_die(fleet, "vm.starting.launch.after")
    wait_until(lambda: fleet.where("early") == ["e1"], 20, "the vm is adopted")
    assert [name for _, name in fleet.guests("e1")] == ["early"]


# ---- the guests' QEMUs ----

def test_source_qemu_dies_while_copying(fleet):
    """The guest dies as it would have without a move."""
    vm = fleet.run_vm()
    with Observer(vm):
        identifier = begin_slow(fleet, vm)
        kill_qemu(fleet, vm, "e1")
        shown = fleet.wait_for_state("e1", identifier, "aborted")
        assert "QEMU" in shown["reason"]
        assert fleet.vms_of("e1")[vm.name]["state"] == "stopped"
        fleet.wait_for_nothing_of(vm, "w1")


@pytest.mark.parametrize("point", [AFTER_RELEASE, "source.committed.end_guest.before"])
def test_source_qemu_dies_after_release(fleet, point):
    with watched(fleet) as vm:
        identifier = begin_until_frozen(fleet, vm, "e1", point)
        kill_qemu(fleet, vm, "e1")
        thaw(fleet, "e1")
        expect_at_target(fleet, vm, identifier)


def test_target_qemu_dies_while_copying(fleet):
    with watched(fleet, Probe.expect_nothing_lost) as vm:
        identifier = begin_slow(fleet, vm)
        kill_qemu(fleet, vm, "w1")
        expect_at_source(fleet, vm, identifier)
        assert "QEMU" in fleet.migration("e1", identifier)["reason"]


def test_target_qemu_dies_before_it_owns(fleet):
    """Released already: the target's recorded refusal gives the guest back."""
    with watched(fleet) as vm:
        identifier = begin_until_frozen(fleet, vm, "e1", AFTER_RELEASE)
        kill_qemu(fleet, vm, "w1")
        wait_until(lambda: fleet.migration("w1", identifier)["state"] == "aborted", 20,
                   "the target's refusal")
        thaw(fleet, "e1")
        expect_at_source(fleet, vm, identifier)


def test_target_qemu_dies_when_it_owns(fleet):
    """The guest dies as it would have without a move; it is not brought back from old memory."""
    vm = fleet.run_vm()
    with Observer(vm):
        identifier = begin_until_frozen(fleet, vm, "e1", "source.committed.record.before")
        kill_qemu(fleet, vm, "w1")
        thaw(fleet, "e1")
        fleet.wait_for_state("e1", identifier, "draining", "done")
        assert fleet.where(vm.name) == []
        assert fleet.vms_of("w1")[vm.name]["state"] == "stopped"
        fleet.wait_for_nothing_of(vm, "e1")


# ---- the judge ----

def test_the_observer_sees_two_instances(fleet):
    """Two vms of one name, which no move made: what must never be is seen when it is."""
    vm = fleet.run_vm("e1", nic=False)
    fleet.vms -= 1
    assert fleet.run_vm("w1", nic=False).name == vm.name
    observer = Observer(vm)
    with pytest.raises(AssertionError):
        with observer:
            wait_until(lambda: observer.violations, 20, "both are seen running")


def test_nothing_is_left_behind(fleet):
    fleet.expect_nothing_left()
