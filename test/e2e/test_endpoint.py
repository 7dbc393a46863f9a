"""Strategy endpoint: a guest goes to a subnet where its address means nothing, and its connections live on
(examples/abroad). x1 and h2 have agents; the router of x1's site has none: the relay serves it."""

import json
import subprocess
import time

import pytest
from conftest import ROOT, Lab, wait_until
from fleet import Fleet, Vm
from test_nat import DataCentre, ProbeFrom

ABROAD = ROOT / "examples" / "abroad"
STRANGER = "router-world"  # has no agent


class Guest(Vm):
    """At home at h1; `number` is the last of its address. `words`: of its kernel's command line."""

    def __init__(self, fleet, number, correspondent="x1", guest_agent=False, options=(), words=""):
        super().__init__(fleet, f"vm{number}", "10.66.1", nic=True)
        self.address, self.host = f"10.66.1.{number}", "h1"
        fleet.godwit("h1", "port", "add", self.uplink, "--uplink", "--guest", self.address)
        options = [*options, *(["--guest-agent"] if guest_agent else [])]
        memory = "128MiB" if guest_agent else "96MiB"
        fleet.godwit("h1", "vm", "run", self.name, "--memory", memory, "--nic", self.port, *options,
                     "--kernel", fleet.guest / "vmlinuz",
                     "--initrd", fleet.guest / ("initrd-agent.img" if guest_agent else "initrd.img"),
                     "--append", f"console=ttyS0 quiet godwit.ip={self.address}/24 godwit.gw=10.66.1.1 "
                     f"godwit.dirty=2mbit godwit.working-set=4MiB {words}")
        fleet.godwit("h1", "connect", self.port, self.uplink)
        wait_until(lambda: self.answers(correspondent), 60, lambda: f"{self.name}: {fleet.logs()}")

    def answers(self, correspondent, address=None):
        return self.fleet.lab.exec(correspondent, "ping", "-c", "1", "-W", "1", address or self.address,
                                   check=False).returncode == 0

    def move(self, *options, target="f1", expect=0):
        done = self.fleet.godwit(self.host, "migrate", self.name, "--to", target, "--json", *Fleet.PATIENT,
                                 *options, expect=expect)
        if expect == 0:
            self.host = target
        return json.loads(done.stdout) if done.stdout else done.stderr

    def relocation(self):
        found = [each for each in self.fleet.relocations() if each["port"] == self.uplink]
        return found[0] if found else None

    def alive(self):
        relocation = self.relocation()
        return relocation and relocation["lead"].get("alive")


class Abroad(DataCentre):
    def __init__(self, lab, directory):
        Fleet.__init__(self, lab, (ABROAD / "lab.yaml").read_text(), directory)
        self.godwit("x1", "fabric", "set", ABROAD / "fabric.yaml")
        for host in self.sites:
            wait_until(lambda h=host: (self.get(h, "/fabric") or {}).get("file"), 10, f"{host} knows the fabric")

    def expect_nothing_left(self, guest, home=None):
        def left():
            found = []
            for host in self.sites:
                fabric = self.get(host, "/fabric")
                found += [(host, kind, each) for kind in ("relocations", "relays", "associations")
                          for each in fabric[kind] if guest.uplink in json.dumps(each)]
                found += [(host, port) for port in self.ports_at(host) if port.startswith("relay-")]
                kernel = "ip rule; nft list table inet godwit_endpoint 2>/dev/null; ip route; ip neigh show proxy"
                shown = self.lab.exec(host, "sh", "-c", "ip rule" if host == home else kernel).stdout
                found += [(host, line) for line in shown.splitlines() if guest.address + " " in line]
            return found
        wait_until(lambda: left() == [], 40, lambda: f"{left()} {self.logs()}")

    def relocations(self, host="f1"):
        return (self.get(host, "/fabric") or {"relocations": []})["relocations"]


@pytest.fixture(scope="module")
def shared(lab_program, tmp_path_factory):
    lab = Lab(lab_program)
    try:
        yield Abroad(lab, tmp_path_factory.mktemp("abroad"))
    finally:
        lab.down()


