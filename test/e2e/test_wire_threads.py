"""Agents with several wire threads, between which ports and components go to and fro all the time.

    client: lan (10.8.0.1) --+                        +-- w1: lan (10.8.0.3), 3 threads, a storm
                             +-- switch sw1 at e1 ----+
    e1:     lan (10.8.0.2) --+   3 threads, a storm; the switch moves to w1
"""

from test_api import unix
from test_component_moves import Pings, move, names_at
from test_components import ADDRESSES, switched

def cpu_seconds_of_threads(fleet, host):
    text = unix(fleet, host, "GET", "/metrics")[1]
    return [float(line.split()[1]) for line in text.splitlines()
            if line.startswith("godwit_wire_thread_cpu_seconds_total{")]


def test_a_storm_among_threads_loses_nothing_while_a_switch_moves(fleet):
    for host in ("e1", "w1"):
        fleet.restart_agent(host, storm=5)
    switched(fleet)
    with Pings(fleet, "client", ADDRESSES["e1"]), Pings(fleet, "w1", ADDRESSES["client"]):
        move(fleet, "component/sw1", "e1", "w1")
        assert names_at(fleet, "w1") == ["sw1"]
        move(fleet, "component/sw1", "w1", "e1")
    for host in ("e1", "w1"):
        threads = cpu_seconds_of_threads(fleet, host)
        assert len(threads) == 3 and min(threads) > 0.01, threads
