"""Moves of running vms between e1 (east) and w1 (west), as an operator makes them. Topology: fleet.py."""

import contextlib
import os
import signal
import subprocess
import time

import pytest
from conftest import wait_until
from fleet import ADDRESSES, HOSTS, Observer, Probe


def test_move_and_back_at_once_loses_nothing(fleet):
    vm = fleet.run_vm()
    with Observer(vm), Probe(vm) as probe:
        there = fleet.move(vm, "e1", "w1")
        assert fleet.where(vm.name) == ["w1"]
        # e1 still forwards for its lease.
        assert fleet.migration("e1", there["id"])["state"] == "draining"
        back = fleet.move(vm, "w1", "e1")
        assert fleet.where(vm.name) == ["e1"]
    probe.expect_nothing_lost()
    fleet.wait_for_nothing_of(vm, "w1")
    parts = there["report"]["pause"]
    assert abs(sum(parts.values()) - there["report"]["pause_ms"]) < 1
    for move in (there, back):
        # How many depends on when the client ran; that each counts once: src/wire/move_test.cc.
        held = move["report"]["held"]
        assert held["dropped"] == 0 < held["frames"]


def test_a_stopped_vm_can_be_removed_at_once(fleet):
    vm = fleet.run_vm(nic=False)
    fleet.godwit("e1", "vm", "stop", vm.name, "--force")
    fleet.godwit("e1", "vm", "rm", vm.name)
    assert fleet.nothing_of(vm, "e1")


def test_a_site_s_host_that_cannot_take_the_vm_is_passed_over(fleet):
    vm = fleet.run_vm("w1", nic=False)
    fleet.vms -= 1
    assert fleet.run_vm("client", nic=False).name == vm.name  # which is in the east, too
    assert fleet.move(vm, "w1", "east")["to"] == "e1"
    assert fleet.where(vm.name) == ["e1"]


def test_dry_run_touches_nothing(fleet):
    vm = fleet.run_vm()
    before = {host: fleet.left_at(host) for host in ("e1", "w1")}
    done = fleet.json("e1", "migrate", vm.name, "--to", "w1", "--dry-run")
    assert done["ok"] and all(check["ok"] for check in done["checks"])
    assert {host: fleet.left_at(host) for host in ("e1", "w1")} == before
    assert fleet.last_migration("e1", vm) is None and fleet.last_migration("w1", vm) is None


def busy_lanes(fleet):
    """Both ports of the connections over the WAN on which e1 has something to send, the busiest first."""
    rows = [row.split() for row in
            fleet.lab.exec("e1", "ss", "-Htn", "dst", ADDRESSES["w1"]).stdout.splitlines()]
    busy = sorted(((int(row[2]), [end.rsplit(":", 1)[1] for end in row[3:5]]) for row in rows), reverse=True)
    return [" . ".join(ports) for queued, ports in busy if queued > 4096]


@contextlib.contextmanager
def reset_at(fleet, host, ports):
    """What a host sends on these connections is answered by a reset meanwhile."""
    fleet.lab.exec(host, "nft", "add table inet dead; "
                   "add chain inet dead out { type filter hook output priority 0; }; "
                   f"add rule inet dead out tcp sport . tcp dport {{ {', '.join(ports)} }} reject with tcp reset")
    try:
        yield
    finally:
        fleet.lab.exec(host, "nft", "delete table inet dead")


