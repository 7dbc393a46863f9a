"""What `./dev bench nat` makes of what correspondents saw: figures that are known beforehand."""

import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "bench"))

import nat_moves  # noqa: E402
from nat_traffic import Datagrams, Ping, Seen, Stream  # noqa: E402


def answers(*numbers):
    """Each ping answered after 1 ms."""
    return [(100 + number / 100, number, 1.0) for number in numbers]


def test_a_ping_that_paused():
    seen = Ping.of(answers(*range(100), 120, *range(121, 200)), 100.0, 102.0)
    assert seen.gap_ms == pytest.approx(210) and seen.survived
    assert seen.lost == 20 and seen.rtt_ms == 1.0


def test_a_late_answer_is_not_lost():
    """One that came behind the end of the window."""
    late = [(103.0, 150, 1500.0)]
    assert Ping.of(answers(*range(150), *range(151, 200)) + late, 100.0, 102.0).lost == 0


@pytest.mark.parametrize(("numbers", "gap_ms"), [(range(50), 1510), ((), 2000)])
def test_a_ping_that_did_not_come_back(numbers, gap_ms):
    seen = Ping.of(answers(*numbers), 100.0, 102.0)
    assert not seen.survived and seen.gap_ms == pytest.approx(gap_ms) and seen.lost is None


def window(gap_at_ms, gap_ms, lost=0):
    """Of 8 s, as the probe tells it; the gap is in the stream."""
    start = 1_795_994_000_000_000_000
    def gap(at_ms, ms):
        return {"gap": {"ms": ms, "at_unix_ns": start + int(at_ms * 1e6), "in_vm_ms": 1e4}, "lost": lost}
    return {"start_unix_ns": start, "length_ms": 8000.0, "to_vm": gap(100, 3.0), "from_vm": gap(gap_at_ms, gap_ms),
            "rtt": {"median_ms": 2.5}}


def test_datagrams():
    seen = Datagrams.of(window(1000, 3000.0, lost=2))
    assert (seen.gap_ms, seen.survived, seen.rtt_ms, seen.lost, seen.in_vm_ms) == (3000.0, True, 2.5, 4, 3000.0)
    assert Datagrams.of(window(7500, 500.0)).survived, "it may end in a short silence"
    gone = Datagrams.of(window(1000, 7000.0))
    assert not gone.survived and gone.lost is None


@pytest.mark.parametrize("broken", ["silent", "resets", "mismatches"])
def test_a_connection_survives_whole_only(broken):
    tcp = {"silent": 0, "resets": 0, "mismatches": 0, "stall_ms": 120.0}
    told = {"tcp": tcp, "rtt": {"median_ms": 2.0}}
    assert Stream.of(told) == Seen(120.0, True, 2.0)
    tcp[broken] = 1
    assert not Stream.of(told).survived


def rows(system="godwit-nat", load="udp-1000", failed=0, **changes):
    seen = Seen(40.0, True, 2.0, 0, 30.0)
    for name, value in changes.items():
        setattr(seen, name, value)
    figures = nat_moves.figures_of(seen, Seen(3.0, True, 2.0, 0), {"pause_ms": 30.0}, 11)
    return list(nat_moves.rows_of("outside", load, system, [figures] + failed * [None]))


def test_the_bound_is_the_pause_a_round_trip_and_what_is_usual():
    value = {row["metric"]: row["value"] for row in rows()}
    assert value["bound_ms"] == 30.0 + 2.0 + 10.0 and value["rules"] == 11
    assert value["connections_survived_percent"] == 100


@pytest.mark.parametrize(("changes", "kept"), [
    ({}, True), ({"gap_ms": 42.5}, False), ({"survived": False}, False),
    ({"gap_ms": 42.5, "system": "naive"}, True), ({"failed": 1}, False), ({"failed": 1, "system": "naive"}, True)])
def test_who_is_judged(changes, kept):
    assert nat_moves.judge(rows(**changes)) == kept


def test_what_was_lost_by_a_flow_that_is_gone_is_not_known():
    lost = [row for row in rows(survived=False, lost=None) if row["metric"] == "frames_lost"]
    assert lost[0]["value"] is None and lost[0]["why_not"]
    assert not [row for row in rows(load="ssh", lost=None) if row["metric"] == "frames_lost"]


def test_all_correspondents_have_their_turn():
    correspondents = dict.fromkeys(nat_moves.CORRESPONDENTS)
    turns = list(nat_moves.rounds_of(["ping", "udp-1000"], correspondents, SimpleNamespace(rounds=1, quick=False)))
    assert [(load, len(together)) for load, together in turns] == [("ping", 4), ("udp-1000", 2), ("udp-1000", 2)]
    assert list(turns[1][1]) + list(turns[2][1]) == list(correspondents)
