"""Pools: a tenant's network over several sites, which others do not see.

    client, e1 (east)  ====  w1 (west)
"""

import time

from conftest import wait_until

ADDRESSES = {"client": "10.7.0.11", "e1": "10.7.0.12", "w1": "10.7.0.13"}


def member(fleet, host, pool, address=True):
    """An interface of a host in a pool: its name is the pool's."""
    where = ("--address", f"{ADDRESSES[host]}/24") if address else ()
    fleet.godwit(host, "port", "add", f"{pool}-{host}", "--uplink", "--interface", pool, "--tenant", pool, *where)
    fleet.godwit("e1", "pool", "attach", pool, f"{host}/{pool}-{host}")


def answers(fleet, host, other):
    return fleet.lab.exec(host, "ping", "-c1", "-W1", ADDRESSES[other], check=False).returncode == 0


def test_a_pool_grows_while_it_is_used(fleet):
    add = ("pool", "add", "acme", "--sites", "client,e1", "--subnet", "10.7.0.0/24")
    fleet.godwit("e1", *add)
    fleet.godwit("e1", *add)  # harmless
    (pool,) = fleet.json("w1", "pool", "ls")
    assert pool == {"name": "acme", "tenant": "acme", "sites": ["client", "e1"], "subnet": "10.7.0.0/24"}
    for host in ("client", "e1"):
        member(fleet, host, "acme")
    wait_until(lambda: answers(fleet, "client", "e1"), 20, "e1's answer to client")

    pings = fleet.popen("client", "ping", "-q", "-i0.01", "-c500", ADDRESSES["e1"])
    before = time.monotonic()
    fleet.godwit("e1", "pool", "set", "acme", "--sites", "+w1")
    took_s = time.monotonic() - before
    assert took_s < 5, "one second is to be reached on an idle machine"
    member(fleet, "w1", "acme")
    wait_until(lambda: answers(fleet, "client", "w1") and answers(fleet, "w1", "e1"), 20, "w1's answers")
    text, _ = pings.communicate(timeout=60)
    assert "500 received" in text, text

    # Addresses for who has none, through the switches.
    fleet.godwit("w1", "port", "add", "new", "--uplink", "--tenant", "acme")
    fleet.lab.exec("w1", "ip", "link", "set", "new", "up")
    fleet.godwit("w1", "pool", "attach", "acme", "new")
    fleet.lab.exec("w1", "busybox", "udhcpc", "-i", "new", "-f", "-q", "-n", "-t9", "-T1", "-s", "/bin/true")
    (lease,) = fleet.json("client", "component", "leases", "acme-dhcp")
    assert lease["state"] == "bound"
    shown = fleet.godwit("e1", "pool", "show", "acme").stdout
    assert "client, e1, w1" in shown and "w1/acme-w1-new" in shown, shown

    refused = fleet.godwit("e1", "pool", "set", "acme", "--sites", "-w1", expect=3).stderr
    assert "nothing was changed" in refused, refused
    assert answers(fleet, "client", "w1")
    for port in ("acme-w1", "new"):
        fleet.godwit("w1", "pool", "detach", "acme", port)
    fleet.godwit("w1", "pool", "detach", "acme", "new")  # harmless
    fleet.godwit("e1", "pool", "set", "acme", "--sites", "-w1")
    assert fleet.json("w1", "component", "ls") == []
    assert answers(fleet, "client", "e1")
    assert "nothing was changed" in fleet.godwit("e1", "pool", "rm", "acme", expect=3).stderr
    for host in ("client", "e1"):
        fleet.godwit("e1", "pool", "detach", "acme", f"acme-{host}")
    fleet.godwit("e1", "pool", "rm", "acme")
    fleet.godwit("e1", "pool", "rm", "acme")  # harmless
    for host in ("client", "e1"):
        assert fleet.json(host, "component", "ls") == [] and fleet.ports_at(host) == [f"acme-{host}"]


def test_pools_do_not_see_each_other(fleet):
    """Two with the same addresses."""
    for pool in ("red", "blue"):
        fleet.godwit("e1", "pool", "add", pool, "--sites", "e1,w1")
        member(fleet, "w1", pool, address=pool == "red")
        member(fleet, "e1", pool, address=pool == "red")
    wait_until(lambda: answers(fleet, "e1", "w1"), 20, "red's answer")
    heard = fleet.popen("w1", "timeout", "4", "tcpdump", "-ni", "blue", "--immediate-mode", "arp or icmp")
    wait_until(lambda: "listening" in heard.stderr.readline(), 20, "tcpdump listens")
    fleet.lab.exec("e1", "ip", "neigh", "flush", "dev", "red")
    assert answers(fleet, "e1", "w1")
    fleet.lab.exec("e1", "ping", "-c3", "-i0.1", "-b", "-W1", "10.7.0.255", check=False)
    text, _ = heard.communicate(timeout=30)
    assert text.strip() == "", text
    for refused in (fleet.godwit("e1", "pool", "attach", "red", "e1/blue-e1", expect=1),
                    fleet.godwit("e1", "connect", "red-e1-to-w1", "w1/blue-w1", expect=1)):
        assert "of tenant" in refused.stderr, refused.stderr


def test_what_cannot_be_is_refused(fleet):
    def refusal(*words, expect):
        return fleet.godwit("e1", "pool", *words, expect=expect).stderr

    assert "no IPv4 subnet" in refusal("add", "p", "--sites", "e1", "--subnet", "10.7.0.1/24", expect=2)
    assert "nowhere" in refusal("add", "p", "--sites", "e1,nowhere", expect=3)
    assert "no pool 'q'" in refusal("set", "q", "--sites", "+w1", expect=1)
    fleet.godwit("e1", "pool", "add", "p", "--sites", "e1")
    assert "another pool 'p'" in refusal("add", "p", "--sites", "e1,w1", expect=1)
    assert "not at w1" in refusal("set", "p", "--sites", "-w1", expect=2)
    assert "no port 'none'" in refusal("attach", "p", "none", expect=1)
    fleet.godwit("w1", "port", "add", "far", "--tenant", "p")
    assert "--sites +west" in refusal("attach", "p", "far", expect=1)
