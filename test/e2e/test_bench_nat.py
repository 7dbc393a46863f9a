"""What `./dev bench nat` makes of what correspondents saw: figures that are known beforehand."""

import io
import itertools
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "bench"))

import guest_moves  # noqa: E402
import guest_programs  # noqa: E402
import guest_services  # noqa: E402
import nat_moves  # noqa: E402
from guest_services import Iperf, Redis  # noqa: E402
from guest_traffic import AT_ONCE, LOADS, Correspondent, Datagrams, Ping, Seen, Stream, Traffic  # noqa: E402
from stage import StageError  # noqa: E402


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


HOST, GUEST = Correspondent("a2"), Correspondent("b2", "10.66.2.20")


class Local:
    """A lab whose hosts are here, and have one program: whatever is to be run, it is `program`, in Python."""

    def __init__(self, program):
        self.argv = [sys.executable, "-c", program]
        self.ran = []  # before

    def run(self, *words):
        self.ran.append(words)

    def command(self, *_):
        return ["true"]

    def start(self, *_, **options):
        process = subprocess.Popen(self.argv, text=True, **options)
        assert process.stdout.readline() == "ready\n"
        return process


REDIS = """
import sys
print("ready", flush=True)
kept, told, wrong_from = {}, 0, 6
while count := sys.stdin.readline():
    words = [(sys.stdin.readline(), sys.stdin.readline().rstrip())[1] for _ in range(int(count[1:]))]
    told += 1
    if words[0] == "SET":
        kept[words[1]] = words[2]
        answer = "+OK"
    else:
        value = kept[words[1]] if told != wrong_from else "9"
        answer = f"${len(value)}\\r\\n{value}"
    print(answer + "\\r", flush=True)
"""


@pytest.mark.parametrize(("wrong_from", "right"), [(0, True), (6, False)])
def test_each_answer_of_redis_is_looked_at(monkeypatch, wrong_from, right):
    monkeypatch.setattr(guest_services, "REDIS_EVERY_S", 0)
    flow = Redis(Local(REDIS.replace("told, wrong_from = {}, 0, 6", f"told, wrong_from = {{}}, 0, {wrong_from}")),
                 HOST, "10.66.1.20")
    guest_moves.wait_until(lambda: len(flow._answers) > 20 or flow._wrong, 20, "answers")
    flow._windows["move"] = [flow._answers[0][0], time.time()]
    seen = flow.seen("move")
    flow.stop()
    assert seen.survived == right and (right or len(flow._answers) == 5)
    for (before, _), (at, took) in itertools.pairwise(flow._answers):
        assert at - took / 1000 >= before - 1e-6, "it is as old as it is, not as its question"


def test_a_redis_that_is_gone():
    """Its connection, not its answers."""
    flow = Redis(Local(REDIS + "    if told == 8: break"), HOST, "10.66.1.20")
    guest_moves.wait_until(lambda: flow._wrong, 20, "the end")
    flow._windows["move"] = [flow._answers[0][0], time.time()]
    assert not flow.seen("move").survived
    flow.stop()


def test_what_redis_is_told():
    told = io.StringIO()
    assert guest_services.answer_to(("SET", "a2", "17"), told, io.StringIO("+OK\n")) == "+OK"
    assert told.getvalue() == "*3\r\n$3\r\nSET\r\n$2\r\na2\r\n$2\r\n17\r\n"
    assert guest_services.answer_to(("GET", "a2"), told, io.StringIO("$2\r\n17\r\n")) == "17"
    assert guest_services.answer_to(("GET", "a2"), told, io.StringIO()) == ""
    assert list(itertools.islice(guest_services.conversation("a2"), 4)) == [
        (("SET", "a2", "1"), "+OK"), (("GET", "a2"), "1"), (("SET", "a2", "2"), "+OK"), (("GET", "a2"), "2")]


def test_redis_answers_that_paused():
    answered = [(100 + number / 200, 1.5) for number in (*range(200), *range(230, 400))]
    answered[7:9] = [(at, 150.0) for at, _ in answered[7:9]]
    assert Redis.of(answered, 100.0, 102.0, False) == Seen(pytest.approx(155), True, 1.5)
    assert not Redis.of(answered, 100.0, 102.0, True).survived
    assert not Redis.of(answered, 100.0, 103.5, False).survived
    assert Redis.of(answered, 90.0, 95.0, False).gap_ms == 5000


def reported(*of_tenths, error=guest_services.ENDED_BY_US):
    """By iperf3: MB of each 0.1 s, of 8 ms of round trip."""
    return {"intervals": [{"sum": {"start": at / 10, "end": (at + 1) / 10, "bytes": int(mb * 1e6)},
                           "streams": [{"rtt": 8000}]} for at, mb in enumerate(of_tenths)], "error": error}


def test_an_iperf3_that_paused():
    """It ended at 200.0; the tenths of a window are those in it."""
    report = reported(*[1] * 50, 0, 0, 0, *[2] * 17, *[4] * 30)
    seen = Iperf.of(report, 200.0, 194.0, 200.0)
    assert seen == Seen(pytest.approx(500), True, 8.0, mbit_s=pytest.approx(320)), "4 MB in 0.1 s"
    before = Iperf.of(report, 200.0, 190.0, 194.0)
    assert before == Seen(pytest.approx(200), True, 8.0, mbit_s=pytest.approx(80))


