"""What happens around a move: the operator's hooks, the vm's clock. Topology: fleet.py."""

import pytest
from conftest import wait_until
from fleet import HOOKS, Observer, Probe

SAID = "/var/lib/said"


@pytest.fixture
def hooks(fleet):
    """add(host, moment, script): hooks of a host; `options` are for its agent. Gone afterwards."""
    restarted = set()

    def add(host, moment, script, name="10-test", options=()):
        fleet.lab.exec(host, "sh", "-c", 'mkdir -p "$1" && printf "%s\\n" "#!/bin/sh" "$3" >"$1/$2" && '
                       'chmod 0755 "$1" "$1/$2"', "sh", f"{HOOKS}/{moment}.d", name, script)
        if options:
            restarted.add(host)
            fleet.restart_agent(host, options=options)
    yield add
    for host in ("e1", "w1"):
        fleet.lab.exec(host, "rm", "-rf", HOOKS, SAID)
        if host in restarted:
            fleet.restart_agent(host)


def said(fleet, host):
    return fleet.lab.exec(host, "cat", SAID, check=False).stdout


def test_hooks_run_before_the_pause_and_after_the_resume(fleet, hooks):
    """Each asks its agent for the vm's state at its end: it runs, whether at the source or at the target."""
    script = (f"sleep 0.3; {fleet.bin}/godwit vm show $GODWIT_VM --json | grep -o '\"state\": *\"[a-z]*\"' "
              f">{SAID}; echo $GODWIT_MOMENT $GODWIT_FROM $GODWIT_TO $GODWIT_MIGRATION $GODWIT_OUTCOME >>{SAID};"
              "head -c 300000 /dev/zero")
    hooks("e1", "pre-pause", script)
    hooks("w1", "post-resume", script)
    vm = fleet.run_vm()
    with Probe(vm) as probe:
        moved = fleet.move(vm, "e1", "w1")
    probe.expect_nothing_lost()
    told = wait_until(lambda: fleet.migration("e1", moved["id"])["hooks"].get("post_resume"), 20,
                      "the word of the target's hook")
    before, after = said(fleet, "e1").splitlines(), said(fleet, "w1").splitlines()
    assert "running" in before[0] and "running" in after[0], (before, after)
    assert before[1] == f"pre-pause e1 w1 {moved['id']} ".strip()
    assert after[1] == f"post-resume e1 w1 {moved['id']} moved"
    assert told["ms"] >= 300 and "failure" not in told, told
    assert moved["hooks"]["pre_pause"]["ms"] >= 300 and moved["report"]["copying_ms"] >= 300, moved
    shown = fleet.godwit("e1", "migration", "show", moved["id"]).stdout
    assert "hooks     pre-pause" in shown and "hooks     post-resume" in shown


@pytest.mark.drawn
def test_a_hook_that_fails_or_hangs_aborts_the_move(fleet, hooks):
    hooks("e1", "pre-pause", "echo disk array says no >&2; exit 7")
    hooks("e1", "post-resume", f"echo $GODWIT_MOMENT $GODWIT_OUTCOME >>{SAID}")
    vm = fleet.run_vm()
    with Observer(vm), Probe(vm) as probe:
        done = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", *fleet.PATIENT, expect=4)
        assert "10-test: exit status 7" in done.stderr, done.stderr
        assert "disk array says no" in fleet.log("e1")
        wait_until(lambda: said(fleet, "e1") == "post-resume aborted\n", 20, "the hook after the abort")
        fleet.wait_for_nothing_of(vm, "w1")
    probe.expect_nothing_lost()
    hooks("e1", "pre-pause", f"sleep 1000 & echo $! >{SAID}; wait",
          options=("--hook-timeout", "300ms"))
    vm.wait_until_it_answers()
    done = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", *fleet.PATIENT, expect=4)
    assert "took longer than 300 ms" in done.stderr, done.stderr
    assert fleet.processes("e1", "sleep") == []
    assert fleet.where(vm.name) == ["e1"]