def test_lanes_share_a_move_and_any_may_die(fleet):
    vm = fleet.run_vm(memory="192MiB", dirty="5mbit")  # with a NIC: one that has not booted has no memory to send
    identifier = fleet.begin_move(vm, "e1", "w1", "--lanes", "4", "--no-compact", "--bandwidth", "60mbit")

    def lanes_up():
        return fleet.migration("e1", identifier).get("progress", {}).get("lanes_up")

    def losses():
        return fleet.log("e1").count("connecting again")

    wait_until(lambda: lanes_up() == 4, 20, "four lanes")
    ports = wait_until(lambda: len(busy := busy_lanes(fleet)) > 1 and busy[:2], 20, "two at work")
    before = losses()
    with reset_at(fleet, "e1", ports):
        wait_until(lambda: losses() == before + 2, 10, lambda: f"the loss of two: {fleet.logs()}")
        wait_until(lambda: lanes_up() == 4, 10, "two others in their place")
    fleet.godwit("e1", "migration", "set", identifier, "--bandwidth", "400mbit")
    fleet.godwit("e1", "migration", "wait", identifier)
    assert fleet.where(vm.name) == ["w1"]
    sent = fleet.migration("e1", identifier)["report"]["bytes"]
    assert sent["wan"] < 1.05 * sent["memory_stream"]


def test_hold_stays_ready_until_cutover(fleet):
    vm = fleet.run_vm()
    with Observer(vm):
        held = fleet.move(vm, "e1", "west", "--hold")  # a site's name
        assert held["state"] == "ready" and held["to"] == "w1"
        refused = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=3)
        assert "migrating already" in refused.stderr
        # QEMU would hand over as soon as a millisecond holds what is left.
        ended = fleet.godwit("e1", "migration", "wait", held["id"], "--timeout", "3s", expect=1)
        assert "its state is ready" in ended.stderr
        assert fleet.where(vm.name) == ["e1"]
        fleet.godwit("e1", "migration", "cutover", held["id"])
        fleet.godwit("e1", "migration", "wait", held["id"])
        assert fleet.where(vm.name) == ["w1"]
    vm.wait_until_it_counts()


def test_detach_watch_wait_ls_show(fleet):
    vm = fleet.run_vm()
    identifier = fleet.begin_move(vm, "e1", "w1", *fleet.PATIENT)
    assert fleet.last_migration("e1", vm)["id"] == identifier
    watched = fleet.godwit("e1", "migration", "watch", identifier)
    assert fleet.godwit("e1", "migration", "wait", identifier).returncode == 0
    shown = fleet.migration("e1", identifier)
    assert shown["state"] in ("committed", "draining", "done") and "report" in shown
    assert fleet.migration("w1", identifier)["state"] == "done"
    assert "pause" in (watched.stdout + watched.stderr)


@pytest.mark.thorough  # 12 s; a group's stays
def test_at_hands_over_at_its_time(fleet):
    vm = fleet.run_vm()
    begun = time.monotonic()
    identifier = fleet.begin_move(vm, "e1", "w1", "--at", "+3s", *fleet.PATIENT)
    assert fleet.migration("e1", identifier)["state"] in ("planned", "preparing", "copying", "ready")
    assert fleet.where(vm.name) == ["e1"]
    fleet.godwit("e1", "migration", "wait", identifier)
    assert time.monotonic() - begun > 2
    assert fleet.where(vm.name) == ["w1"]


def test_abort_while_copying(fleet):
    vm = fleet.run_vm()
    with Observer(vm), Probe(vm) as probe:
        identifier = fleet.begin_move(vm, "e1", "w1", "--bandwidth", "20mbit")
        fleet.wait_for_state("e1", identifier, "copying")
        fleet.godwit("e1", "migration", "abort", identifier)
        fleet.wait_for_state("e1", identifier, "aborted")
        fleet.godwit("e1", "migration", "wait", identifier, expect=4)
        fleet.wait_for_nothing_of(vm, "w1")
        assert fleet.where(vm.name) == ["e1"]
    probe.expect_nothing_lost()


def test_ctrl_c_aborts(fleet):
    vm = fleet.run_vm()
    move = fleet.popen("e1", fleet.bin / "godwit", "migrate", vm.name, "--to", "w1", "--bandwidth",
                       "20mbit")
    wait_until(lambda: (fleet.last_migration("e1", vm) or {}).get("state") == "copying", 20,
               "copying")
    for pid in fleet.processes("e1", "godwit"):
        os.kill(pid, signal.SIGINT)
    _, err = move.communicate(timeout=30)
    assert move.returncode == 4, err
    fleet.wait_for_nothing_of(vm, "w1")
    vm.wait_until_it_counts()


