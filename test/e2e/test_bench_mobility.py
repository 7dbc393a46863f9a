"""What `./dev bench mobility` makes of what it is told: figures that are known beforehand."""

import socket
import subprocess
import sys
import threading

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "bench"))

import guest_moves  # noqa: E402
import guest_programs  # noqa: E402
import mobility_latency  # noqa: E402
import mobility_many  # noqa: E402
import mobility_systems  # noqa: E402
import udp_flows  # noqa: E402
from guest_seen import Seen  # noqa: E402
from guest_traffic import Multipath  # noqa: E402
from mobility_moves import CORRESPONDENTS, SCENE  # noqa: E402


def element(address, size):
    return {"elem": {"val": address, "counter": {"packets": 2, "bytes": size}}}


def test_bytes_of_the_relay_are_of_both_ways():
    table = {"nftables": [{"metainfo": {}}, {"set": {"name": "came", "elem": [element("10.66.3.1", 84),
                                                                              element("10.66.3.10", 7)]}},
                          {"set": {"name": "went", "elem": [element("10.66.3.1", 100)]}},
                          {"set": {"name": "empty"}}, {"chain": {"name": "first"}}]}
    assert mobility_systems.bytes_by_address(table) == {"10.66.3.1": 184, "10.66.3.10": 7}


def test_rules_are_the_guests_own():
    """Of the others' elements none, and not of an address that begins like it."""
    concat = {"concat": ["10.66.1.20", "10.66.3.10"]}
    table = {"nftables": [{"map": {"name": "way4", "elem": [["10.66.1.20", "10.66.2.200"],
                                                            ["10.66.1.201", "10.66.2.209"]]}},
                          {"set": {"name": "direct4", "elem": [concat]}},
                          {"set": {"name": "old4", "elem": ["10.66.2.200", "10.66.2.201"]}},
                          {"set": {"name": "relays", "elem": ["tap5"]}}, {"set": {"name": "away6"}}, {"rule": {}}]}
    assert mobility_systems.elements(table, {"10.66.1.20", "10.66.2.200"}) == 4
    assert mobility_systems.elements({}, {"10.66.1.20"}) == 0


def test_fresh_pings_are_told_by_their_median():
    text = "".join(f"64 bytes from 10.66.2.201: icmp_seq={n} ttl=62 time={ms} ms\n" for n, ms in ((1, 80.5), (2, 20), (3, 21)))
    assert mobility_systems.median_of_pings("PING 10.66.2.201\n" + text + "\n3 packets transmitted\n") == 21
    assert mobility_systems.median_of_pings("PING 10.66.2.201\n") is None


AFTER = Seen(5.0, True, 42.0)


@pytest.mark.parametrize(("settled", "after", "load", "due"), [
    ({"fresh_rtt_ms": 21.0, "relay_bytes": 5}, AFTER, "ssh", {"relay_bytes": 5, "path_stretch": 2.0}),
    ({"fresh_rtt_ms": 21.0}, Seen(5.0, False), "ping", {"path_stretch": None}),
    ({"fresh_rtt_ms": None}, AFTER, "ping", {}),
    ({"fresh_rtt_ms": 21.0}, AFTER, "redis", {})])
def test_the_stretch_is_of_the_way_and_of_flows_that_live(settled, after, load, due):
    assert guest_moves.of_mover(settled, after, load) == due


def rows(system, load, **own):
    figures = guest_moves.figures_of(Seen(40.0, True, 2.0, 0), Seen(3.0, True, 2.0, 0), {"pause_ms": 30.0}, 17) | own
    return {row["metric"]: row for row in guest_moves.rows_of(SCENE, "no-agent", load, system, [figures, figures])}


def test_rows_are_this_benchs():
    of_it = rows("godwit-endpoint", "ssh", relay_bytes=7, path_stretch=2.0)
    assert {row["bench"] for row in of_it.values()} == {"mobility"}
    assert (of_it["relay_bytes"]["value"], of_it["path_stretch"]["value"]) == (7, 2.0)
    assert of_it["bound_ms"]["value"] == 42.0 and of_it["rules"]["value"] == 17
    lost = rows("naive", "ssh", path_stretch=None)
    assert lost["path_stretch"]["value"] is None and lost["path_stretch"]["why_not"] and "relay_bytes" not in lost


@pytest.mark.parametrize(("system", "gap_ms", "kept"), [("godwit-endpoint", 42.5, False), ("godwit-endpoint", 41.0, True),
                                                       ("godwit-wire", 42.5, True)])
