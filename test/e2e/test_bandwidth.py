"""The cap of a move, as the link between e1 (east) and w1 (west) shows it. Run alone: a busy machine does not fill it."""

import time

from conftest import wait_until


def wan_rate(fleet, seconds_):
    """Bits per second over the WAN, of the busier direction."""
    def counted():
        link = next(link for link in fleet.lab.ls()["links"] if link["name"] == "east-west")
        return time.monotonic(), [direction["bytes"] for direction in link["directions"]]
    began, before = counted()
    time.sleep(seconds_)  # a rate is of a time
    ended, after = counted()
    return max(b - a for a, b in zip(before, after)) * 8 / (ended - began)


def test_bandwidth_cap_is_exact_and_changes_while_it_runs(fleet):
    vm = fleet.run_vm(dirty="1mbit", working_set="1MiB", nic=False)
    identifier = fleet.begin_move(vm, "e1", "w1", "--bandwidth", "30mbit", "--no-compact")
    wait_until(lambda: fleet.migration("e1", identifier).get("progress", {})
               .get("sent_bytes", 0) > 4 << 20, 20, "it is well under way")
    for cap in (30e6, 60e6):
        fleet.godwit("e1", "migration", "set", identifier, "--bandwidth", f"{cap / 1e6:.0f}mbit")
        assert 0.95 * cap < wan_rate(fleet, 2) < 1.03 * cap
    fleet.godwit("e1", "migration", "set", identifier, "--bandwidth", "400mbit")
    fleet.godwit("e1", "migration", "wait", identifier)


def test_a_long_path_that_loses_packets_is_filled(fleet):
    """Also after the first round, when the target must not be far behind: every lost packet holds up a round trip."""
    fleet.lab.run("set", "east-west", "rate=200mbit", "delay=50ms", "loss=0.1%", "queue=100ms")
    vm = fleet.run_vm(memory="192MiB", dirty="400mbit", working_set="96MiB", nic=False)
    identifier = fleet.begin_move(vm, "e1", "w1", "--no-compact")
    wait_until(lambda: fleet.migration("e1", identifier).get("progress", {}).get("round", 0) == 2, 40, "round 2")
    assert wan_rate(fleet, 2) > 0.6 * 200e6
    fleet.godwit("e1", "migration", "abort", identifier)
    fleet.wait_for_state("e1", identifier, "aborted")
