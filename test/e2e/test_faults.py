"""Crashes of a hand-over. Every point (`./dev sim --points`) with every fault is a case (crash.py), of
which `./dev test` runs ten, others each day: `./dev e2e --fault-seed N` runs those of a seed,
`--fault-case POINT:FAULT` one. Below are those that need an operator, or more than one strike.

In all of them an observer looks for two running instances, and the vm's memory counter, as far as
the client sees it, never jumps. Topology: fleet.py.
"""

import contextlib
import os
import signal

import pytest
from conftest import wait_until
from crash import RACES, WITH_DISK, Case, Matrix, NotReached
from fleet import ADDRESSES, Observer, Probe

thorough = pytest.mark.thorough
CASES_PER_RUN = 10
AFTER_RELEASE = "source.released.commit_target.before"


def pytest_generate_tests(metafunc):
    if "fault" not in metafunc.fixturenames:
        return
    config, matrix = metafunc.config, Matrix()
    chosen = [tuple(case.split(":")) for case in config.getoption("fault_case")]
    usual = chosen or matrix.some(config.getoption("fault_seed"), CASES_PER_RUN)
    rest = [] if chosen else [case for case in matrix.cases() if case not in usual]
    metafunc.parametrize(("matrix", "point", "fault"),
                         [pytest.param(matrix, *case, id=":".join(case)) for case in usual] +
                         [pytest.param(matrix, *case, id=":".join(case), marks=thorough)
                          for case in rest])


@pytest.fixture
def standing_vm(shared_fleet):
    """The vm of the case before, if it still runs, where it is now."""
    shared_fleet.calm()
    vm, shared_fleet.standing = shared_fleet.standing, None
    if vm is None or not shared_fleet.where(vm.name):
        shared_fleet.tidy()
        vm = shared_fleet.run_vm(**WITH_DISK)
    return vm


def test_fault_at_point(shared_fleet, standing_vm, matrix, point, fault):
    try:
        outcome = Case(shared_fleet, matrix, standing_vm, point, fault).run()
    except NotReached:
        assert point.rsplit(".", 1)[0] in RACES
        outcome = "source"
        pytest.skip("the move did not come this way")
    finally:
        shared_fleet.calm()
    if outcome != "lost":
        shared_fleet.standing = standing_vm


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


def qemu_of(fleet, vm, host):
    pids = [pid for pid, name in fleet.guests(host) if name == vm.name]
    assert len(pids) == 1, pids
    return pids[0]


def kill_qemu(fleet, vm, host):
    os.kill(qemu_of(fleet, vm, host), signal.SIGKILL)


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


# ---- the WAN ----

@thorough  # 35 s; those above cut, too
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


@pytest.mark.drawn
def test_cut_for_ever_while_copying(fleet):
    with watched(fleet, Probe.expect_nothing_lost) as vm:
        identifier = begin_slow(fleet, vm)
        cut(fleet)
        fleet.godwit("e1", "migration", "abort", identifier)
        fleet.wait_for_state("e1", identifier, "aborted")
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


@pytest.mark.drawn
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


@pytest.mark.drawn
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


@pytest.mark.drawn
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


# ---- a QEMU that hangs ----

@thorough
def test_a_qemu_that_hangs_holds_up_nobody_who_waits(fleet):
    """Whether its guest stands is not known: the move is stuck, and over when QEMU answers again."""
    vm = fleet.run_vm(**WITH_DISK)
    identifier = begin_slow(fleet, vm)
    qemu = qemu_of(fleet, vm, "e1")
    os.kill(qemu, signal.SIGSTOP)
    try:
        fleet.ask("e1", "POST", f"/migrations/{identifier}/abort")
        told = fleet.godwit("e1", "migration", "wait", identifier, expect=5).stderr
        assert "has not given its guest back within 45 s (" in told, told
        assert fleet.migration("e1", identifier)["state"] == "stuck"
    finally:
        os.kill(qemu, signal.SIGCONT)
    expect_at_source(fleet, vm, identifier)
    fleet.move(vm, "e1", "w1")


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
    wait_until(lambda: not fleet.qemus("e1"), 20, "no QEMU")
    assert fleet.vms_of("e1") == {}


def test_agent_dies_when_the_vm_has_just_started(fleet):
    """No QEMU runs that no agent knows."""
    start_a_vm_and_die(fleet, "vm.starting.launch.after")
    wait_until(lambda: fleet.where("early") == ["e1"], 20, "the vm is adopted")
    assert [name for _, name in fleet.guests("e1")] == ["early"]


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
