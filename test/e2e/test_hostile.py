"""What users mistype and attackers send: a clear error or a counted drop, and nothing changed.

The session protocol's own hostile tests are src/session/hostile_test.cc; here whole agents are tried
through their doors: the command line, the local API, TCP and UDP port 4747. Topology: fleet.py.
"""

import json
import os
import subprocess

import pytest
from conftest import ROOT, wait_until
from fleet import ADDRESSES, Observer, Probe

PORT = 4747
ATTACKER = ROOT / "demo" / "attacker.py"


def state_of(fleet, host):
    """Everything a refused command must leave as it is."""
    return (fleet.left_at(host), list(fleet.vms_of(host)), fleet.json(host, "port", "ls"),
            fleet.json(host, "migration", "ls"))


# (command, a word of its error). VM is the running vm.
MISTAKES = [
    (("vm", "run", "Not/A/Name", "--kernel", "{kernel}"), "Not/A/Name"),
    (("vm", "run", "VM", "--kernel", "{kernel}"), "VM"),
    (("vm", "run", "fresh", "--kernel", "/there/is/no/kernel"), "/there/is/no/kernel"),
    (("vm", "run", "fresh", "--kernel", "{kernel}", "--memory", "12parsecs"), "12parsecs"),
    (("vm", "run", "fresh", "--kernel", "{kernel}", "--memory", "200TiB"), "memory"),
    (("vm", "run", "fresh", "--kernel", "{kernel}", "--cpus", "0"), "cpus"),
    (("vm", "run", "fresh", "--kernel", "{kernel}", "--nic", "Bad/Port"), "Bad/Port"),
    (("vm", "stop", "nobody"), "nobody"),
    (("vm", "rm", "nobody"), "nobody"),
    (("vm", "rm", "VM"), "running"),
    (("vm", "show", "nobody"), "nobody"),
    (("migrate", "nobody", "--to", "w1"), "nobody"),
    (("migrate", "VM", "--to", "atlantis"), "atlantis"),
    (("migrate", "VM", "--to", "e1"), "already"),
    (("migrate", "VM", "--to", "w1", "--max-downtime", "300 parsecs"), "parsecs"),
    (("migrate", "VM", "--to", "w1", "--max-downtime", "-1s"), "-1s"),
    (("migrate", "VM", "--to", "w1", "--bandwidth", "fast"), "fast"),
    (("migrate", "VM", "--to", "w1", "--on-diverge", "panic"), "panic"),
    (("migrate", "VM", "--to", "w1", "--at", "teatime"), "teatime"),
    (("migration", "show", "deadbeef"), "deadbeef"),
    (("migration", "abort", "0" * 32), "0" * 32),
    (("migration", "cutover", "../../etc"), "../../etc"),
    (("port", "add", "Bad/Port"), "Bad/Port"),
    (("port", "add", "lan", "--bridge", "nobridge"), "nobridge"),
    (("port", "add", "lan", "--uplink", "--address", "10.9.300.1/24"), "10.9.300.1/24"),
    (("connect", "nowhere", "w1/nothing"), "nowhere"),
    (("join", "not-a-token"), "TOKEN@HOST"),
    (("fly",), "fly"),
]


def test_mistakes_change_nothing(fleet):
    vm = fleet.run_vm(nic=False)
    before = state_of(fleet, "e1")
    wrong = []
    for words, hint in MISTAKES:
        words = [vm.name if word == "VM" else word.format(kernel=fleet.guest / "vmlinuz")
                 for word in words]
        done = fleet.godwit("e1", *words, expect=None)
        hint = vm.name if hint == "VM" else hint
        if done.returncode not in (1, 2, 3) or hint not in done.stderr:
            wrong.append((words, done.returncode, done.stdout, done.stderr))
    assert not wrong, "\n".join(map(str, wrong))
    assert state_of(fleet, "e1") == before


