"""Addresses for hosts, given by a component: real clients, leases that outlive the agent.

    client: lan ---- d1 (10.7.0.2) at e1
"""

import json

import pytest
from conftest import wait_until

NETWORK = ("10.7.0.0/24,range=10.7.0.100-10.7.0.110,router=10.7.0.1,dns=9.9.9.9+1.1.1.1,"
           "domain=shop.test,mtu=1400,lease=10min")
# What a client calls with each event; it keeps what it was told, and takes the address.
SCRIPT = """#!/bin/sh
[ -n "$ip$new_ip_address" ] && env > /tmp/told
case "$1$reason" in bound|renew|BOUND|RENEW|REBOOT) ip address replace "${ip:-$new_ip_address}/24" dev lan;; esac
exit 0
"""


@pytest.fixture
def server(fleet):
    fleet.godwit("e1", "component", "add", "d1", "--type", "dhcp", "--set", "address=10.7.0.2/24",
                 "--network", NETWORK)
    fleet.godwit("client", "port", "add", "lan0", "--uplink", "--interface", "lan")
    fleet.godwit("client", "connect", "lan0", "e1/d1-net")
    fleet.lab.exec("client", "ip", "link", "set", "lan", "up")
    return fleet


def leases(fleet):
    return fleet.json("e1", "component", "leases", "d1")


def mac_of_lan(fleet):
    return json.loads(fleet.lab.exec("client", "ip", "-j", "link", "show", "lan").stdout)[0]["address"]


def write(fleet, path, text):
    fleet.lab.exec("client", "sh", "-c", 'printf %s "$1" > "$2"', "sh", text, path)


def ask(fleet, *client):
    """What a client was told: its environment. (/tmp is the host's own.)"""
    write(fleet, "/tmp/script", SCRIPT)
    fleet.lab.exec("client", "sh", "-c", "rm -f /tmp/told; chmod 755 /tmp/script")
    fleet.lab.exec("client", *client)
    told = fleet.lab.exec("client", "cat", "/tmp/told").stdout
    return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)


def busybox(fleet, *more):
    return ask(fleet, "busybox", "udhcpc", "-i", "lan", "-f", "-q", "-n", "-t5", "-T1", "-s", "/tmp/script",
               "-O", "staticroutes", "-O", "mtu", *more)


def test_busybox_is_told_all_of_the_network(server):
    told = busybox(server, "-x", "hostname:web1")
    assert told["ip"].startswith("10.7.0.10") or told["ip"] == "10.7.0.110"
    assert (told["mask"], told["router"], told["dns"]) == ("24", "10.7.0.1", "9.9.9.9 1.1.1.1")
    assert (told["domain"], told["mtu"], told["lease"]) == ("shop.test", "1400", "600")
    assert told["serverid"] == "10.7.0.2"
    (lease,) = leases(server)
    assert (lease["address"], lease["mac"], lease["state"]) == (told["ip"], mac_of_lan(server), "bound")
    assert lease["host"] == "web1" and 550 < lease["remaining_s"] <= 600
    # It answers as a host does.
    server.lab.exec("client", "ping", "-c1", "-W2", "10.7.0.2")
    shown = server.godwit("e1", "component", "show", "d1").stdout
    assert "range=10.7.0.100-10.7.0.110" in shown and "leased" in shown, shown


def test_dhclient_gets_what_is_reserved(server):
    server.godwit("e1", "component", "set", "d1", "--reserve", f"{mac_of_lan(server)},address=10.7.0.50")
    write(server, "/tmp/conf", "option rfc3442 code 121 = array of unsigned integer 8;\n"
          "request subnet-mask, routers, domain-name-servers, interface-mtu, rfc3442;\n")
    told = ask(server, "dhclient", "-1", "-q", "-cf", "/tmp/conf", "-lf", "/tmp/leases",
               "-pf", "/tmp/pid", "-sf", "/tmp/script", "lan")
    try:
        assert told["new_ip_address"] == "10.7.0.50"
        assert told["new_routers"] == "10.7.0.1" and told["new_subnet_mask"] == "255.255.255.0"
        assert told["new_interface_mtu"] == "1400"
    finally:
        server.lab.exec("client", "dhclient", "-x", "-pf", "/tmp/pid", "-lf", "/tmp/leases", "lan",
                        check=False)


def test_leases_outlive_the_agent(server):
    address = busybox(server)["ip"]
    wait_until(lambda: has_been_kept(server), 10, "the lease is in the store")
    server.kill_agent("e1")
    server.restart_agent("e1")
    assert [lease["address"] for lease in leases(server)] == [address]
    server.lab.exec("client", "ip", "link", "set", "lan", "down")
    server.lab.exec("client", "ip", "link", "set", "lan", "address", "02:00:00:00:00:77", "up")
    assert wait_until(lambda: busybox(server)["ip"], 10, "another's address") != address
    assert len(leases(server)) == 2


def has_been_kept(fleet):
    """The store was written after the client began to ask; nothing else writes to it then."""
    began = fleet.lab.exec("client", "stat", "-c%.Y", "/tmp/script").stdout
    store = fleet.lab.exec("e1", "sh", "-c", "stat -c%.Y /var/lib/godwit/agent.db*").stdout
    return max(map(float, store.split())) > float(began)


def test_what_makes_no_sense_is_refused(fleet):
    def refusal(*words):
        return fleet.godwit("e1", "component", "add", "d1", "--type", "dhcp", *words, expect=1).stderr

    assert "has an address" in refusal("--network", NETWORK)
    address = ("--set", "address=10.7.0.2/24")
    assert "a network to serve" in refusal(*address)
    assert "no range of it" in refusal(*address, "--network", "10.7.0.0/24,range=10.7.0.9-10.7.1.9")
    assert "there is no 'rang' here, but" in refusal(*address, "--network", "10.7.0.0/24,rang=10.7.0.9-10.7.0.10")
    assert "there is no 'access' here" in refusal(*address, "--network", NETWORK, "--port", "net,access=3")
    assert "one port" in refusal(*address, "--network", NETWORK, "--port", "a", "--port", "b")
    assert fleet.json("e1", "component", "ls") == [] and fleet.ports_at("e1") == []
