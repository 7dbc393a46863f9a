"""Strategy endpoint: a guest goes to a subnet where its address means nothing, and its connections live on
(examples/abroad, with one site more: yonder, 10.66.4.0/24, where y1 is). x1 and h2 have agents; the router of x1's
site has none: the relay serves it."""

import json
import re
import stat
import subprocess
import time

import pytest
from conftest import ROOT, Lab, build_directory, wait_until
from fleet import BOOT_WORDS, Fleet, Probe, Vm
from test_faults import AFTER_RELEASE, kill_qemu, thaw
from test_nat import DataCentre, Pings, ProbeFrom

ABROAD = ROOT / "examples" / "abroad"
STRANGER = "router-world"  # has no agent
YONDER = """  yonder:
    tier: edge
    up: [internet]
    hosts: [y1]
    networks: [10.66.4.0/24]
    locators: [10.66.4.192/26]
"""


class Guest(Vm):
    """At home at h1, or at y1 as number 1xx; `number` is the last of its address. `words`: of its kernel's command line."""

    def __init__(self, fleet, number, correspondent="x1", host="h1", initrd=None, guest_agent=False, words="",
                 address6=None):
        net = {"h1": "10.66.1", "y1": "10.66.4"}[host]
        super().__init__(fleet, f"vm{number}", net, nic=True)
        self.address, self.address6, self.host = f"{net}.{number}", address6, host
        also = ["--guest", address6] if address6 else []
        if address6:
            words += f" godwit.ip6={address6}/128 godwit.gw6=fe80::1"
        fleet.godwit(host, "port", "add", self.uplink, "--uplink", "--guest", self.address, *also)
        fleet.godwit(host, "vm", "run", self.name, "--memory", "128MiB", "--nic", self.port,
                     *(["--guest-agent"] if guest_agent else []), "--kernel", fleet.guest / "vmlinuz",
                     "--initrd", initrd or fleet.guest / ("initrd-agent.img" if guest_agent else "initrd.img"),
                     "--append", f"{BOOT_WORDS} godwit.ip={self.address}/24 godwit.gw={net}.1 "
                     f"godwit.dirty=2mbit godwit.working-set=4MiB {words}")
        fleet.godwit(host, "connect", self.port, self.uplink)
        for address in filter(None, (self.address, address6)):
            wait_until(lambda a=address: self.answers(correspondent, a), 60,
                       lambda: f"{self.name}: {self.on_console()}{fleet.logs()}")

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
        return self.relocation_at(self.host)

    def relocation_at(self, host):
        found = [each for each in self.fleet.relocations(host) if each["port"] == self.uplink]
        return found[0] if found else None

    def alive(self):
        relocation = self.relocation()
        return relocation and relocation["lead"].get("alive")


class Abroad(DataCentre):
    def __init__(self, lab, directory):
        sites = (ABROAD / "lab.yaml").read_text().replace("[x1] }", "[x1] }\n  yonder: { hosts: [y1] }")
        Fleet.__init__(self, lab, sites + "  yonder-world: { between: [yonder, world], delay: 5ms }\n", directory)
        fabric = (ABROAD / "fabric.yaml").read_text() + YONDER
        lab.exec("x1", "sh", "-ec", f"cat > /run/fabric.yaml <<'END'\n{fabric}END")
        self.godwit("x1", "fabric", "set", "/run/fabric.yaml")
        for host in self.sites:
            wait_until(lambda h=host: (self.get(h, "/fabric") or {}).get("file"), 10, f"{host} knows the fabric")

    def expect_nothing_left(self, guest, home=None, limit_s=40):
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
        wait_until(lambda: left() == [], limit_s, lambda: f"{left()} {self.logs()}")

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

    def ask(self, line="are you there?"):
        self.process.stdin.write(f"{line}\n")
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