def test_restarted_agent_adopts_its_vm(fleet):
    vm = fleet.run_vm()
    with Observer(vm):
        before = vm.counted()
        fleet.kill_agent("e1", by=signal.SIGTERM)  # as systemd ends it
        assert "vms go on running" in fleet.log("e1").splitlines()[-1]
        fleet.start_agent("e1")
        assert fleet.where(vm.name) == ["e1"]
        vm.wait_until_it_answers(20)
        assert vm.counted() > before
        fleet.move(vm, "e1", "w1")
        fleet.restart_agent("w1")
        vm.wait_until_it_counts()
        fleet.restart_agent("e1")  # while it drains
        vm.wait_until_it_counts()
        assert fleet.where(vm.name) == ["w1"]


@pytest.mark.thorough  # four moves and three restarts
def test_old_moves_do_not_haunt_a_restarted_agent(fleet):
    """An agent that restarts meets its journal's old moves of a vm that has come back since."""
    vm = fleet.run_vm()
    with Observer(vm):
        aborted = fleet.begin_move(vm, "e1", "w1", "--bandwidth", "20mbit")
        fleet.wait_for_state("e1", aborted, "copying")
        fleet.godwit("e1", "migration", "abort", aborted)
        fleet.wait_for_state("e1", aborted, "aborted")
        fleet.wait_for_nothing_of(vm, "w1")
        fleet.move(vm, "e1", "w1")
        fleet.restart_agent("w1")  # knows a refused move of this vm
        assert fleet.where(vm.name) == ["w1"]
        fleet.move(vm, "w1", "e1")
        fleet.restart_agent("e1")  # still drains the first move
        assert fleet.where(vm.name) == ["e1"]
        vm.wait_until_it_counts()
        held = fleet.begin_move(vm, "e1", "w1", "--hold", "--on-restart", "abort", *fleet.PATIENT)
        fleet.wait_for_state("e1", held, "ready")
        fleet.restart_agent("w1")  # owned this vm once; what waits there now must not run
        fleet.wait_for_state("e1", held, "aborted")
        assert fleet.where(vm.name) == ["e1"]
        vm.wait_until_it_counts()


@pytest.mark.thorough  # 10 s
def test_vm_without_nic_moves(fleet):
    vm = fleet.run_vm(nic=False)
    with Observer(vm) as observer:
        fleet.move(vm, "e1", "w1")
        assert fleet.where(vm.name) == ["w1"]
        fleet.move(vm, "w1", "e1")
        assert fleet.where(vm.name) == ["e1"]
    assert observer.most == 2


def test_wire_to_the_target_host_becomes_local_and_back(fleet):
    vm = fleet.run_vm()
    fleet.godwit("client", "disconnect", vm.uplink, vm.port)
    fleet.godwit("w1", "port", "add", "lanw", "--uplink", "--address", f"{vm.net}.1/24")
    fleet.godwit("w1", "connect", "lanw", vm.port)

    def answers():
        return fleet.lab.exec("w1", "ping", "-c", "1", "-W", "1", vm.address,
                              check=False).returncode == 0
    wait_until(answers, 20, "the new wire")
    fleet.move(vm, "e1", "w1")
    wait_until(answers, 20, "the local wire")
    wires = fleet.json("w1", "wire", "ls")
    assert len(wires) == 1 and wires[0]["a"]["host"] == wires[0]["b"]["host"] == "w1", wires
    fleet.move(vm, "w1", "e1")
    wait_until(answers, 20, "the long wire")
    assert {fleet.json("w1", "wire", "ls")[0][end]["host"] for end in "ab"} == {"e1", "w1"}


