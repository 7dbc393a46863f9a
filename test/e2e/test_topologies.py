"""Hosts of the fleet through one agent. Topology: fleet.py.
"""

from conftest import wait_until


def test_other_hosts_through_one_agent(fleet):
    fleet.godwit("e1", "--at", "w1", "port", "add", "far")
    assert fleet.ports_at("w1") == ["far"] and fleet.ports_at("e1") == []
    assert [p["host"] for p in fleet.json("e1", "--at", "west", "port", "ls")] == ["w1"]
    entry = fleet.json("w1", "audit", "ls")[-1]
    assert (entry["did"], entry["via"], entry["role"]) == ("POST /v1/ports", "e1", "operator"), entry
    assert fleet.json("e1", "audit", "ls")[-1].get("on", {}).get("name") != "far"

    def refused(*words):
        return fleet.godwit("e1", *words, expect=None).stderr
    assert "no host or site 'nowhere'" in refused("--at", "nowhere", "port", "ls")
    assert "only root does this" in refused("--at", "w1", "host", "invite")
    assert "name one of" in refused("--at", "east", "port", "ls")
    assert "-H" in refused("--at", "w1", "vm", "console", "x")
    fleet.godwit("e1", "--at", "w1", "port", "rm", "far")
    assert fleet.ports_at("w1") == []
    fleet.kill_agent("w1")
    wait_until(lambda: not fleet.sees_all("e1"), 30, "the end of the session")
    assert "no session with host w1" in refused("--at", "w1", "port", "ls")
    fleet.restart_agent("w1")


def test_nothing_is_left(fleet):
    fleet.expect_nothing_left()