def test_a_guest_of_both_families_goes_and_comes_home(abroad):
    guest = Guest(abroad, 28, address6="fd67:6f64:7769:1::28")
    flows = [Echo(guest, host, guest.address6) for host in ("x1", STRANGER)]
    with Pings(guest, "x1", STRANGER), ProbeFrom("x1", guest, address=guest.address6) as probe:
        moved = guest.move("--strategy", "endpoint")
        assert [each.ask() for each in flows] == ["same"] * 2
    probe.expect_nothing_lost()
    assert {":" in each["new_address"] for each in moved["network"][0]["addresses"]} == {True, False}, moved
    wait_until(lambda: min((guest.alive() or {"none": 0}).values()) > 0, 20, guest.relocation)
    abroad.lab.run("cut", "home-world")
    try:
        assert flows[0].ask() == "same"
    finally:
        abroad.lab.run("heal", "home-world")
    with Pings(guest, "x1", STRANGER):
        guest.move("--strategy", "endpoint", target="h1")
        assert [each.ask() for each in flows] == ["same"] * 2
    for each in flows:
        each.close()
    abroad.expect_nothing_left(guest, home="h1")


@pytest.mark.drawn
def test_a_correspondent_without_agent_is_relayed_for_its_time(abroad):
    guest = Guest(abroad, 21)
    idle, busy = Echo(guest, STRANGER), Echo(guest, STRANGER)
    known = Echo(guest, "x1")
    with ProbeFrom(STRANGER, guest) as probe:
        guest.move("--strategy", "endpoint", "--relay-for", "18s")
        assert busy.ask() == "same"
    probe.expect_nothing_lost()
    # Counted every five seconds.
    wait_until(lambda: guest.alive()["direct"] >= 1, 10, guest.relocation)
    assert guest.alive()["relayed"] >= 2, guest.relocation()
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


def expect_as_if_it_had_not_been(abroad, guest, known):
    abroad.expect_nothing_left(guest, home="h1")
    assert not abroad.has_interface("f1", guest.uplink)
    assert known.ask() == "same"
    # And it goes when it is asked to the next time.
    guest.move("--strategy", "endpoint")
    assert known.ask() == "same"


@pytest.mark.drawn
def test_what_was_agreed_is_undone_with_the_move(abroad):
    guest = Guest(abroad, 23)
    known = Echo(guest, "x1")
    with abroad.hook_before_pause("h1") as (wait, go_on):
        identifier = abroad.begin_move(guest, "h1", "f1", *Fleet.PATIENT, "--strategy", "endpoint")
        wait()
        assert abroad.get("x1", "/fabric")["associations"] != []
        assert guest.relocation_at("f1")["uplink"] == "held" and abroad.has_interface("f1", guest.uplink)
        abroad.godwit("h1", "migration", "abort", identifier)
        go_on()
        abroad.wait_for_state("h1", identifier, "aborted")
    expect_as_if_it_had_not_been(abroad, guest, known)


@pytest.mark.drawn
def test_a_target_that_refuses_gives_the_uplink_back(abroad):
    """The source's uplink stands, and what comes for the guest goes by the relay: with the commit, which is refused."""
    guest = Guest(abroad, 36)
    known = Echo(guest, "x1")
    abroad.kill_agent("h1")
    abroad.start_agent("h1", fault=AFTER_RELEASE)
    wait_until(lambda: abroad.sees_all("h1"), 40, "h1 is back")
    identifier = abroad.begin_move(guest, "h1", "f1", *Fleet.PATIENT, "--strategy", "endpoint")
    wait_until(lambda: abroad.agent_stopped("h1"), 60, "it is handed over")
    kill_qemu(abroad, guest, "f1")
    abroad.wait_for_state("f1", identifier, "aborted")
    thaw(abroad, "h1")
    abroad.wait_for_state("h1", identifier, "aborted")
    assert known.ask() == "same"
    abroad.kill_agent("h1")  # the one with the fault
    abroad.start_agent("h1")
    wait_until(lambda: abroad.sees_all("h1"), 40, "h1 is back")
    expect_as_if_it_had_not_been(abroad, guest, known)