@contextlib.contextmanager
def bridge_with_a_station(fleet, host, address):
    """A Linux bridge `br0` in a host, and beside it a station: a namespace with that address."""
    def ip(*words):
        fleet.lab.exec(host, "ip", *words)
    ip("link", "add", "br0", "type", "bridge")
    ip("netns", "add", "station")
    try:
        ip("link", "add", "st0", "type", "veth", "peer", "name", "eth0", "netns", "station")
        ip("link", "set", "st0", "master", "br0", "up")
        ip("link", "set", "br0", "up")
        ip("-n", "station", "address", "add", address, "dev", "eth0")
        ip("-n", "station", "link", "set", "eth0", "up")
        yield
    finally:
        ip("netns", "delete", "station")
        ip("link", "delete", "br0")


@pytest.mark.thorough  # 12 s
def test_a_station_on_a_bridge_reaches_the_vm_wherever_it_is(fleet):
    """A wire's end may be a Linux bridge that is there already."""
    vm = fleet.run_vm()
    fleet.godwit("client", "disconnect", vm.uplink, vm.port)

    def reaches():
        return fleet.lab.exec("client", "ip", "netns", "exec", "station", "ping", "-c", "1", "-W", "1",
                              vm.address, check=False).returncode == 0
    with bridge_with_a_station(fleet, "client", f"{vm.net}.7/24"):
        fleet.godwit("client", "port", "add", "lanb", "--bridge", "br0")
        fleet.godwit("client", "connect", "lanb", vm.port)
        wait_until(reaches, 20, "the wire to the bridge")
        fleet.move(vm, "e1", "w1")
        wait_until(reaches, 20, "the wire after the move")
        shown = next(p for p in fleet.json("client", "port", "ls") if p["name"] == "lanb")
        assert (shown["kind"], shown["bridge"]) == ("bridge", "br0")
        fleet.godwit("client", "disconnect", "lanb", vm.port)
        fleet.godwit("client", "disconnect", "lanb", vm.port)  # harmless
        assert not reaches()
        fleet.godwit("client", "port", "rm", "lanb")


@pytest.mark.thorough  # 11 s
def test_memory_crosses_compact_or_as_it_is(fleet):
    """The same bytes either way: the vm's counter goes on, and QEMU has verified its own stream."""
    vm = fleet.run_vm(dirty="20mbit", working_set="16MiB")
    compact = fleet.move(vm, "e1", "w1", "--cache", "32MiB")["report"]
    as_it_is = fleet.move(vm, "w1", "e1", "--no-compact")["report"]
    uses = {use["name"]: use for use in compact["encodings"]}
    assert as_it_is["encodings"] == []
    assert as_it_is["bytes"]["wan"] > as_it_is["bytes"]["memory_stream"]
    assert compact["bytes"]["wan"] < 0.8 * compact["bytes"]["memory_stream"]
    assert sum(use["bytes"] for name, use in uses.items() if name != "zstd") == \
        compact["bytes"]["memory_stream"]
    # What it writes is sent again, and is known to both ends.
    assert uses["zero"]["pages"] > 1000 and uses["copy"]["pages"] > 0
    assert uses["same"]["pages"] + uses["delta"]["pages"] > 0
    assert uses["zstd"]["encoded_bytes"] < compact["bytes"]["wan"] < 1.3 * uses["zstd"]["encoded_bytes"]
    for option, value in (("--cache", "much"), ("--cache", "17GiB"), ("--stop-policy", "never")):
        refused = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", option, value, expect=None)
        assert refused.returncode in (1, 2, 3) and option.strip("-").replace("-", "_") in \
            refused.stderr.replace("-", "_"), refused


def pages_of(move, encoding):
    return {use["name"]: use["pages"] for use in move["report"]["encodings"]}[encoding]


def known_pages(move):
    return pages_of(move, "known")