@pytest.fixture
def abroad(shared):
    yield shared
    shared.lab.run("heal", "home-world")
    for host in shared.sites:
        if shared.agent(host) is None:
            shared.start_agent(host)
    wait_until(lambda: all(shared.sees_all(host) for host in shared.sites), 60, "all sessions")
    shared.tidy()


class Echo:
    """One long connection to the guest's echo port, from a host; ask() says what came back."""

    CODE = """if 1:
        import socket, sys, time
        for tries in range(50):  # a guest answers pings before it serves
            try:
                s = socket.create_connection((sys.argv[1], 7007), 5)
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        s.settimeout(float(sys.argv[2]))
        print('ready', s.getsockname()[0], flush=True)
        for line in sys.stdin.buffer:
            try:
                s.sendall(line)
                got = b''
                while len(got) < len(line):
                    more = s.recv(100)
                    if not more: raise ConnectionError('closed')
                    got += more
                print('same' if got == line else 'other', flush=True)
            except OSError as error:
                print(type(error).__name__, flush=True)
    """

    def __init__(self, guest, host, address=None, limit_s=8):
        self.process = guest.fleet.lab.python(host, self.CODE, address or guest.address, str(limit_s),
                                              stdin=subprocess.PIPE)
        self.told = self.process.stdout.readline().split()
        assert self.told[:1] == ["ready"], (self.told, guest.relocation(), guest.fleet.logs())

    def ask(self):
        self.process.stdin.write("are you there?\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)


def test_connections_live_on_without_the_site_that_they_began_at(abroad):
    guest = Guest(abroad, 20)
    with ProbeFrom("x1", guest) as probe:
        planned = abroad.godwit("h1", "migrate", guest.name, "--to", "f1", "--strategy", "endpoint", "--dry-run").stdout
        assert "connections with host x1 go there directly" in planned
        moved = guest.move("--strategy", "endpoint")
        assert moved["strategy"] == "endpoint"
        told = moved["network"][0]
        assert told["correspondents"] == ["x1"] and told["staged_ms"] > 0
        wait_until(lambda: (guest.alive() or {}).get("direct", 0) > 0, 20, guest.relocation)
        assert guest.alive()["relayed"] == 0, guest.relocation()
        abroad.lab.run("cut", "home-world")
        time.sleep(2)  # of traffic that takes no notice
    probe.expect_nothing_lost()


def test_a_correspondent_without_agent_is_relayed_for_its_time(abroad):
    guest = Guest(abroad, 21)
    idle, busy = Echo(guest, STRANGER), Echo(guest, STRANGER)
    known = Echo(guest, "x1")
    with ProbeFrom(STRANGER, guest) as probe:
        guest.move("--strategy", "endpoint", "--relay-for", "12s")
        assert busy.ask() == "same"
    probe.expect_nothing_lost()
    alive = guest.alive()
    assert alive["relayed"] >= 2 and alive["direct"] >= 1, guest.relocation()
    shown = abroad.godwit("f1", "fabric", "show").stdout
    assert f"by relay-{guest.uplink} until" in shown
    # Whoever comes new knows the new address, or the old one as long as it is relayed.
    new = guest.relocation()["lead"]["addresses"][0]["new_address"]
    later = [Echo(guest, host, new) for host in ("x1", STRANGER, "h2")]
    assert [each.ask() for each in later] == ["same"] * 3
    assert Echo(guest, STRANGER).ask() == "same"
    assert idle.ask() == "same"
    wait_until(lambda: "relay" not in guest.relocation()["lead"], 40, guest.relocation)
    assert guest.relocation()["lead"]["reset"] >= 2
    # In time: what it served is reset, not left hanging; what is direct does not notice.
    assert idle.ask() == "ConnectionResetError" and busy.ask() == "ConnectionResetError"
    assert known.ask() == "same" and later[1].ask() == "same"
    assert not [port for port in abroad.ports_at("f1") if port.startswith("relay-")]
    assert not guest.answers(STRANGER)


@pytest.mark.thorough
def test_agents_that_die_meanwhile(abroad):
    """The correspondent's: the relay serves until it is back; then all three, and nothing is forgotten."""
    guest = Guest(abroad, 22)
    known, stranger = Echo(guest, "x1"), Echo(guest, STRANGER)
    with abroad.hook_before_pause("h1") as (wait, go_on):
        identifier = abroad.begin_move(guest, "h1", "f1", *Fleet.PATIENT, "--strategy", "endpoint")
        wait()
        abroad.kill_agent("x1")
        go_on()
        abroad.wait_for_state("h1", identifier, "draining", "done")
    guest.host = "f1"
    assert known.ask() == "same" and stranger.ask() == "same"
    wait_until(lambda: "x1" in (guest.relocation().get("waits_for") or ""), 20, guest.relocation)
    abroad.start_agent("x1")
    wait_until(lambda: guest.alive()["direct"] >= 1, 40, guest.relocation)
    for host in ("f1", "x1", "h1"):
        abroad.kill_agent(host)
        if host == "x1":  # others have wires, which stand still without their agents
            assert known.ask() == "same" and stranger.ask() == "same"
        abroad.start_agent(host)
        wait_until(lambda h=host: abroad.sees_all(h), 40, f"{host} is back")
        assert known.ask() == "same" and stranger.ask() == "same", host
    alive = guest.alive()
    assert alive["direct"] >= 1 and alive["relayed"] >= 1, guest.relocation()


def test_what_was_agreed_is_undone_with_the_move(abroad):
    guest = Guest(abroad, 23)
    known = Echo(guest, "x1")
    with abroad.hook_before_pause("h1") as (wait, go_on):
        identifier = abroad.begin_move(guest, "h1", "f1", *Fleet.PATIENT, "--strategy", "endpoint")
        wait()
        assert abroad.get("x1", "/fabric")["associations"] != []
        abroad.godwit("h1", "migration", "abort", identifier)
        go_on()
        abroad.wait_for_state("h1", identifier, "aborted")
    abroad.expect_nothing_left(guest, home="h1")
    assert known.ask() == "same"
    # And it goes when it is asked to the next time.
    guest.move("--strategy", "endpoint")
    assert known.ask() == "same"


@pytest.mark.thorough
def test_a_guest_that_is_abroad_goes_on_by_wire(abroad):
    guest = Guest(abroad, 24)
    known = Echo(guest, "x1")
    guest.move("--strategy", "endpoint")
    for strategy in ("endpoint", "nat"):
        refused = json.dumps(guest.move("--strategy", strategy, target="h1", expect=3))
        assert "nothing was changed" in refused, refused
    assert guest.move(target="h2")["strategy"] == "wire"
    assert known.ask() == "same"
    guest.move(target="f1")
    assert known.ask() == "same"
    # Its port goes with all that was agreed about it.
    known.close()
    abroad.godwit("f1", "disconnect", guest.port, guest.uplink)
    abroad.godwit("f1", "port", "rm", guest.uplink)
    abroad.expect_nothing_left(guest)


def test_where_it_cannot_be_it_says_why(abroad):
    guest = Guest(abroad, 25)
    at_home = json.dumps(guest.move("--strategy", "endpoint", target="h2", expect=3))
    assert "is at home at host h2, too: --strategy nat" in at_home
    wrong = guest.move("--strategy", "endpoint", "--relay-for", "forever", expect=3)
    assert "forever" in str(wrong)


@pytest.mark.thorough
def test_the_source_dies_and_nobody_had_to_be_told(abroad):
    """Its relay is gone with it; the guest is abroad all the same, and is told of when the source is back."""
    guest = Guest(abroad, 26, correspondent=STRANGER)
    abroad.begin_move(guest, "h1", "f1", *Fleet.PATIENT, "--strategy", "endpoint")
    wait_until(lambda: abroad.vms_of("f1").get(guest.name, {}).get("state") == "running", 60, "it runs at f1")
    abroad.kill_agent("h1")
    guest.host = "f1"
    wait_until(lambda: (guest.relocation() or {}).get("phase") in ("flipped", "settled"), 30, guest.relocation)
    assert guest.uplink in abroad.ports_at("f1")
    new = guest.relocation()["lead"]["addresses"][0]["new_address"]
    wait_until(lambda: guest.answers("x1", new), 20, guest.relocation)
    abroad.start_agent("h1")
    wait_until(lambda: guest.uplink not in abroad.ports_at("h1"), 40, guest.relocation)
