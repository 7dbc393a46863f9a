"""Components between wires: what operators build of them, and real clients' traffic through it.

    client: lan (10.8.0.1) --+                        +-- w1: lan (10.8.0.3)
                             +-- switch sw1 at e1 ----+
    e1:     lan (10.8.0.2) --+                        +-- ...
"""

import json

import pytest
from conftest import wait_until
from fleet import Observer, Probe

ADDRESSES = {"client": "10.8.0.1", "e1": "10.8.0.2", "w1": "10.8.0.3"}


def join_all(fleet, **ports):
    """An interface of each host, at these ports."""
    for host, port in ports.items():
        fleet.godwit(host, "port", "add", f"lan-{host}", "--uplink", "--interface", "lan",
                     "--address", f"{ADDRESSES[host]}/24")
        fleet.godwit(host, "connect", f"lan-{host}", port)


def answers(fleet, host, other):
    """Once, within a second."""
    return fleet.lab.exec(host, "ping", "-c1", "-W1", ADDRESSES[other], check=False).returncode == 0


def wait_until_it_answers(fleet, host, other):
    wait_until(lambda: answers(fleet, host, other), 20, f"{other}'s answer to {host}")


def mac_of(fleet, host):
    link = json.loads(fleet.lab.exec(host, "ip", "-j", "link", "show", "lan").stdout)
    return link[0]["address"]


def port_of(fleet, host, component, name):
    shown = fleet.json(host, "component", "show", component)
    return next(port for port in shown["ports"] if port["name"] == name)


def switched(fleet):
    """The three at a switch at e1, and they answer one another."""
    fleet.godwit("e1", "component", "add", "sw1", "--ports", "3")
    join_all(fleet, client="e1/sw1-1", e1="sw1-2", w1="e1/sw1-3")
    for pair in (("client", "e1"), ("e1", "w1"), ("w1", "client")):
        wait_until_it_answers(fleet, *pair)
    return fleet


@pytest.fixture
def switch(fleet):
    return switched(fleet)


def test_a_switch_joins_hosts_of_two_sites(switch):
    fleet = switch
    macs = {each["mac"]: each["port"] for each in fleet.json("e1", "component", "macs", "sw1")}
    for host, port in (("client", "1"), ("e1", "2"), ("w1", "3")):
        assert macs[mac_of(fleet, host)] == port, macs
    # What is known goes to one port.
    before = port_of(fleet, "e1", "sw1", "3")["tx_frames"]
    fleet.lab.exec("client", "ping", "-q", "-c20", "-i0.01", ADDRESSES["e1"])
    sent = port_of(fleet, "e1", "sw1", "3")["tx_frames"] - before
    assert sent < 10, f"{sent} of 40 frames between others"
    text = fleet.godwit("e1", "component", "show", "sw1").stdout
    assert "sw1-1" in text and "known macs   3" in text, text


def test_it_comes_back_with_its_agent(switch):
    fleet = switch
    fleet.restart_agent("e1")
    assert [each["name"] for each in fleet.json("e1", "component", "ls")] == ["sw1"]
    for pair in (("client", "e1"), ("e1", "w1"), ("w1", "client")):
        wait_until_it_answers(fleet, *pair)


FORGET = ("import sqlite3\n"
          "db = sqlite3.connect('/var/lib/godwit/agent.db')\n"
          "db.execute(\"DELETE FROM documents WHERE kind = 'component'\")\n"
          "db.commit()\n")


def test_ports_that_an_agent_made_as_it_was_killed_go(fleet):
    """It records them before the component that they are of."""
    fleet.godwit("e1", "port", "add", "lan0")
    fleet.godwit("e1", "component", "add", "sw1", "--ports", "2")
    fleet.kill_agent("e1")
    fleet.lab.exec("e1", "/usr/bin/python3", "-c", FORGET)
    fleet.restart_agent("e1")
    assert fleet.ports_at("e1") == ["lan0"]
    fleet.godwit("e1", "component", "add", "sw1", "--ports", "3")
    assert len(fleet.ports_at("e1")) == 4