@pytest.mark.drawn
def test_a_vm_that_comes_back_brings_what_differs(fleet):
    """Its old host still knows most of its memory; for an hour, unless it is told to keep none."""
    fleet.restart_agent("w1", options=("--known-memory", "none"))
    vm = fleet.run_vm(dirty="20mbit", working_set="8MiB")
    there = fleet.move(vm, "e1", "w1")
    fleet.wait_for_nothing_of(vm, "e1")
    back = fleet.move(vm, "w1", "e1")
    assert known_pages(there) == 0
    assert known_pages(back) > 1000
    assert back["report"]["bytes"]["wan"] < 0.5 * there["report"]["bytes"]["wan"]
    fleet.wait_for_nothing_of(vm, "w1")
    again = fleet.move(vm, "e1", "w1")
    assert known_pages(again) == 0  # w1 keeps none
    fleet.wait_for_nothing_of(vm, "e1")
    home = fleet.move(vm, "w1", "e1", "--no-known")
    assert known_pages(home) == 0
    vm.wait_until_it_counts()
    fleet.restart_agent("w1")


def test_a_move_goes_on_after_its_agent_was_killed(fleet):
    """What the target has need not come again."""
    vm = fleet.run_vm()
    identifier = fleet.begin_move(vm, "e1", "w1", "--bandwidth", "80mbit")
    wait_until(lambda: fleet.migration("e1", identifier).get("progress", {})
               .get("sent_bytes", 0) > 60 << 20, 40, "half of the memory at the target")
    fleet.kill_agent("e1")
    fleet.start_agent("e1")
    fleet.wait_for_state("e1", identifier, "aborted")
    # It goes on by itself.
    again = wait_until(lambda: fleet.migration("e1", identifier).get("resumed_as"), 20, "another move")
    done = fleet.wait_for_state("e1", again, "draining", "done")
    assert done["resumes"] == identifier
    assert known_pages(done) > 1000, done
    vm.wait_until_it_counts()
    assert fleet.where(vm.name) == ["w1"]


def group_of(fleet, vms, *options):
    return fleet.json("e1", "migrate", *(vm.name for vm in vms), "--to", "w1", *fleet.PATIENT, *options)


def test_a_group_moves_in_order_under_one_cap(fleet):
    vms = [fleet.run_vm(dirty="1mbit", working_set="1MiB") for _ in range(2)]
    started = time.monotonic()
    group = group_of(fleet, vms, "--order", "--bandwidth", "160mbit")
    took_s = time.monotonic() - started
    assert [member["vm"] for member in group["members"]] == [vm.name for vm in vms]
    assert group["state"] in ("committed", "draining") and group["spread_ms"] > 0
    handed_over = [member["handed_over_ms"] for member in group["members"]]
    assert group["spread_ms"] == handed_over[1] - handed_over[0]
    # The second stands only when the first runs there.
    assert group["spread_ms"] > group["members"][1]["report"]["pause_ms"]
    assert sum(m["report"]["bytes"]["wan"] for m in group["members"]) * 8 / took_s < 160e6 * 1.1
    for vm in vms:
        assert fleet.where(vm.name) == ["w1"]
        vm.wait_until_it_counts()
    # What they have in common crossed once.
    assert sum(pages_of(member, "group") for member in group["members"]) > 1000, group
    shown = fleet.godwit("e1", "migration", "show", group["id"]).stdout
    assert "between the first and the last hand-over" in shown
    refused = fleet.godwit("w1", "migrate", vms[0].name, vms[0].name, "--to", "e1", expect=3)
    assert f"vm {vms[0].name} twice" in refused.stderr