def test_endpoint_is_judged(system, gap_ms, kept):
    assert guest_moves.judge(SCENE, list(rows(system, "ssh", blackout_ms=gap_ms).values())) == kept


def test_who_is_served():
    ports = [who.iperf_port for who in CORRESPONDENTS.values()]
    assert sorted(ports) == list(guest_programs.IPERF_PORTS), "a server of iperf3 has one client"
    guests = [next(SCENE.names) for _ in range(200)]
    assert len(set(guests)) == 170 and guests[:170] != guests[1:171]
    last = [int(address.rsplit(".", 1)[1]) for _, address in guests]
    assert min(last) == 20 and max(last) < 192, "no host's, and none of the site's locators"


def measured(**of_system):
    return [{"system": system.replace("_", "-"), "value": value}
            for of_round in zip(*of_system.values()) for system, value in zip(of_system, of_round)]


def test_latency_is_the_median_of_differences(capsys):
    """A round that was slow for both tells nothing."""
    told = mobility_latency.rows_of(measured(godwit_endpoint=[23.0, 90.0, 30.0], nothing=[20.0, 88.0, 20.0]))
    value = {(row["system"], row["metric"]): row["value"] for row in told}
    assert value["godwit-endpoint", "added_latency_us"] == 3.0
    assert value["nothing", "round_trip_us"] == 20.0
    assert mobility_latency.judge(told) and "+3.00 us" in capsys.readouterr().out
    assert not mobility_latency.judge(mobility_latency.rows_of(measured(godwit_endpoint=[30.1], nothing=[20.0])))


@pytest.mark.parametrize(("changes", "kept"), [({}, True), ({("many-10000", "staged_bytes_each"): 201}, False),
                                              ({("many-10000", "updated_bytes_each"): 201}, False),
                                              ({("many-10", "updated_bytes_each"): 9000}, True),
                                              ({("many-10", "lived_percent"): 90}, False),
                                              ({("many-10000", "lived_percent"): 99.99}, False),
                                              ({("many-10100", "lived_percent"): 99}, False)])
def test_many_are_judged(changes, kept):
    """Of ten the session's own bytes are most."""
    value = {(f"many-{count}", metric): most for count in (10, 10_000, 10_100)
             for metric, most in (("staged_bytes_each", 100), ("updated_bytes_each", 100), ("lived_percent", 100))}
    told = [{"case": case, "metric": metric, "value": one} for (case, metric), one in (value | changes).items()]
    assert mobility_many.judge(told) == kept


class Answered:
    """A socket whose datagrams are answered from the `late`th try on."""

    def __init__(self, late):
        self.late, self.tries = late, 0


def test_each_connection_is_asked_until_it_answers(monkeypatch):
    def unanswered(sockets):
        for each in sockets:
            each.tries += 1
        return [each for each in sockets if each.tries < each.late]
    monkeypatch.setattr(udp_flows, "unanswered", unanswered)
    sockets = [Answered(1) for _ in range(100)] + [Answered(udp_flows.TRIES), Answered(udp_flows.TRIES + 1)]
    assert udp_flows.answered_of(sockets) == 101
    assert [each.tries for each in sockets[:100]] == [1] * 100 and sockets[101].tries == udp_flows.TRIES


def test_a_sample_is_spread():
    assert udp_flows.spread(list(range(100)), 4) == [0, 25, 50, 75]
    assert udp_flows.spread([1, 2], 5) == [1, 2]


def test_a_probe_is_as_the_guest_reads_it():
    """src/lab/guest/protocol.hh: magic, version, kind; no stream is asked for."""
    probe = udp_flows.probe(0)
    assert len(probe) == 128 and probe[:8] == b"GWLT\x01\x01\x00\x00"


def test_a_line_by_mptcp_reads_like_a_ping():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 7009))
        server.listen()

        def echo():
            own, _ = server.accept()
            while got := own.recv(4096):
                own.sendall(got)
        threading.Thread(target=echo, daemon=True).start()
        with subprocess.Popen(Multipath.command(None, "127.0.0.1"), stdout=subprocess.PIPE, text=True) as client:
            found = [Multipath.LINE.search(client.stdout.readline()) for _ in range(3)]
            client.kill()
    assert [int(each.group(2)) for each in found] == [0, 1, 2]
    assert all(float(each.group(1)) > 1e9 and 0 < float(each.group(3)) < 1000 for each in found)