def test_unreachable_target_is_refused(fleet):
    vm = fleet.run_vm(nic=False)
    wait_until(lambda: fleet.where(vm.name) == ["e1"], 20, "the vm runs")
    fleet.kill_agent("w1")
    wait_until(lambda: {h["name"]: h["state"] for h in fleet.json("e1", "host", "ls")}["w1"] != "up",
               30, "w1 is missed")
    done = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=3)
    assert "w1" in done.stderr and "reached" in done.stderr, done.stderr
    assert fleet.where(vm.name) == ["e1"] and fleet.last_migration("e1", vm) is None


def test_a_member_joins_no_other_fleet(fleet):
    done = fleet.godwit("e1", "join", f"{'a' * 64}@10.66.2.99:4747", expect=None)
    assert done.returncode in (1, 3) and "belongs to fleet" in done.stderr, done


def test_second_migrate_is_refused(fleet):
    vm = fleet.run_vm(nic=False)
    identifier = fleet.begin_move(vm, "e1", "w1", *fleet.PATIENT, "--bandwidth", "20mbit")
    done = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=3)
    assert "migrating already" in done.stderr
    fleet.godwit("e1", "migration", "abort", identifier)
    fleet.wait_for_state("e1", identifier, "aborted")


def test_target_without_memory_refuses(fleet):
    """QEMU cannot have its memory there: the move ends before the guest was touched."""
    vm = fleet.run_vm(memory="6GiB", nic=False)
    fleet.kill_agent("w1")
    fleet.start_agent("w1", limits=["prlimit", f"--as={5 << 30}"])
    wait_until(lambda: fleet.sees_all("e1"), 40, "w1 is back")
    with Observer(vm):
        done = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=None)
        assert done.returncode in (3, 4), done.stderr
        assert "memory" in done.stderr, done.stderr
        assert fleet.where(vm.name) == ["e1"]
        fleet.wait_for_nothing_of(vm, "w1")
    fleet.kill_agent("w1")  # tidy() starts one without limits


def test_names_taken_at_the_target_are_refused(fleet):
    vm = fleet.run_vm()
    fleet.godwit("w1", "port", "add", vm.port)
    done = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=None)
    assert done.returncode == 3 and vm.port in done.stderr, done.stderr
    fleet.godwit("w1", "port", "rm", vm.port)
    fleet.vms -= 1
    fleet.run_vm("w1", nic=False)
    done = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=3)
    assert vm.name in done.stderr
    assert fleet.where(vm.name) == ["e1", "w1"]  # two vms of one name, as before


REPLAY = """
import os, random, socket, sys, time
target, port = sys.argv[1], int(sys.argv[2])
tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
tap.settimeout(5)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
seen = []
while len(seen) < 300:
    packet, about = tap.recvfrom(65536)
    if about[2] != socket.PACKET_OUTGOING or about[1] != 0x800 or packet[9] != 17: continue
    if packet[16:20] == socket.inet_aton(target) and packet[22:24] == port.to_bytes(2, 'big'):
        if len(packet) <= 1500: seen.append(packet)
for packet in seen:
    again = bytearray(packet); again[26:28] = b'\\0' * 2  # no UDP checksum: theirs was the NIC's to fill
    raw.sendto(bytes(again), (target, port))
    again[28 + random.randrange(len(packet) - 28)] ^= 1  # and with one bit turned
    raw.sendto(bytes(again), (target, port))
plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(2000): plain.sendto(os.urandom(random.randrange(1, 1400)), (target, port))
print('sent', len(seen))
"""


def test_garbage_and_replays_at_the_udp_port(fleet):
    vm = fleet.run_vm()
    with Probe(vm) as probe:
        attack = fleet.lab.python("client", REPLAY, ADDRESSES["e1"], PORT)
        out, _ = attack.communicate(timeout=60)
        assert "sent 300" in out, out
        drops = fleet.json("e1", "wire", "ls")[0]["drops"]
    probe.expect_nothing_lost()  # and nothing duplicated
    assert drops.get("replayed", 0) >= 200, drops
    assert sum(drops.values()) >= 400, drops