@pytest.mark.thorough  # by how much; that they do is seen in the test before
def test_what_vms_of_a_group_have_in_common_is_sent_once(fleet):
    vms = [fleet.run_vm() for _ in range(3)]
    group = group_of(fleet, vms, "--no-known")
    sent = [member["report"]["bytes"]["wan"] for member in group["members"]]
    shared = [pages_of(member, "group") for member in group["members"]]
    for vm in vms:
        assert fleet.where(vm.name) == ["w1"]
        vm.wait_until_it_counts()
    # They booted from one image; what differs is what a kernel puts elsewhere at each boot.
    alone = fleet.move(vms[0], "w1", "e1", "--no-known")
    assert pages_of(alone, "group") == 0
    assert sum(shared) > 3000, shared
    assert sum(sent) < 0.85 * len(vms) * alone["report"]["bytes"]["wan"], (sent, alone["report"]["bytes"])
    apart = fleet.json("w1", "migrate", vms[1].name, vms[2].name, "--to", "e1", *fleet.PATIENT,
                       "--no-known", "--cache", "0B")
    assert [pages_of(member, "group") for member in apart["members"]] == [0, 0]


@pytest.mark.drawn
def test_a_group_moves_whole_or_not_at_all(fleet):
    vms = [fleet.run_vm(nic=False) for _ in range(2)]
    group = fleet.json("e1", "migrate", *(vm.name for vm in vms), "--to", "w1", *fleet.PATIENT,
                       "--bandwidth", "40mbit", "--detach")
    for member in group["members"]:
        fleet.wait_for_state("e1", member["id"], "copying")
    fleet.godwit("e1", "migration", "abort", group["members"][1]["id"])
    fleet.godwit("e1", "migration", "wait", group["id"], expect=4)
    for member in group["members"]:
        fleet.wait_for_state("e1", member["id"], "aborted")
    assert {fleet.where(vm.name)[0] for vm in vms} == {"e1"}
    assert vms[1].name in fleet.migration("e1", group["members"][0]["id"])["reason"]
    # Held, as a group: all become ready, none goes.
    held = fleet.json("e1", "migrate", *(vm.name for vm in vms), "--to", "w1", *fleet.PATIENT, "--hold")
    assert held["state"] == "ready"
    assert {fleet.where(vm.name)[0] for vm in vms} == {"e1"}
    fleet.godwit("e1", "migration", "cutover", held["id"])
    fleet.godwit("e1", "migration", "wait", held["id"])
    assert {fleet.where(vm.name)[0] for vm in vms} == {"w1"}


@pytest.mark.thorough
def test_a_group_outlives_agents_that_are_killed_while_it_is_copied(fleet):
    """It goes on whole, whichever it was."""
    vms = [fleet.run_vm(dirty="1mbit", working_set="1MiB") for _ in range(3)]

    def begin():
        group = fleet.json("e1", "migrate", *(vm.name for vm in vms), "--to", "w1", *fleet.PATIENT, "--no-known",
                           "--bandwidth", "60mbit", "--detach")
        wait_until(lambda: all(fleet.migration("e1", member["id"]).get("progress", {}).get("sent_bytes", 0) > 2 << 20
                               for member in group["members"]), 40, "all are copied")
        return group

    for victim in ("w1", "e1"):
        group = begin()
        fleet.restart_agent(victim)
        for member in group["members"]:
            again = wait_until(lambda m=member: fleet.migration("e1", m["id"]).get("resumed_as"), 40, "another move")
            assert pages_of(fleet.wait_for_state("e1", again, "draining", "done"), "group") == 0
        for vm in vms:
            assert fleet.where(vm.name) == ["w1"]
            vm.wait_until_it_counts()
        if victim == "w1":
            fleet.json("w1", "migrate", *(vm.name for vm in vms), "--to", "e1", *fleet.PATIENT)


def test_a_wire_to_a_host_that_is_away_can_be_cut(fleet):
    """Its agent learns it when it comes back."""
    fleet.godwit("client", "port", "add", "here", "--uplink", "--address", "10.77.0.1/24")
    fleet.godwit("e1", "port", "add", "away", "--uplink", "--address", "10.77.0.2/24")
    fleet.godwit("client", "connect", "here", "e1/away")
    fleet.kill_agent("e1")
    fleet.godwit("client", "disconnect", "here", "other", expect=1)  # that is not its wire
    fleet.godwit("client", "disconnect", "here", "e1/away")
    assert fleet.json("client", "wire", "ls") == []
    fleet.start_agent("e1")
    wait_until(lambda: fleet.json("e1", "wire", "ls") == [], 20, "the wire's other end to go")
    for host, port in (("client", "here"), ("e1", "away")):
        fleet.godwit(host, "port", "rm", port)


