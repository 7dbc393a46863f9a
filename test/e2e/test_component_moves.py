"""Components that move: with what they know, under traffic, there and back, and what may go wrong meanwhile.

    client: lan (10.8.0.1) --+                        +-- w1: lan (10.8.0.3)
                             +-- switch sw1 at e1 ----+
    e1:     lan (10.8.0.2) --+   ... moves to w1
"""

import json
import re
import threading

import pytest
from conftest import wait_until
from test_api import Document, unix
from test_components import ADDRESSES, mac_of, port_of, switched, wait_until_it_answers
from test_routing import ECHO, TALK, Server, join, ping


@pytest.fixture
def switch(fleet):
    return switched(fleet)


class Pings:
    """Of another host, a hundred a second: at the end all are answered, once, and some of after the block."""

    MORE = 50

    def __init__(self, fleet, host, address):
        self.process = fleet.popen(host, "ping", "-i0.01", "-n", address)
        self.answered, self.twice, self.whole = set(), [], 0
        self.reader = threading.Thread(target=self.read, daemon=True)

    def read(self):
        for line in self.process.stdout:
            answer = re.search(r"bytes from .*icmp_seq=(\d+)", line)
            if answer:
                self.answered.add(int(answer[1]))
            if "DUP" in line:
                self.twice.append(line)

    def all_until(self):
        """The last before which none is missing."""
        while self.whole + 1 in self.answered:
            self.whole += 1
        return self.whole

    def __enter__(self):
        self.reader.start()
        wait_until(lambda: len(self.answered) > 3, 10, "the first answers")
        return self

    def __exit__(self, failed, *_):
        wanted = max(self.answered) + self.MORE
        try:
            if not failed:
                wait_until(lambda: self.all_until() >= wanted, 10, lambda: f"answers to all until {wanted} but "
                           f"{sorted(set(range(1, wanted)) - self.answered)[:20]}")
        finally:
            self.process.terminate()
            self.process.wait()
        assert failed or not self.twice, self.twice


def names_at(fleet, host):
    return [each["name"] for each in fleet.json(host, "component", "ls")]


def move(fleet, what, source, target):
    report = fleet.json(source, "migrate", what, "--to", target)
    assert report["state"] in ("committed", "draining", "done"), report
    return report


def test_a_switch_moves_and_comes_back_and_loses_nothing(switch):
    fleet = switch
    known = {each["mac"]: each["port"] for each in fleet.json("e1", "component", "macs", "sw1")}
    with Pings(fleet, "client", ADDRESSES["e1"]), Pings(fleet, "w1", ADDRESSES["client"]):
        report = move(fleet, "component/sw1", "e1", "w1")
        assert names_at(fleet, "e1") == [] and names_at(fleet, "w1") == ["sw1"]
        there = {each["mac"]: each["port"] for each in fleet.json("w1", "component", "macs", "sw1")}
        assert {mac: there.get(mac) for mac in known} == known, "what it had learned"
        assert report["report"]["freeze_ms"] < 500, report
        shown = unix(fleet, "e1", "GET", f"/v1/migrations/{report['id']}")[1]
        Document(unix(fleet, "e1", "GET", "/v1/openapi.json")[1]).check("GET", "/v1/migrations/{id}", 200, shown)
        move(fleet, "component/sw1", "w1", "e1")
    assert names_at(fleet, "w1") == [] and names_at(fleet, "e1") == ["sw1"]
    shown = fleet.json("e1", "migration", "ls")
    assert [each["vm"] for each in shown if each["from"] == "e1"] == ["component/sw1"]
    assert port_of(fleet, "e1", "sw1", "1")["drops"] == {}


def test_connections_through_a_nat_live_on(fleet):
    """The flow's address and port outside are known at the target, or its peer would reset it."""
    join(fleet, "nat", "--port", "inside,address=10.7.0.1/24", "--port", "outside,address=192.0.2.1/24")
    fleet.lab.exec("w1", "ip", "route", "del", "10.7.0.0/24", check=False)
    wait_until(lambda: ping(fleet, "client", "192.0.2.9").returncode == 0, 20, "an answer through the NAT")
    with Server(fleet, "w1", ECHO, "192.0.2.9", 7000):
        talk = fleet.popen("client", "/usr/bin/python3", "-c", TALK, "192.0.2.9", "7000")
        assert talk.stdout.readline() == "0\n"
        before = [each for each in fleet.json("e1", "component", "flows", "r1") if "tcp" in json.dumps(each)]
        move(fleet, "component/r1", "e1", "w1")
        after = [each for each in fleet.json("w1", "component", "flows", "r1") if "tcp" in json.dumps(each)]
        move(fleet, "component/r1", "w1", "e1")
        assert talk.wait(timeout=30) == 0, talk.communicate()
    assert len(before) == len(after) == 1, (before, after)