HALF_OPEN = """
import os, socket, sys, time
held = []
for i in range(400):
    s = socket.socket(); s.settimeout(0.2)
    try: s.connect((sys.argv[1], int(sys.argv[2])))
    except OSError: continue
    if i % 2: s.send(b'\\x16\\x03\\x01\\x02\\x00\\x01\\x00\\x01\\xfc\\x03\\x03')  # a ClientHello begins
    if i % 7 == 0: s.send(os.urandom(100))
    held.append(s)
print('held', flush=True)
sys.stdin.read()
"""


def test_half_open_connections_are_bounded(fleet):
    vm = fleet.run_vm(nic=False)

    def descriptors():
        return len(os.listdir(f"/proc/{fleet.agent('e1')}/fd"))
    before = descriptors()
    attack = fleet.lab.python("client", HALF_OPEN, ADDRESSES["e1"], PORT, stdin=subprocess.PIPE)
    try:
        assert "held" in attack.stdout.readline()
        assert descriptors() < before + 300  # AcceptorLimits
        fleet.move(vm, "e1", "w1")  # sessions and lanes go on
        assert fleet.where(vm.name) == ["w1"]
        wait_until(lambda: descriptors() < before + 20, 40, "the time-out of the handshakes")
    finally:
        attack.kill()
        attack.wait()


@pytest.mark.parametrize("kind", ["forged", *(
    pytest.param(kind, marks=pytest.mark.thorough) for kind in ("garbage", "replayed", "half-open"))])
def test_a_flood_costs_no_legitimate_frame(fleet, kind):
    """At full rate, from a host of the fleet's own network. What the socket's buffer could not hold is
    counted by the kernel; nothing else is missing."""
    vm = fleet.run_vm()
    before = fleet.json("e1", "host", "show")
    with Probe(vm) as probe:
        attack = fleet.lab.python("client", ATTACKER.read_text(), kind, ADDRESSES["e1"], PORT, 3)
        out, _ = attack.communicate(timeout=60)
        sent = json.loads(out)["sent"]
        after = fleet.json("e1", "host", "show")
        drops = fleet.json("e1", "wire", "ls")[0]["drops"]
        assert fleet.sees_all("e1")
    assert sent > 1000, out
    overflow = after["datagrams"]["socket_overflow"] - before["datagrams"]["socket_overflow"]
    f = probe.figures
    assert f["guest"] is not None and f["tcp"]["resets"] == 0 and f["tcp"]["mismatches"] == 0, f
    assert f["to_vm"]["duplicated"] == 0 and f["from_vm"]["lost"] == 0, f
    assert f["to_vm"]["lost"] <= overflow, (overflow, f)
    seen = {"garbage": after["datagrams"]["strays"] - before["datagrams"]["strays"],
            # Half of them are of the past, and not looked into.
            "forged": drops.get("bad_tag", 0) + drops.get("replayed", 0), "replayed": drops.get("replayed", 0),
            "half-open": after["handshakes"]["displaced"] - before["handshakes"]["displaced"]}[kind]
    assert seen + overflow > sent // 10, (kind, sent, overflow, drops, after)


STRANGER = """
import socket, ssl, subprocess, sys
subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ed25519', '-nodes', '-keyout', 'k.pem', '-out',
                'c.pem', '-subj', '/CN=w1', '-days', '1', '-addext', 'subjectAltName=DNS:w1'],
               check=True, cwd='/tmp', stderr=subprocess.DEVNULL)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.load_cert_chain('/tmp/c.pem', '/tmp/k.pem')
context.set_alpn_protocols([sys.argv[3]])
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as raw:
        with context.wrap_socket(raw) as tls:
            tls.sendall(b'hello')
            print('got', tls.recv(100))
except TimeoutError:
    print('accepted, and left waiting')
except OSError as error:
    print('refused', error)
"""