@pytest.mark.thorough
@pytest.mark.parametrize("dies", ("h1", "f1"))
def test_an_agent_dies_while_the_uplink_is_held(abroad, dies):
    guest = Guest(abroad, 33 if dies == "h1" else 34)
    known = Echo(guest, "x1")
    with abroad.hook_before_pause("h1") as (wait, go_on):
        identifier = abroad.begin_move(guest, "h1", "f1", *Fleet.PATIENT, "--strategy", "endpoint", "--on-restart", "abort")
        wait()
        assert guest.relocation_at("f1")["uplink"] == "held"
        abroad.kill_agent(dies)
        go_on()
        abroad.start_agent(dies)
        abroad.wait_for_state("h1", identifier, "aborted")
    expect_as_if_it_had_not_been(abroad, guest, known)


@pytest.mark.thorough
def test_a_guest_that_is_abroad_goes_on_by_wire(abroad):
    guest = Guest(abroad, 24)
    known = Echo(guest, "x1")
    guest.move("--strategy", "endpoint")
    refused = json.dumps(guest.move("--strategy", "nat", target="h1", expect=3))
    assert "nothing was changed" in refused and "--strategy endpoint, or wire" in refused, refused
    assert guest.move(target="h2")["strategy"] == "wire"
    assert known.ask() == "same"
    guest.move(target="f1")
    assert known.ask() == "same"
    # Its port goes with all that was agreed about it.
    known.close()
    abroad.godwit("f1", "disconnect", guest.port, guest.uplink)
    abroad.godwit("f1", "port", "rm", guest.uplink)
    abroad.expect_nothing_left(guest)


def new_address(guest):
    return guest.relocation()["lead"]["addresses"][0]["new_address"]


def answers(echoes):
    return [each.ask() for each in echoes]


@pytest.mark.drawn
def test_a_guest_comes_home_with_all_its_connections(abroad):
    guest = Guest(abroad, 29)
    older = [Echo(guest, host) for host in ("x1", STRANGER)]
    guest.move("--strategy", "endpoint")
    there = new_address(guest)
    began = [Echo(guest, host, there) for host in ("x1", STRANGER)]
    planned = abroad.godwit("f1", "migrate", guest.name, "--to", "h1", "--strategy", "endpoint", "--dry-run").stdout
    assert "is at home there" in planned, planned
    with ProbeFrom("x1", guest, rate=300) as probe:  # it answers four others, too, on a CPU that is emulated
        guest.move("--strategy", "endpoint", target="h1")
        assert answers(older + began) == ["same"] * 4, abroad.logs()
    probe.expect_nothing_lost()
    assert answers([Echo(guest, STRANGER), Echo(guest, STRANGER, there), Echo(guest, "h2")]) == ["same"] * 3
    assert f"port {guest.uplink} came from h1" in abroad.godwit("f1", "fabric", "show").stdout
    assert "; it went on to h1" in abroad.godwit("f1", "fabric", "show").stdout
    wait_until(lambda: abroad.get("x1", "/fabric")["associations"] == [], 15, "x1 has heard that it is over")