def test_what_cannot_move_says_why(switch):
    fleet = switch
    for words, why in ((["component/none", "--to", "w1"], "there is no component 'none'"),
                       (["component/sw1", "--to", "e1"], "it is on host e1 already"),
                       (["component/sw1", "--to", "nowhere"], "there is no host or site 'nowhere'")):
        refused = fleet.godwit("e1", "migrate", *words, expect=3)
        assert why in refused.stderr, refused.stderr
    fleet.godwit("w1", "component", "add", "sw1", "--ports", "1")
    refused = fleet.godwit("e1", "migrate", "component/sw1", "--to", "w1", expect=3)
    assert "host w1 has a component 'sw1' already" in refused.stderr, refused.stderr
    fleet.godwit("w1", "component", "rm", "sw1")
    checked = fleet.json("e1", "migrate", "component/sw1", "--to", "w1", "--dry-run")
    assert checked["ok"] and names_at(fleet, "e1") == ["sw1"], checked


def test_one_that_waits_for_its_turn_is_not_changed(switch):
    fleet = switch
    started = fleet.json("e1", "migrate", "component/sw1", "--to", "w1", "--hold", "--detach")
    fleet.wait_for_state("e1", started["id"], "ready")
    for words in (("rm", "sw1"), ("set", "sw1", "--port", "4")):
        refused = fleet.godwit("e1", "component", *words, expect=1)
        assert "is migrating: abort that first" in refused.stderr, refused.stderr
    with Pings(fleet, "client", ADDRESSES["w1"]):
        fleet.godwit("e1", "migration", "abort", started["id"])
        fleet.wait_for_state("e1", started["id"], "aborted")
        started = fleet.json("e1", "migrate", "component/sw1", "--to", "w1", "--hold", "--detach")
        fleet.wait_for_state("e1", started["id"], "ready")
        fleet.godwit("e1", "migration", "cutover", started["id"])
        fleet.wait_for_state("e1", started["id"], "draining", "done")
    assert names_at(fleet, "w1") == ["sw1"]


# Where the agent that dies there leaves it.
POINTS = {"component-source.preparing.prepare_target.after": "e1",
          "component-source.switching.pause_ports.after": "e1",
          "component-source.released.record.before": "e1",
          "component-source.released.commit_target.before": "w1",
          "component-source.committed.note.before": "w1",
          "component-source.committed.forget_guest.before": "w1",
          "component-target.preparing.reply_prepared.before": "e1",
          "component-target.loaded.note.after": "e1",
          "component-target.owner.record.before": "e1",
          "component-target.owner.run_guest.before": "w1",
          "component-target.owner.run_ports.before": "w1",
          "component-target.owner.reply_owns.before": "w1"}


THOROUGH = ("component-source.preparing.prepare_target.after", "component-source.released.record.before",
            "component-source.committed.note.before", "component-target.preparing.reply_prepared.before",
            "component-target.owner.run_guest.before", "component-target.owner.reply_owns.before")


@pytest.mark.parametrize("point", [pytest.param(point, marks=pytest.mark.thorough if point in THOROUGH else [])
                                   for point in POINTS])
@pytest.mark.drawn
def test_it_is_at_one_host_whenever_an_agent_dies(switch, point):
    fleet, host = switch, "e1" if "source" in point else "w1"
    fleet.restart_agent(host, fault=point)
    wait_until(lambda: fleet.sees_all("e1"), 20, "e1 sees all")
    started = fleet.json("e1", "migrate", "component/sw1", "--to", "w1", "--on-restart", "abort", "--detach")
    wait_until(lambda: fleet.agent_stopped(host), 20, f"the fault at {point}")
    fleet.kill_agent(host)
    fleet.restart_agent(host)
    end = ("draining", "done") if POINTS[point] == "w1" else ("aborted",)
    fleet.wait_for_state("e1", started["id"], *end)
    assert [names_at(fleet, each) for each in ("e1", "w1")] == \
        [["sw1"] if POINTS[point] == each else [] for each in ("e1", "w1")]
    for pair in (("client", "e1"), ("e1", "w1")):
        wait_until_it_answers(fleet, *pair)
    if POINTS[point] == "e1":
        move(fleet, "component/sw1", "e1", "w1")
    else:
        move(fleet, "component/sw1", "w1", "e1")
    wait_until_it_answers(fleet, "client", "w1")