@pytest.mark.thorough
def test_a_failure_may_be_ignored(fleet, hooks):
    hooks("e1", "pre-pause", "exit 7", options=("--on-hook-failure", "ignore"))
    hooks("w1", "post-resume", "exit 8")
    vm = fleet.run_vm(nic=False)
    moved = fleet.move(vm, "e1", "w1")
    assert "exit status 7" in moved["hooks"]["pre_pause"]["failure"]
    told = wait_until(lambda: fleet.migration("e1", moved["id"])["hooks"].get("post_resume"), 20,
                      "the word of the target's hook")
    assert "exit status 8" in told["failure"] and fleet.where(vm.name) == ["w1"]


@pytest.mark.thorough
def test_an_agent_that_dies_in_a_hook(fleet, hooks):
    hooks("e1", "pre-pause", f"echo begun >{SAID}; sleep 30", options=("--hook-timeout", "60s"))
    vm = fleet.run_vm()
    with Observer(vm):
        identifier = fleet.begin_move(vm, "e1", "w1", *fleet.PATIENT)
        wait_until(lambda: said(fleet, "e1"), 60, "the hook")
        assert fleet.migration("e1", identifier)["state"] == "copying"
        fleet.restart_agent("e1")
        fleet.wait_for_state("e1", identifier, "aborted")
        assert fleet.where(vm.name) == ["e1"]
        vm.wait_until_it_counts()


CLOCK_TOLERANCE_MS = 40  # of reading it over the WAN, from a machine that has other work


@pytest.mark.thorough
@pytest.mark.parametrize("guest_agent", [False, True])
def test_the_vm_s_clock(fleet, guest_agent):
    """It stands still in the pause; with qemu-guest-agent in the vm it is put right afterwards."""
    vm = fleet.run_vm(guest_agent=guest_agent, dirty="150mbit", working_set="16MiB")
    before = vm.clock_error_ms()
    moved = fleet.move(vm, "e1", "w1", "--bandwidth", "100mbit")
    if guest_agent:
        wait_until(lambda: "left_ms" in fleet.migration("e1", moved["id"])["clock"], 20,
                   lambda: f"the correction: {fleet.migration('e1', moved['id'])} {fleet.logs()}")
    lost_ms = before - vm.clock_error_ms()
    clock = fleet.migration("e1", moved["id"])["clock"]
    assert abs(clock["behind_ms"] - moved["report"]["pause_ms"]) < 20, (clock, moved["report"])
    assert clock["corrected"] == guest_agent, clock
    assert clock["behind_ms"] > 3 * CLOCK_TOLERANCE_MS, "the pause is long enough to be seen"
    expected = clock["left_ms"] if guest_agent else clock["behind_ms"]
    assert abs(lost_ms - expected) < CLOCK_TOLERANCE_MS, (lost_ms, clock)
    assert not guest_agent or abs(clock["left_ms"]) <= clock["uncertainty_ms"] + 10, clock


@pytest.mark.thorough
def test_a_guest_restarts_where_it_went(fleet):
    """Its reset is not the end of a QEMU that loaded it."""
    vm = fleet.run_vm(guest_agent=True)
    wait_until(lambda: "up" in fleet.in_guest("e1", vm, "echo up", check=False), 60, "its agent")
    fleet.move(vm, "e1", "w1")
    pid = fleet.qemus("w1")
    fleet.in_guest("w1", vm, "(sleep 1; echo b > /proc/sysrq-trigger) > /dev/null 2>&1 &")
    wait_until(lambda: not vm.ping(), 20, "it restarts")
    vm.wait_until_it_answers()
    assert fleet.qemus("w1") == pid


def test_a_guest_agent_that_is_not_there(fleet):
    vm = fleet.run_vm(nic=False, guest_agent=False)
    assert "--guest-agent" in fleet.move(vm, "e1", "w1")["clock"]["why"]


def test_nothing_is_left_behind(fleet):
    fleet.expect_nothing_left()