def test_an_iperf3_that_did_not_come_back():
    seen = Iperf.of(reported(*[1] * 9, *[0] * 31), 200.0, 196.0, 200.0)
    assert (seen.survived, seen.mbit_s) == (False, 0.0) and seen.gap_ms == pytest.approx(3200)
    assert not Iperf.of(reported(*[0] * 40), 200.0, 196.0, 200.0).survived
    broken = reported(*[1] * 40, error="control socket has closed unexpectedly")
    assert not Iperf.of(broken, 200.0, 196.0, 200.0).survived
    with pytest.raises(StageError, match="refused"):
        Iperf.of(reported(error="Connection refused"), 200.0, 196.0, 200.0)


IPERF3 = f"""
import signal, sys
if sys.argv[1] == "host":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
sys.stdin.read() if sys.argv[1] == "guest" else signal.sigwait([signal.SIGTERM])
print('{json.dumps(reported(*[1] * 30))}', flush=True)
sys.exit(1)
"""


@pytest.mark.parametrize(("who", "where"), [(HOST, "host"), (GUEST, "guest")])
def test_iperf3_reports_as_it_is_ended(monkeypatch, who, where):
    """In a host by a signal; in a guest as its standard input ends, and a signal would lose its report."""
    monkeypatch.setattr(guest_services, "WARM_UP_S", 0)
    local = Local(IPERF3)
    local.argv.append(where)
    flow = Iperf(local, who, "10.66.1.20")
    assert local.ran == ([("a2", "sh", "-c", guest_programs.AS_IT_LEAVES)] if who is HOST else [])  # a guest's image does
    now = time.time()
    flow._windows = {"idle": [now - 2, now - 1], "move": [now - 1, now]}
    assert flow.seen("idle").survived
    asked = flow._asked
    assert flow.seen("move").survived and flow._asked == asked >= now
    flow.stop()


def test_windows_are_told_of_when_all_are_over(monkeypatch):
    """As iperf3's report ends its flow."""
    said = []
    flow = SimpleNamespace(begin=lambda name: said.append(f"begin {name}"), end=lambda name: said.append(f"end {name}"),
                           seen=lambda name: said.append(f"seen {name}") or name, stop=lambda: said.append("stop"))
    monkeypatch.setattr("guest_traffic.SETTLE_S", 0)
    traffic = Traffic(None, "ping", {}, "")
    traffic._flows = {"a2": flow}
    with traffic:
        assert traffic.watch("idle", lambda: said.append("act") or 7) == 7
        assert traffic.seen("idle") == {"a2": "idle"}
    assert said == ["begin idle", "act", "end idle", "seen idle", "stop"]


def rows(system="godwit-nat", load="udp-1000", failed=0, **changes):
    seen = Seen(40.0, True, 2.0, 0, 30.0)
    for name, value in changes.items():
        setattr(seen, name, value)
    figures = guest_moves.figures_of(seen, Seen(3.0, True, 2.0, 0), {"pause_ms": 30.0}, 11)
    return list(guest_moves.rows_of(nat_moves.SCENE, "outside", load, system, [figures] + failed * [None]))


def test_the_bound_is_the_pause_a_round_trip_and_what_is_usual():
    value = {row["metric"]: row["value"] for row in rows()}
    assert value["bound_ms"] == 30.0 + 2.0 + 10.0 and value["rules"] == 11
    assert value["connections_survived_percent"] == 100


@pytest.mark.parametrize(("changes", "kept"), [
    ({}, True), ({"gap_ms": 42.5}, False), ({"survived": False}, False),
    ({"gap_ms": 42.5, "system": "naive"}, True), ({"failed": 1}, False), ({"failed": 1, "system": "naive"}, True)])
def test_who_is_judged(changes, kept):
    assert guest_moves.judge(nat_moves.SCENE, rows(**changes)) == kept


def test_what_was_lost_by_a_flow_that_is_gone_is_not_known():
    lost = [row for row in rows(survived=False, lost=None) if row["metric"] == "frames_lost"]
    assert lost[0]["value"] is None and lost[0]["why_not"]
    assert not [row for row in rows(load="ssh", lost=None) if row["metric"] == "frames_lost"]


def test_all_correspondents_have_their_turn():
    correspondents = dict.fromkeys(nat_moves.CORRESPONDENTS)
    turns = list(guest_moves.rounds_of(["ping", "udp-1000"], correspondents, SimpleNamespace(rounds=1, quick=False)))
    assert [(load, len(together)) for load, together in turns] == [("ping", 4), ("udp-1000", 2), ("udp-1000", 2)]
    assert list(turns[1][1]) + list(turns[2][1]) == list(correspondents)


def test_throughput_is_compared_with_before():
    idle, seen = Seen(200.0, True, 8.0, mbit_s=80.0), Seen(500.0, True, 8.0, mbit_s=60.0)
    figures = guest_moves.figures_of(seen, idle, {"pause_ms": 30.0}, 11)
    value = {row["metric"]: row["value"] for row in guest_moves.rows_of(nat_moves.SCENE, "outside", "iperf3", "naive", [figures])}
    assert (value["throughput_mbit_s"], value["throughput_ratio"]) == (80.0, 0.75)
    assert value["bound_ms"] == 30.0 + 8.0 + 200.0 and "frames_lost" not in value
    assert not [row for row in rows(load="redis", lost=None) if "throughput" in row["metric"]]


def test_loads_that_are_served():
    assert AT_ONCE.keys() == LOADS.keys() and set(guest_programs.PROGRAMS) <= LOADS.keys()
    ports = [who.iperf_port for who in nat_moves.CORRESPONDENTS.values()]
    assert sorted(ports) == list(guest_programs.IPERF_PORTS), "a server of iperf3 has one client"