def test_vlans_are_apart_and_a_trunk_has_both(switch):
    fleet = switch
    fleet.godwit("e1", "component", "set", "sw1", "--port", "1,access=10", "--port", "2,access=20",
                 "--port", "3,access=10")
    wait_until_it_answers(fleet, "client", "w1")
    assert not answers(fleet, "client", "e1") and not answers(fleet, "w1", "e1")
    fleet.godwit("e1", "component", "set", "sw1", "--port", "2,trunk=10+20,native=10")
    wait_until_it_answers(fleet, "client", "e1")
    fleet.godwit("e1", "component", "set", "sw1", "--port", "1,isolated", "--port", "3,isolated")
    wait_until_it_answers(fleet, "client", "e1")
    assert not answers(fleet, "client", "w1")
    assert port_of(fleet, "e1", "sw1", "1")["drops"]["isolated"] > 0


def test_a_vm_at_a_switch_moves_and_loses_nothing(fleet):
    """The switch stays; its port's wire follows the vm."""
    vm = fleet.run_vm()
    fleet.godwit("client", "component", "add", "sw1", "--ports", "2")
    fleet.godwit("client", "disconnect", vm.uplink, vm.port)
    fleet.godwit("client", "connect", vm.uplink, "sw1-1")
    fleet.godwit("client", "connect", vm.port, "sw1-2")
    vm.wait_until_it_answers()
    with Observer(vm), Probe(vm) as probe:
        fleet.move(vm, "e1", "w1")
        fleet.move(vm, "w1", "e1")
    probe.expect_nothing_lost()
    frames = port_of(fleet, "client", "sw1", "2")
    assert frames["rx_frames"] > 1000 and frames["tx_frames"] > 1000, frames


# Joins a group and says what it gets of it; asks as a multicast router does; sends to a group.
MULTICAST = """
import socket, struct, sys
verb, own, group = sys.argv[1:4]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
member = socket.inet_aton(group) + socket.inet_aton(own)
if verb == 'listen':
    s.bind((group, 9000))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    s.settimeout(20)
    print('listening', flush=True)
    print(s.recv(100).decode(), flush=True)
if verb == 'send':
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
    for _ in range(20): s.sendto(b'to the group', (group, 9000))
if verb == 'ask':
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lan')
    s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([0x94, 4, 0, 0]))
    s.sendto(struct.pack('>BBHI', 0x11, 1, 0xffff - 0x1101, 0), ('224.0.0.1', 0))
"""


def test_groups_go_where_they_are_wanted(switch):
    """Linux reports what it wants when it is asked; nobody else gets it then."""
    fleet, group = switch, "239.1.2.3"
    listener = fleet.popen("w1", "/usr/bin/python3", "-c", MULTICAST, "listen", ADDRESSES["w1"], group)
    try:
        assert listener.stdout.readline() == "listening\n"
        fleet.lab.exec("e1", "/usr/bin/python3", "-c", MULTICAST, "ask", ADDRESSES["e1"], "0.0.0.0")
        # Its answer goes to who asked, and to nobody else.
        reports = port_of(fleet, "e1", "sw1", "3")["rx_frames"]
        wait_until(lambda: port_of(fleet, "e1", "sw1", "3")["rx_frames"] > reports, 10, "a report")
        before = {name: port_of(fleet, "e1", "sw1", name)["tx_frames"] for name in ("2", "3")}
        fleet.lab.exec("client", "/usr/bin/python3", "-c", MULTICAST, "send", ADDRESSES["client"], group)
        assert listener.stdout.readline() == "to the group\n"
        after = {name: port_of(fleet, "e1", "sw1", name)["tx_frames"] for name in ("2", "3")}
        assert after["3"] - before["3"] >= 20, "to the listener"
        assert after["2"] - before["2"] >= 20, "to who asks, as a router would"
        # e1 has asked and gets all; of a group that nobody wants the listener gets nothing.
        fleet.lab.exec("client", "/usr/bin/python3", "-c", MULTICAST, "send", ADDRESSES["client"], "239.9.9.9")
        assert port_of(fleet, "e1", "sw1", "3")["tx_frames"] - after["3"] < 10
        assert port_of(fleet, "e1", "sw1", "2")["tx_frames"] - after["2"] >= 20
    finally:
        listener.kill()
        listener.communicate()