def test_frames_that_an_agent_is_too_late_for_are_counted(fleet):
    vm = fleet.run_vm()
    agent = fleet.agent("client")
    os.kill(agent, signal.SIGSTOP)
    try:
        fleet.lab.python("client", "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                         f"for _ in range(6000): s.sendto(b'', ('{vm.address}', 9))").wait(20)
    finally:
        os.kill(agent, signal.SIGCONT)
    wire, = fleet.json("client", "wire", "ls")
    assert 6000 - 4096 <= wire["drops"]["agent_late"] <= 6000, wire


@contextlib.contextmanager
def no_tcp_between_agents(fleet, hosts=HOSTS):
    """Neither of two hosts can dial the other's agent; their datagrams pass."""
    for host, other in zip(hosts, reversed(hosts)):
        fleet.lab.exec(host, "nft", "add table inet firewall; add chain inet firewall in "
                       "{ type filter hook input priority 0; }; add rule inet firewall in "
                       f"ip saddr {ADDRESSES[other]} meta l4proto tcp drop")
    try:
        yield
    finally:
        for host in hosts:
            fleet.lab.exec(host, "nft", "delete table inet firewall")


@pytest.mark.thorough  # 24 s
def test_a_move_between_hosts_that_cannot_dial_each_other(fleet):
    """Session and lane run through the third agent, which carries TLS that it cannot read."""
    vm = fleet.run_vm()
    with no_tcp_between_agents(fleet):
        for host in HOSTS:
            fleet.restart_agent(host)
        sessions = fleet.json("e1", "host", "show")["sessions"]
        assert next(s for s in sessions if s["peer"] == "w1")["via"] == "client", sessions
        with Observer(vm), Probe(vm) as probe:
            fleet.move(vm, "e1", "w1")
            assert fleet.where(vm.name) == ["w1"]
        probe.expect_nothing_lost()
        # The client's host is the relay, and its TCP is all counted. Unpaced it sent 4,000 again.
        assert probe.figures["tcp"]["retransmissions_client"] < 1000, probe.figures


def test_the_console_goes_on_at_the_target(fleet):
    vm = fleet.run_vm()

    def say(host, word):
        """What the vm's shell answers on its serial console."""
        console = fleet.popen(host, fleet.bin / "godwit", "vm", "console", vm.name,
                              stdin=subprocess.PIPE)
        try:
            console.stdin.write(f"echo answer-{word}-$((40 + 2))\n")
            console.stdin.flush()
            for line in console.stdout:
                if f"answer-{word}-42" in line:
                    return True
        finally:
            console.kill()
            console.communicate()
        return False
    assert say("e1", "here")
    fleet.move(vm, "e1", "w1")
    assert say("w1", "there")
    refused = fleet.godwit("e1", "vm", "console", vm.name, expect=None)
    assert refused.returncode != 0 and vm.name in refused.stderr


def test_nothing_is_left_behind(fleet):
    fleet.expect_nothing_left()


def test_a_smart_stop_and_its_prediction(fleet):
    """`smart` goes on while rounds shorten the pause; what it predicted is in the report."""
    vm = fleet.run_vm(dirty="20mbit", nic=False)
    with Observer(vm):
        done = fleet.move(vm, "e1", "w1", "--stop-policy", "smart")
        assert done["stop_policy"] == "smart"
        report = done["report"]
        assert report["prediction"]["pause_ms"] > 0
        error = report["pause_ms"] - report["prediction"]["pause_ms"]
        assert abs(report["prediction"]["error_ms"] - error) < 1