@pytest.mark.thorough
def test_on_to_a_third_host_and_home(abroad):
    guest = Guest(abroad, 30)
    echoes = [Echo(guest, host) for host in ("x1", STRANGER, "h2")]
    guest.move("--strategy", "endpoint")
    at_f1 = new_address(guest)
    echoes += [Echo(guest, host, at_f1) for host in ("x1", STRANGER)]
    with ProbeFrom("x1", guest) as known, ProbeFrom(STRANGER, guest) as stranger:
        guest.move("--strategy", "endpoint", target="y1")
        assert answers(echoes) == ["same"] * len(echoes), abroad.logs()
    for probe in (known, stranger):
        probe.expect_nothing_lost()
    wait_until(lambda: guest.alive()["direct"] >= 2, 20, guest.relocation)  # x1's and h2's
    assert guest.alive()["relayed"] >= 3, guest.relocation()
    refused = json.dumps(guest.move("--strategy", "endpoint", target="f1", expect=3))
    assert "still relays connections" in refused, refused
    echoes += [Echo(guest, host, new_address(guest)) for host in ("x1", STRANGER)]
    with ProbeFrom("x1", guest) as known, ProbeFrom(STRANGER, guest) as stranger:
        guest.move("--strategy", "endpoint", target="h1")
        assert answers(echoes) == ["same"] * len(echoes), abroad.logs()
    for probe in (known, stranger):
        probe.expect_nothing_lost()
    for host in ("f1", "y1", "h1", "x1"):
        abroad.kill_agent(host)
        abroad.start_agent(host)
        wait_until(lambda h=host: abroad.sees_all(h), 40, f"{host} is back")
        assert answers(echoes) == ["same"] * len(echoes), (host, abroad.logs())
    for each in echoes[3:]:
        each.close()
    abroad.expect_nothing_left(guest, home="h1", limit_s=90)
    assert answers(echoes[:3]) == ["same"] * 3


@pytest.mark.thorough
def test_a_further_move_that_is_aborted_leaves_what_was(abroad):
    guest = Guest(abroad, 31)
    echoes = [Echo(guest, host) for host in ("x1", STRANGER)]
    guest.move("--strategy", "endpoint")
    echoes.append(Echo(guest, STRANGER, new_address(guest)))
    for target in ("y1", "h1"):
        with abroad.hook_before_pause("f1") as (wait, go_on):
            identifier = abroad.begin_move(guest, "f1", target, *Fleet.PATIENT, "--strategy", "endpoint")
            wait()
            abroad.godwit("f1", "migration", "abort", identifier)
            go_on()
            abroad.wait_for_state("f1", identifier, "aborted")
        assert answers(echoes) == ["same"] * 3, target
        wait_until(lambda: [each["to"] for host in ("h1", "f1") for each in abroad.get(host, "/fabric")["relays"]
                            if each["guest"] == guest.uplink] == ["f1"], 20, abroad.logs)
        assert not [port for port in abroad.ports_at("f1") if port.startswith("relay-2")]
    guest.move("--strategy", "endpoint", target="h1")
    assert answers(echoes) == ["same"] * 3


def test_where_it_cannot_be_it_says_why(abroad):
    guest = Guest(abroad, 25)
    at_home = json.dumps(guest.move("--strategy", "endpoint", target="h2", expect=3))
    assert "is at home at host h2, too: --strategy nat, or wire" in at_home
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


class Talks:
    """What guests say to each other: in one of them runs whatever a line to its port 7010 asks for."""

    SCRIPT = """#!/bin/busybox sh
read what to
case $what in
  probe) exec /godwit-lab-probe "$to" --connections 2 --settle 1s --rate 200 ;;
  ping) exec ping -i 0.05 -w 20 "$to" ;;
esac
"""
    START = "#!/bin/busybox sh\nexec nc -ll -p 7010 -e /talk\n"  # as the image begins an agent
    ASK = """if 1:
        import socket, sys, threading, time
        for tries in range(100):
            try:
                s = socket.create_connection((sys.argv[1], 7010), 5)
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        s.settimeout(None)
        s.sendall((sys.argv[2] + '\\n').encode())
        def stop():
            sys.stdin.read()
            s.shutdown(socket.SHUT_WR)
        threading.Thread(target=stop, daemon=True).start()
        for line in s.makefile(): print(line, end='', flush=True)
    """

    @classmethod
    def image(cls, fleet, directory):
        """The guest's image and the probe with its libraries (as tools/make-guest-image adds an agent)."""
        program = build_directory() / "src" / "lab" / "godwit-lab-probe"
        libraries = re.findall(r"(/\S+)", subprocess.run(["ldd", program], text=True, check=True,
                                                         stdout=subprocess.PIPE).stdout)
        root = directory / "talk"
        for source in (program, *libraries):
            to = root / ("godwit-lab-probe" if source == program else source[1:])
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(open(source, "rb").read())
            to.chmod(0o755)
        for name, text in (("talk", cls.SCRIPT), ("start-agent", cls.START)):
            (root / name).write_text(text)
            (root / name).chmod(0o755)
        image = fleet.guest / "initrd-talk.img"
        image.write_bytes((fleet.guest / "initrd.img").read_bytes() + cls.archive(root))
        return image

    @staticmethod
    def archive(root):
        """cpio, newc (Documentation/driver-api/early-userspace/buffer-format)."""
        def entry(name, mode, content=b""):
            fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
            header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
            return b"".join(part + bytes(-len(part) % 4) for part in (header, content))
        text = b""
        for path in sorted(root.rglob("*")):
            is_directory = path.is_dir()
            text += entry(str(path.relative_to(root)), 0o755 | (stat.S_IFDIR if is_directory else stat.S_IFREG),
                          b"" if is_directory else path.read_bytes())
        return text + entry("TRAILER!!!", 0)