CROWD = r"""
import os, socket, sys, time
to = bytes.fromhex(sys.argv[1].replace(":", ""))
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("lan", 0))
for number in range(int(sys.argv[2])):
    raw.send(to + b"\x02" + os.urandom(5) + b"\x88\xb5" + bytes(46))
    if number % 20 == 0: time.sleep(0.002)
"""


def crowd(fleet, count=14_000):
    """So many addresses that nobody could guess, behind the client's port."""
    def known():
        return fleet.json("e1", "component", "show", "sw1")["known_macs"]
    def filled():
        fleet.lab.exec("client", "/usr/bin/python3", "-c", CROWD, mac_of(fleet, "e1"), str(count // 3 + 1))
        return known() >= count
    wait_until(filled, 90, f"{count} addresses")


def goes_on_as(fleet, identifier):
    """The id of the other move."""
    fleet.wait_for_state("e1", identifier, "aborted")
    again = wait_until(lambda: fleet.migration("e1", identifier).get("resumed_as"), 30, "another move")
    assert fleet.migration("e1", again)["resumes"] == identifier
    return again


@pytest.mark.parametrize("victim", ["e1", "w1"])
def test_a_move_goes_on_after_an_agent_was_killed(switch, victim):
    fleet = switch
    started = fleet.json("e1", "migrate", "component/sw1", "--to", "w1", "--hold", "--detach")["id"]
    fleet.wait_for_state("e1", started, "ready")
    fleet.restart_agent(victim)
    again = goes_on_as(fleet, started)
    fleet.wait_for_state("e1", again, "ready")
    for pair in (("client", "e1"), ("e1", "w1")):
        wait_until_it_answers(fleet, *pair)
    with Pings(fleet, "client", ADDRESSES["e1"]):
        fleet.godwit("e1", "migration", "cutover", again)
        # Who waits for the first one is told of the other.
        followed = fleet.godwit("e1", "migration", "wait", started)
        assert f"it goes on as {again}" in followed.stderr, followed.stderr
    assert names_at(fleet, "e1") == [] and names_at(fleet, "w1") == ["sw1"]
    wait_until_it_answers(fleet, "client", "w1")


def test_a_target_that_dies_while_it_is_told_is_told_anew(switch):
    """It goes on answering meanwhile: only the target's agent was away."""
    fleet = switch
    crowd(fleet)
    words = ("--bandwidth", "16kbit", "--detach")
    with Pings(fleet, "client", ADDRESSES["e1"]):
        started = fleet.json("e1", "migrate", "component/sw1", "--to", "w1", *words)["id"]
        wait_until(lambda: fleet.migration("e1", started).get("progress", {}).get("sent_bytes", 0) > 0, 20, "a message")
        fleet.restart_agent("w1")
        again = goes_on_as(fleet, started)
        fleet.wait_for_state("e1", again, "copying")
        fleet.godwit("e1", "migration", "set", again, "--bandwidth", "100mbit")
        fleet.wait_for_state("e1", again, "draining", "done")
    assert len(fleet.json("w1", "component", "macs", "sw1")) >= 14_000


@pytest.mark.parametrize("victim", ["e1", pytest.param("w1", marks=pytest.mark.thorough)])
@pytest.mark.drawn
def test_a_move_stays_aborted_where_that_is_wished(switch, victim):
    fleet = switch
    started = fleet.json("e1", "migrate", "component/sw1", "--to", "w1", "--hold", "--on-restart", "abort",
                         "--detach")["id"]
    fleet.wait_for_state("e1", started, "ready")
    fleet.restart_agent(victim)
    ended = fleet.wait_for_state("e1", started, "aborted")
    assert "goes_on" not in ended and "resumed_as" not in ended, ended
    assert started not in [each.get("resumes") for each in fleet.json("e1", "migration", "ls")]
    assert names_at(fleet, "e1") == ["sw1"] and names_at(fleet, "w1") == []


def test_one_that_waits_to_go_on_can_be_aborted(switch):
    fleet = switch
    started = fleet.json("e1", "migrate", "component/sw1", "--to", "w1", "--hold", "--detach")["id"]
    fleet.wait_for_state("e1", started, "ready")
    fleet.kill_agent("w1")
    fleet.kill_agent("e1")
    fleet.start_agent("e1")
    assert fleet.wait_for_state("e1", started, "aborted")["goes_on"]
    fleet.godwit("e1", "migration", "abort", started)
    fleet.start_agent("w1")
    wait_until(lambda: fleet.sees_all("e1"), 40, "e1 sees all")
    ended = fleet.migration("e1", started)
    assert "goes_on" not in ended and "resumed_as" not in ended, ended
    move(fleet, "component/sw1", "e1", "w1")


def test_a_cap_holds_for_what_it_has_learned(switch):
    fleet = switch
    crowd(fleet)
    started = fleet.json("e1", "migrate", "component/sw1", "--to", "w1", "--hold", "--bandwidth", "16kbit", "--detach")

    def known_progress():
        told = fleet.migration("e1", started["id"]).get("progress")
        return told if told and told["total_bytes"] > 0 else None

    progress = wait_until(known_progress, 20, "progress")
    # 64 KiB may go at once, then a second message waits for half a minute.
    assert progress["phase"] == "copying" and progress["sent_bytes"] < 120_000 and progress["remaining_bytes"] > 1000, \
        progress
    for words, why in ((("--max-downtime", "1s"), "has no max_downtime"), (("--on-diverge", "pause"), "has no on_diverge")):
        refused = fleet.godwit("e1", "migration", "set", started["id"], *words, expect=1)
        assert why in refused.stderr, refused.stderr
    assert fleet.migration("e1", started["id"])["state"] == "copying"
    fleet.godwit("e1", "migration", "set", started["id"], "--bandwidth", "400kbit")
    progress = fleet.wait_for_state("e1", started["id"], "ready", limit_s=10)["progress"]
    assert progress["remaining_bytes"] < 2000 and progress["rate_bps"] > 0, progress
    known = len(fleet.json("e1", "component", "macs", "sw1"))
    fleet.godwit("e1", "migration", "cutover", started["id"])
    report = fleet.wait_for_state("e1", started["id"], "draining", "done")["report"]
    assert report["sent_bytes"] < 0.8 * report["state_bytes"], report
    assert len(fleet.json("w1", "component", "macs", "sw1")) == known >= 14_000


@pytest.mark.thorough
def test_a_cut_link_is_waited_for(switch):
    """What was on its way is told again; the move goes on as if nothing had been."""
    fleet = switch
    started = fleet.json("e1", "migrate", "component/sw1", "--to", "w1", "--hold", "--detach")
    fleet.wait_for_state("e1", started["id"], "ready")
    fleet.lab.run("cut", "east-west")
    wait_until(lambda: not fleet.sees_all("e1"), 40, "e1's session with w1 ends")
    # Learned meanwhile, and told.
    fleet.lab.exec("e1", "ip", "link", "set", "lan", "address", "02:00:00:00:00:99")
    wait_until_it_answers(fleet, "e1", "client")
    fleet.lab.run("heal", "east-west")
    wait_until(lambda: fleet.sees_all("e1"), 40, "e1 sees all")
    assert fleet.migration("e1", started["id"])["state"] == "ready", \
        fleet.migration("e1", started["id"])["reason"]
    fleet.godwit("e1", "migration", "cutover", started["id"])
    fleet.wait_for_state("e1", started["id"], "draining", "done")
    assert "02:00:00:00:00:99" in [each["mac"] for each in fleet.json("w1", "component", "macs", "sw1")]


def test_it_is_where_its_target_or_its_operator_says(switch):
    """The link is cut with the commit on its way; nobody runs it twice."""
    fleet = switch
    fleet.restart_agent("e1", fault="component-source.released.commit_target.before")
    wait_until(lambda: fleet.sees_all("e1"), 20, "e1 sees all")
    started = fleet.json("e1", "migrate", "component/sw1", "--to", "w1", "--detach")
    wait_until(lambda: fleet.agent_stopped("e1"), 20, "the fault")
    fleet.lab.run("cut", "east-west")
    fleet.kill_agent("e1")
    fleet.start_agent("e1", patient=False)
    fleet.wait_for_state("e1", started["id"], "undecided")
    assert names_at(fleet, "w1") == []
    refused = fleet.godwit("e1", "migration", "abort", started["id"], expect=1)
    assert "cannot be aborted" in refused.stderr, refused.stderr
    fleet.godwit("e1", "component", "rm", "sw1", expect=1)
    assert ping(fleet, "client", ADDRESSES["e1"]).returncode != 0, "it may run at w1"
    fleet.godwit("w1", "migration", "abort", started["id"])
    fleet.lab.run("heal", "east-west")
    fleet.wait_for_state("e1", started["id"], "aborted")
    for pair in (("client", "e1"), ("e1", "w1")):
        wait_until_it_answers(fleet, *pair)


def test_a_group_of_a_switch_and_its_vm_moves_as_one(fleet):
    vm = fleet.run_vm()
    fleet.godwit("e1", "component", "add", "sw1", "--ports", "2")
    fleet.godwit("client", "disconnect", vm.uplink, vm.port)
    fleet.godwit("client", "connect", vm.uplink, "e1/sw1-1")
    fleet.godwit("e1", "connect", vm.port, "sw1-2")
    vm.wait_until_it_answers()
    with Pings(fleet, "client", vm.address):
        report = fleet.json("e1", "migrate", "component/sw1", f"vm/{vm.name}", "--to", "w1")
    assert names_at(fleet, "w1") == ["sw1"] and fleet.where(vm.name) == ["w1"]
    # By itself the switch would be there at once, when most of the vm is still to come.
    total_ms = max(member["report"]["total_ms"] for member in report["members"])
    assert report["spread_ms"] < max(1000, total_ms / 4), report


@pytest.mark.parametrize("victim", ["e1", pytest.param("w1", marks=pytest.mark.thorough)])
@pytest.mark.drawn
def test_a_group_goes_on_whole_after_an_agent_was_killed(fleet, victim):
    vm = fleet.run_vm()
    fleet.godwit("e1", "component", "add", "sw1", "--ports", "2")
    words = ("component/sw1", f"vm/{vm.name}", "--to", "w1", *fleet.PATIENT, "--hold")
    kept = fleet.json("e1", "migrate", *words, "--on-restart", "abort")
    fleet.restart_agent(victim)
    for member in kept["members"]:
        ended = fleet.wait_for_state("e1", member["id"], "aborted")
        assert "goes_on" not in ended and "resumed_as" not in ended, ended
    vm.wait_until_it_counts()

    group = fleet.json("e1", "migrate", *words)
    assert group["state"] == "ready"
    fleet.restart_agent(victim)
    for member in group["members"]:
        goes_on_as(fleet, member["id"])
    wait_until(lambda: fleet.migration("e1", group["id"])["state"] == "ready", 60, "the group is ready again")
    assert names_at(fleet, "e1") == ["sw1"] and fleet.where(vm.name) == ["e1"]
    fleet.godwit("e1", "migration", "cutover", group["id"])
    fleet.godwit("e1", "migration", "wait", group["id"])
    assert names_at(fleet, "w1") == ["sw1"] and fleet.where(vm.name) == ["w1"]
    vm.wait_until_it_counts()


@pytest.mark.thorough  # it waits for its time
def test_a_group_that_waits_for_its_time_waits_on_after_a_restart(fleet):
    for name in ("sw1", "sw2"):
        fleet.godwit("e1", "component", "add", name, "--ports", "2")
    group = fleet.json("e1", "migrate", "component/sw1", "component/sw2", "--to", "w1", "--at", "+20s", "--detach")
    fleet.restart_agent("e1")
    assert fleet.migration("e1", group["id"])["state"] == "planned"
    fleet.godwit("e1", "migration", "wait", group["id"])
    assert names_at(fleet, "w1") == ["sw1", "sw2"] and names_at(fleet, "e1") == []


def test_a_switch_is_stretched_and_taken_back_while_it_forwards(switch):
    fleet = switch
    with Pings(fleet, "client", ADDRESSES["e1"]):
        assert set(fleet.json("e1", "component", "stretch", "sw1", "--to", "west")["hosts"]) == {"e1", "w1"}
        assert names_at(fleet, "w1") == ["sw1"]
        fleet.godwit("w1", "component", "set", "sw1", "--port", "lan")
        fleet.godwit("w1", "disconnect", "lan-w1", "e1/sw1-3")
        fleet.godwit("w1", "connect", "lan-w1", "sw1-lan")
        wait_until_it_answers(fleet, "client", "w1")
        refused = fleet.godwit("e1", "component", "unstretch", "sw1", "--from", "w1", expect=3)
        assert "w1/sw1-lan is wired to w1/lan-w1" in refused.stderr, refused.stderr
        fleet.godwit("w1", "disconnect", "lan-w1", "sw1-lan")
        fleet.godwit("w1", "connect", "lan-w1", "e1/sw1-3")
        assert fleet.json("e1", "component", "unstretch", "sw1", "--from", "w1")["hosts"] == ["e1"]
        wait_until_it_answers(fleet, "client", "w1")
    assert names_at(fleet, "w1") == [] and len(fleet.json("e1", "component", "show", "sw1")["ports"]) == 3