def test_a_stranger_with_a_host_s_name_is_refused(fleet):
    before = fleet.log("e1")

    def refused_and_logged():
        out = fleet.lab.exec("client", "/usr/bin/python3", "-c", STRANGER, ADDRESSES["e1"], PORT,
                             "godwit/1").stdout
        assert "refused" in out or "got b''" in out, out
        return "refused a connection from 10.66.1.11" in fleet.log("e1")[len(before):]
    # Of the strangers of the tests before ten have been logged, perhaps, which is enough for ten seconds.
    wait_until(refused_and_logged, 20, "it is logged")
    assert fleet.sees_all("e1")


OVERSIZED = """
import socket
s = socket.socket(socket.AF_UNIX)
s.connect('/run/godwit/godwitd.sock')
s.settimeout(10)
try:
    s.sendall(b'POST /v1/vms HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 1000000000\\r\\n\\r\\n')
    for _ in range(1000): s.sendall(b'x' * 100000)
except OSError: pass
try: print(s.recv(1000).decode())
except OSError as error: print('closed', error)
"""


def test_oversized_request_of_the_api_is_refused(fleet):
    out = fleet.lab.exec("e1", "/usr/bin/python3", "-c", OVERSIZED).stdout
    assert "413" in out or "closed" in out, out
    assert fleet.sees_all("e1")


def test_dry_run_says_what_is_wrong_in_json(fleet):
    vm = fleet.run_vm(nic=False)
    fleet.vms -= 1
    fleet.run_vm("w1", nic=False)
    done = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", "--dry-run", "--json", expect=3)
    answer = json.loads(done.stdout)
    assert not answer["ok"] and any(not check["ok"] for check in answer["checks"])


# The vm dirties memory much faster than the link carries it. (Compact, what this one writes would converge.)
DIVERGING = {"memory": "96MiB", "dirty": "300mbit", "working_set": "20MiB", "nic": False}
SLOWLY = ("--to", "w1", "--no-compact", "--bandwidth", "70mbit")


@pytest.mark.thorough  # 36 s; one that diverges is in test_postcopy.py
def test_a_move_that_does_not_converge_is_aborted(fleet):
    vm = fleet.run_vm(**DIVERGING)
    with Observer(vm):
        # So short a pause that not even a guest without a CPU of its own, which dirties little, fits into it.
        done = fleet.godwit("e1", "migrate", vm.name, *SLOWLY, "--max-downtime", "20ms", expect=4)
        assert "will not converge below 20 ms" in done.stderr, done.stderr
        assert "--on-diverge" in done.stderr, done.stderr
        fleet.wait_for_nothing_of(vm, "w1")
        assert fleet.where(vm.name) == ["e1"]


@pytest.mark.thorough  # half a minute
def test_a_move_that_does_not_converge_pauses_if_told_so_meanwhile(fleet):
    vm = fleet.run_vm(**DIVERGING)
    with Observer(vm):
        identifier = fleet.json("e1", "migrate", vm.name, *SLOWLY, "--detach")["id"]
        fleet.godwit("e1", "migration", "set", identifier, "--on-diverge", "pause")
        fleet.godwit("e1", "migration", "wait", identifier)
        assert fleet.where(vm.name) == ["w1"]
        assert fleet.migration("e1", identifier)["report"]["pause_ms"] > 300


@pytest.mark.thorough
def test_a_throttled_vm_converges(fleet):
    """What would not converge does, as QEMU takes the vCPUs' time: more from round to round."""
    vm = fleet.run_vm(**DIVERGING)
    throttled = 0
    with Observer(vm):
        identifier = fleet.json("e1", "migrate", vm.name, *SLOWLY, "--max-downtime", "500ms", "--on-diverge",
                                "throttle", "--detach")["id"]

        def over():
            nonlocal throttled
            move = fleet.migration("e1", identifier)
            throttled = max(throttled, move.get("progress", {}).get("throttle_percent", 0))
            return move["state"] in ("committed", "draining", "done", "aborted")

        wait_until(over, 150, "the throttled move")
    assert fleet.where(vm.name) == ["w1"], fleet.migration("e1", identifier)
    assert throttled > 20, throttled