def test_a_stretched_switch_is_an_instance_at_each_site(fleet):
    """Three instances, each joined to both others: no loop, and what moves to another's port is followed."""
    hosts = ("client", "e1", "w1")
    for host in hosts:
        trunks = [word for other in hosts if other != host for word in ("--port", f"to-{other},stretched")]
        fleet.godwit(host, "component", "add", f"sw-{host}", "--port", "lan", *trunks)
    for a, b in (("client", "e1"), ("e1", "w1"), ("w1", "client")):
        fleet.godwit(a, "connect", f"sw-{a}-to-{b}", f"{b}/sw-{b}-to-{a}")
    join_all(fleet, client="sw-client-lan", e1="sw-e1-lan", w1="sw-w1-lan")
    for pair in (("client", "e1"), ("e1", "w1"), ("w1", "client")):
        wait_until_it_answers(fleet, *pair)
    # A broadcast comes once, to each.
    before = {host: port_of(fleet, host, f"sw-{host}", "lan")["tx_frames"] for host in hosts}
    fleet.lab.exec("client", "ping", "-b", "-q", "-c10", "-i0.01", "-W1", "10.8.0.255", check=False)
    for host in ("e1", "w1"):
        came = port_of(fleet, host, f"sw-{host}", "lan")["tx_frames"] - before[host]
        assert 10 <= came < 20, f"{came} at {host}"
    drops = port_of(fleet, "e1", "sw-e1", "to-w1")["drops"]
    assert "split-horizon" not in drops, drops
    # One that is joined to another instance is found there with its first frame.
    fleet.godwit("client", "disconnect", "lan-client", "sw-client-lan")
    fleet.godwit("e1", "component", "set", "sw-e1", "--port", "guest")
    fleet.godwit("client", "connect", "lan-client", "e1/sw-e1-guest")
    wait_until_it_answers(fleet, "client", "w1")
    assert answers(fleet, "w1", "client") and answers(fleet, "e1", "client")
    known = {each["mac"]: each["port"] for each in fleet.json("w1", "component", "macs", "sw-w1")}
    assert known[mac_of(fleet, "client")] == "to-e1", known


def test_bad_wishes_change_nothing(fleet):
    fleet.godwit("e1", "component", "add", "sw1", "--ports", "2", "--port", "up,trunk=10")
    fleet.godwit("e1", "component", "add", "sw1", "--ports", "2", "--port", "up,trunk=10")  # harmless
    before = fleet.json("e1", "component", "ls")

    def refused(*words, expect=1):
        return fleet.godwit("e1", *words, expect=expect).stderr
    assert "another component 'sw1'" in refused("component", "add", "sw1", "--ports", "4")
    assert "'access' is a number" in refused("component", "set", "sw1", "--port", "1,access=4095")
    assert "there is no 'vlan' here, but access" in refused("component", "set", "sw1", "--port", "1,vlan=3")
    assert "no component 'sw2'" in refused("component", "show", "sw2")
    assert "no MAC address" in refused("component", "set", "sw1", "--mac", "12@1")
    assert "mirror 'nowhere'" in refused("component", "set", "sw1", "--mirror", "nowhere")
    assert "belongs to component sw1" in refused("port", "rm", "sw1-1")
    fleet.godwit("e1", "port", "add", "sw2-1")
    assert "a port 'sw2-1'" in refused("component", "add", "sw2", "--ports", "2")
    assert "sw2-2" not in fleet.ports_at("e1")
    assert fleet.json("e1", "component", "ls") == before
    fleet.godwit("e1", "connect", "sw1-1", "sw2-1")
    assert "port sw1-1 has a wire" in refused("component", "rm", "sw1")
    assert "port sw1-1 has a wire" in refused("component", "set", "sw1", "--remove-port", "1")
    fleet.godwit("e1", "component", "set", "sw1", "--remove-port", "2", "--port", "3")
    assert {"sw1-1", "sw1-3", "sw1-up"} <= set(fleet.ports_at("e1")) and "sw1-2" not in fleet.ports_at("e1")
    fleet.godwit("e1", "disconnect", "sw1-1", "sw2-1")
    fleet.godwit("e1", "component", "rm", "sw1")
    fleet.godwit("e1", "component", "rm", "sw1")  # harmless
    assert fleet.ports_at("e1") == ["sw2-1"]


def test_nothing_is_left(fleet):
    fleet.expect_nothing_left()