class TalkOf(Probe):
    """One guest's probe of another: 200 datagrams each second each way, and TCP. More than a TAP keeps would be lost while
    an uplink is held on a machine that is busy with both."""

    def __init__(self, guest, other):
        self.vm, self.figures, self.nobody_read = other, None, 0
        self.process = guest.fleet.lab.python("x1", Talks.ASK, guest.address, f"probe {other.address}",
                                              stdin=subprocess.PIPE)


class PingOf:
    def __init__(self, guest, other):
        self.process = guest.fleet.lab.python("x1", Talks.ASK, guest.address, f"ping {other.address}",
                                              stdin=subprocess.PIPE)

    def expect_nothing_lost(self):
        told = self.process.communicate(timeout=60)[0]
        sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+)", told).groups())
        # Each stopped QEMU keeps a frame (ARCHITECTURE), and the last is under way as it ends.
        assert received >= sent - 3 and sent > 100, told


@pytest.fixture(scope="module")
def talkers(shared, tmp_path_factory):
    return Talks.image(shared, tmp_path_factory.mktemp("talk"))


def both_move(abroad, one, other, order):
    if order == "one after the other":
        one.move("--strategy", "endpoint")
        wait_until(lambda: (one.alive() or {}).get("direct", 0) > 0 and one.alive()["relayed"] == 0, 20, one.relocation)
        other.move("--strategy", "endpoint", target="h2")
        return
    moves = [(host, abroad.begin_move(guest, host, target, *Fleet.PATIENT, "--strategy", "endpoint"))
             for guest, host, target in ((one, "h1", "f1"), (other, "y1", "h2"))]
    for host, identifier in moves:
        abroad.wait_for_state(host, identifier, "draining", "done")
    one.host, other.host = "f1", "h2"


@pytest.mark.thorough
@pytest.mark.parametrize("order", ("at once", "one after the other"))
def test_both_ends_of_connections_move(abroad, talkers, order):
    number = 27 if order == "at once" else 28
    one, other = Guest(abroad, number, initrd=talkers), Guest(abroad, 100 + number, host="y1", initrd=talkers)
    ping = PingOf(other, one)
    with TalkOf(one, other) as talk:
        both_move(abroad, one, other, order)
        for guest in (one, other):
            wait_until(lambda g=guest: (g.alive() or {}).get("direct", 0) > 0 and g.alive()["relayed"] == 0, 30,
                       lambda: f"{one.relocation()} {other.relocation()}")
            wait_until(lambda g=guest: "relay" not in g.relocation()["lead"], 20, guest.relocation)
        time.sleep(2)  # without either relay
    talk.expect_nothing_lost()
    ping.expect_nothing_lost()
