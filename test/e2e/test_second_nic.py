"""NICs that are plugged into a running vm, and strategy secondary-nic: a guest has an address of the network that it
goes to before it goes (examples/abroad). x1 has an agent; the router of x1's site has none."""

import subprocess

import pytest
import test_endpoint
from conftest import wait_until
from test_endpoint import STRANGER, Echo, Guest, answers
from test_nat import ProbeFrom

shared, abroad = test_endpoint.shared, test_endpoint.abroad  # fixtures


class Traveller(Guest):
    """With qemu-guest-agent; comes to f1, and there has `web-for-f1` too."""

    def __init__(self, fleet, number, **options):
        super().__init__(fleet, number, guest_agent=True, **options)
        self.second = f"{self.name}-for-f1"
        wait_until(lambda: "up" in self.run("echo up", check=False), 60, "its agent")

    def run(self, command, check=True):
        return self.fleet.in_guest(self.host, self, command, check)

    def nics(self):
        return {nic["port"]: nic for nic in self.fleet.vms_of(self.host)[self.name]["nics"]}

    def way_out(self, to="10.66.3.10"):
        """(interface, its own address) of what begins anew."""
        words = self.run(f"ip route get {to}").split()
        return words[words.index("dev") + 1], words[words.index("src") + 1]

    def new_address(self, second=None):
        return self.nics()[second or self.second]["network"]["addresses"][0].split("/")[0]


def expect_no_second_nic(fleet, guest):
    assert guest.second not in guest.nics()
    assert guest.second not in fleet.ports_at(guest.host)
    assert f"{guest.name}-at-f1" not in fleet.ports_at("f1")


@pytest.mark.thorough  # 21 s; qemu_real_test plugs, too
def test_a_nic_comes_and_goes(abroad):
    guest = Traveller(abroad, 40)
    abroad.godwit("h1", "vm", "nic", "add", guest.name, "extra")
    abroad.godwit("h1", "vm", "nic", "add", guest.name, "extra")  # harmless
    nic = guest.nics()["extra"]
    assert nic["slot"] == 0 and nic in abroad.json("h1", "vm", "nic", "ls", guest.name)
    wait_until(lambda: nic["mac"] in guest.run("cat /sys/class/net/*/address"), 20, "the guest sees it")

    # Its wire leads to the host itself, which reaches the guest by it.
    abroad.godwit("h1", "port", "add", "extra-net", "--uplink", "--address", "10.77.0.1/24")
    abroad.godwit("h1", "connect", "extra", "extra-net")
    told = abroad.json("h1", "vm", "nic", "configure", guest.name, "extra", "--address", "10.77.0.7/24")
    assert told["interface"] == "eth1" and told["took_ms"] > 0, told
    wait_until(lambda: guest.answers("h1", "10.77.0.7"), 10, lambda: guest.run("ip address"))
    assert guest.way_out()[0] == "eth0"  # as before
    assert guest.nics()["extra"]["network"]["addresses"] == ["10.77.0.7/24"]
    other = abroad.godwit("h1", "vm", "nic", "configure", guest.name, "extra", "--address", "10.77.0.8/24", expect=1)
    assert "deconfigure" in other.stderr

    # Agent and NIC find each other again; not one that QEMU was not given yet.
    abroad.kill_agent("h1")
    abroad.start_agent("h1", fault="nic.plugging.record.after")
    wait_until(lambda: guest.answers("h1", "10.77.0.7"), 20, abroad.logs)
    begun = abroad.popen("h1", abroad.bin / "godwit", "vm", "nic", "add", guest.name, "another")
    wait_until(lambda: abroad.agent_stopped("h1"), 20, "it is recorded")
    abroad.kill_agent("h1")
    begun.wait(20)
    abroad.start_agent("h1")
    wait_until(lambda: set(guest.nics()) == {guest.port, "extra"}, 20, guest.nics)

    abroad.godwit("h1", "vm", "nic", "deconfigure", guest.name, "extra")
    assert "10.77.0.7" not in guest.run("ip address; ip rule")
    abroad.godwit("h1", "vm", "nic", "add", guest.name, "another")
    full = abroad.godwit("h1", "vm", "nic", "add", guest.name, "third", expect=1)
    assert "all 2 slots" in full.stderr and "third" not in abroad.ports_at("h1")
    for name in ("extra", "another", "another"):
        abroad.godwit("h1", "vm", "nic", "rm", guest.name, name)
    assert list(guest.nics()) == [guest.port]
    refused = abroad.godwit("h1", "vm", "nic", "rm", guest.name, guest.port, expect=1)
    assert "made with it" in refused.stderr
    wait_until(lambda: nic["mac"] not in guest.run("cat /sys/class/net/*/address"), 20, "it is gone")


@pytest.mark.thorough
def test_what_cannot_be_configured_is_refused(abroad):
    guest = Traveller(abroad, 41)
    abroad.godwit("h1", "vm", "nic", "add", guest.name, "extra")
    for words, why in ((("--address", "10.77.0.7"), "length"), (("--address", "10.77.0.7/24$(reboot)"), "10.77.0.7"),
                       (("--address", "10.77.0.7/24", "--gateway", "nowhere"), "nowhere")):
        refused = abroad.godwit("h1", "vm", "nic", "configure", guest.name, "extra", *words, expect=1)
        assert why in refused.stderr, refused.stderr
    assert "network" not in guest.nics()["extra"]
    own = abroad.godwit("h1", "vm", "nic", "configure", guest.name, guest.port, "--address", "10.77.0.7/24", expect=1)
    assert "made with" in own.stderr
    missing = abroad.godwit("h1", "vm", "nic", "configure", guest.name, "nothing", "--address", "10.77.0.7/24", expect=1)
    assert "no NIC nothing" in missing.stderr


def test_the_new_address_is_there_before_the_move(abroad):
    guest = Traveller(abroad, 42, address6="fd67:6f64:7769:1::42")
    guest.run("mkdir /etc; echo nameserver 10.66.1.53 > /etc/resolv.conf")
    echoes = {host: Echo(guest, host) for host in ("x1", STRANGER)}
    echo6 = Echo(guest, STRANGER, guest.address6)
    site = abroad.godwit("h1", "migrate", guest.name, "--to", "abroad", "--strategy", "secondary-nic", expect=3)
    assert "no host abroad" in site.stderr
    planned = abroad.godwit("h1", "migrate", guest.name, "--to", "f1", "--strategy", "secondary-nic", "--dry-run").stdout
    assert f"{guest.second} is plugged in" in planned
    expect_no_second_nic(abroad, guest)

    moved = guest.move("--strategy", "secondary-nic", "--resolver", "10.66.2.53")
    assert moved["strategy"] == "secondary-nic"
    assert moved["flip"]["done"] and moved["flip"]["port"] == guest.second, moved["flip"]
    new = guest.new_address()
    assert new.startswith("10.66.2.")
    assert guest.way_out() == ("eth1", new)
    assert guest.run("cat /etc/resolv.conf").strip() == "nameserver 10.66.2.53"
    for host, echo in echoes.items():
        assert echo.ask() == "same", (host, guest.relocation(), guest.run("ip rule; ip route show table all"))
        assert guest.answers(host, new), (host, guest.run("ip rule; ip route show table all"))
    new6 = guest.nics()[guest.second]["network"]["addresses"][1].split("/")[0]
    assert echo6.ask() == "same" and guest.answers(STRANGER, new6), guest.run("ip -6 rule; ip -6 route show table all")
    assert new6 in guest.run("ip -6 route get fd67:6f64:7769:3::a")
    # It needs nothing of where it was: neither do new connections with the new address.
    wait_until(lambda: (guest.alive() or {}).get("direct", 0) > 0, 20, guest.relocation)
    abroad.lab.run("cut", "home-world")
    assert echoes["x1"].ask() == "same"
    late = Echo(guest, STRANGER, new)
    assert late.ask() == "same"
    abroad.lab.run("heal", "home-world")
    # It can do without it again, also where it came with it.
    late.close()
    for what in ("deconfigure", "rm"):
        abroad.godwit("f1", "vm", "nic", what, guest.name, guest.second)
    assert guest.way_out() == ("eth0", guest.address) and list(guest.nics()) == [guest.port]
    assert guest.run("cat /etc/resolv.conf").strip() == "nameserver 10.66.1.53"
    assert guest.address6 in guest.run("ip -6 route get fd67:6f64:7769:3::a")
    assert echoes["x1"].ask() == echo6.ask() == "same"
    for echo in (*echoes.values(), echo6):
        echo.close()


@pytest.mark.thorough
def test_the_naive_order(abroad):
    guest = Traveller(abroad, 43)
    echo = Echo(guest, "x1")
    guest.move("--strategy", "secondary-nic", "--configure", "after")
    assert guest.way_out() == ("eth1", guest.new_address())
    assert echo.ask() == "same"
    echo.close()


def test_without_a_guest_agent_another_strategy_is_named(abroad):
    guest = Guest(abroad, 44)
    refused = abroad.godwit("h1", "migrate", guest.name, "--to", "f1", "--strategy", "secondary-nic", expect=3)
    assert "--guest-agent" in refused.stderr and "endpoint" in refused.stderr
    body = {"vm": guest.name, "to": "f1", "strategy": "secondary-nic"}
    assert abroad.ask("h1", "POST", "/migrations", body) is None  # no NIC is prepared
    assert f"{guest.name}-at-f1" not in abroad.ports_at("f1")


def expect_aborted(abroad, guest, target):
    move = abroad.popen(guest.host, abroad.bin / "godwit", "migrate", guest.name, "--to", target, "--strategy",
                        "secondary-nic", "--bandwidth", "2mbit", "--max-downtime", "1ms")
    last = lambda: abroad.last_migration(guest.host, guest) or {}  # noqa: E731
    wait_until(lambda: last().get("to") == target and last().get("state") == "copying", 60, abroad.logs)
    abroad.godwit(guest.host, "migration", "abort", last()["id"])
    out, err = move.communicate(timeout=60)
    assert move.returncode == 4, (out, err)


@pytest.mark.thorough
def test_an_aborted_move_takes_the_second_nic_back(abroad):
    guest = Traveller(abroad, 45)
    echo = Echo(guest, STRANGER)
    expect_aborted(abroad, guest, "f1")
    expect_no_second_nic(abroad, guest)
    assert "10.66.2." not in guest.run("ip address; ip rule")
    assert echo.ask() == "same"
    echo.close()


@pytest.mark.thorough
def test_on_by_a_further_nic_and_home(abroad):
    guest = Traveller(abroad, 47)
    echoes = [Echo(guest, host) for host in ("x1", STRANGER)]
    guest.move("--strategy", "secondary-nic")
    at_f1 = guest.new_address()
    echoes += [Echo(guest, host, at_f1) for host in ("x1", STRANGER)]
    before, further = guest.nics(), f"{guest.name}-for-y1"
    planned = abroad.godwit("f1", "migrate", guest.name, "--to", "y1", "--strategy", "secondary-nic", "--dry-run").stdout
    assert f"{further} is plugged in" in planned, planned
    assert guest.nics() == before and f"{guest.name}-at-y1" not in abroad.ports_at("y1")
    expect_aborted(abroad, guest, "y1")
    assert guest.nics() == before and further not in abroad.ports_at("f1")
    assert f"{guest.name}-at-y1" not in abroad.ports_at("y1") and guest.way_out() == ("eth1", at_f1)
    assert answers(echoes) == ["same"] * 4, abroad.logs()

    moved = guest.move("--strategy", "secondary-nic", target="y1")
    assert moved["flip"]["done"] and moved["flip"]["port"] == further, moved["flip"]
    at_y1 = guest.new_address(further)
    assert at_y1.startswith("10.66.4.") and guest.way_out() == ("eth2", at_y1)
    assert answers(echoes) == ["same"] * 4, abroad.logs()
    echoes += [Echo(guest, host, at_y1) for host in ("x1", STRANGER)]
    assert answers(echoes) == ["same"] * 6, abroad.logs()

    planned = abroad.godwit("y1", "migrate", guest.name, "--to", "h1", "--strategy", "secondary-nic", "--dry-run").stdout
    assert f"{guest.port} is at home at host h1" in planned, planned
    assert guest.way_out() == ("eth2", at_y1)
    moved = guest.move("--strategy", "secondary-nic", target="h1")
    assert moved["flip"]["done"] and moved["flip"]["port"] == guest.port, moved["flip"]
    assert guest.way_out() == ("eth0", guest.address), guest.run("ip rule; ip route show table all")
    echoes.append(Echo(guest, STRANGER))
    assert answers(echoes) == ["same"] * 7, abroad.logs()
    # What began at y1 ends with the NIC that it has; nothing else does.
    for what in ("deconfigure", "rm"):
        abroad.godwit("h1", "vm", "nic", what, guest.name, further)
    assert set(guest.nics()) == {guest.port, guest.second} and guest.way_out() == ("eth0", guest.address)
    assert answers(echoes[:4] + echoes[6:]) == ["same"] * 5
    for echo in echoes:
        echo.close()


@pytest.mark.thorough
def test_where_it_has_been_its_nic_is_the_way_again(abroad):
    guest = Traveller(abroad, 48)
    echo = Echo(guest, "x1")
    guest.move("--strategy", "secondary-nic")
    at_f1 = guest.new_address()
    there = Echo(guest, STRANGER, at_f1)
    guest.move("--strategy", "secondary-nic", target="h1")
    assert guest.way_out() == ("eth0", guest.address)
    # Nobody knows it by the place on the way that it had there: what f1 relayed of its own address ends.
    left = lambda: [each for kind in ("relays", "relocations") for each in abroad.get("f1", "/fabric")[kind]  # noqa: E731
                    if guest.uplink in (each.get("guest"), each.get("port"))]
    wait_until(lambda: left() == [], 60, left)
    others = Traveller(abroad, 49)
    others.move("--strategy", "secondary-nic")
    assert others.new_address() != at_f1
    guest.move("--strategy", "secondary-nic")
    assert guest.way_out() == ("eth1", at_f1) and set(guest.nics()) == {guest.port, guest.second}
    assert answers([echo, there, Echo(guest, STRANGER, at_f1)]) == ["same"] * 3, abroad.logs()


class Datagrams(Echo):
    """To the guest's service, which is bound to no address, from a connected socket: only who was asked is heard. It also
    sends some a second by itself (src/lab/guest/protocol.hh): they come 'unasked'."""

    CODE = """if 1:
        import os, socket, struct, sys
        own = int.from_bytes(os.urandom(8), 'big')
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.connect((sys.argv[1], 7007))
        s.settimeout(float(sys.argv[2]))
        def heard(kind, number):
            while True:
                got = struct.unpack('>IBBHQQ', s.recv(200)[:24])
                if got[2] == kind and number in (None, got[5]): return
        def ask(number):
            s.send(struct.pack('>IBBHQQQQQ', 0x47574c54, 1, 1, 10, own, number, 0, 0, 0))
            heard(2, number)
        ask(0)
        print('ready', flush=True)
        for number, line in enumerate(sys.stdin, 1):
            try:
                if line.startswith('hear'):
                    s.setblocking(False)
                    try:
                        while s.recv(200): pass
                    except BlockingIOError: pass
                    s.settimeout(float(sys.argv[2]))
                    heard(3, None)
                    print('unasked', flush=True)
                else:
                    ask(number)
                    print('same', flush=True)
            except OSError as error:
                print(type(error).__name__, flush=True)
    """

    def hear(self):
        return self.ask("hear")


def test_a_server_without_an_address_answers_from_the_one_that_was_asked(abroad):
    guest = Traveller(abroad, 50)
    older = [Datagrams(guest, host) for host in ("x1", STRANGER)]
    with ProbeFrom("x1", guest, rate=300) as known, ProbeFrom(STRANGER, guest, rate=300) as stranger:
        guest.move("--strategy", "secondary-nic")
        new = guest.new_address()
        assert guest.way_out() == ("eth1", new)
        # They have said nothing since it left.
        assert [each.hear() for each in older] == ["unasked"] * 2, abroad.logs()
        assert answers(older) == ["same"] * 2, abroad.logs()
        newer = [Datagrams(guest, host, address) for host in ("x1", STRANGER) for address in (guest.address, new)]
        assert answers(newer) == ["same"] * 4
    for probe in (known, stranger):
        probe.expect_nothing_lost()
    for each in older + newer:
        each.close()


ASKED = "nft list table inet godwit_asked"


@pytest.mark.thorough
def test_and_does_so_from_elsewhere_after_its_agents_restart_on_the_way_and_at_home(abroad):
    guest = Traveller(abroad, 51)
    flows = [Datagrams(guest, host) for host in ("x1", STRANGER)]
    guest.move("--strategy", "secondary-nic")
    at_f1 = guest.new_address()
    flows += [Datagrams(guest, host, at_f1) for host in ("x1", STRANGER)]
    # By wire its uplinks stay, and so does what they do.
    assert guest.move(target="h2")["strategy"] == "wire"
    assert [each.hear() for each in flows] == ["unasked"] * 4, abroad.logs()
    assert answers(flows) == ["same"] * 4
    abroad.kill_agent("f1")
    abroad.lab.exec("f1", "sh", "-c", ASKED.replace("list", "delete"))
    abroad.start_agent("f1")
    wait_until(lambda: abroad.sees_all("f1"), 40, "f1 is back")
    wait_until(lambda: guest.answers("x1", at_f1), 20, abroad.logs)
    assert [each.hear() for each in flows] == ["unasked"] * 4, abroad.logs()
    assert answers(flows) == ["same"] * 4
    guest.move(target="f1")
    assert answers(flows) == ["same"] * 4
    for target in ("y1", "h1"):
        before = guest.host
        guest.move("--strategy", "secondary-nic", target=target)
        assert guest.way_out()[0] == {"y1": "eth2", "h1": "eth0"}[target]
        assert [each.hear() for each in flows] == ["unasked"] * len(flows), (target, abroad.logs())
        assert answers(flows) == ["same"] * len(flows), target
        assert abroad.lab.exec(before, "sh", "-c", ASKED, check=False).returncode != 0
        at = guest.nics()[f"{guest.name}-for-y1"]["network"]["addresses"][0].split("/")[0]
        flows += [Datagrams(guest, host, at) for host in ("x1", STRANGER)]
        assert answers(flows) == ["same"] * len(flows), target
    for each in flows:
        each.close()
    for second in (guest.second, f"{guest.name}-for-y1"):
        for what in ("deconfigure", "rm"):
            abroad.godwit("h1", "vm", "nic", what, guest.name, second)
    gone = lambda: abroad.lab.exec("h1", "sh", "-c", ASKED, check=False).returncode != 0  # noqa: E731
    wait_until(gone, 20, lambda: abroad.lab.exec("h1", "sh", "-c", ASKED).stdout)


class Multipath:
    """A connection of MPTCP to the guest, from a host without any agent of ours, whose kernel takes a second path."""

    CODE = """if 1:
        import socket, sys
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
        s.connect((sys.argv[1], 7009))
        s.settimeout(20)
        print('ready', flush=True)
        for line in sys.stdin.buffer:
            try:
                s.sendall(line)
                got = b''
                while len(got) < len(line): got += s.recv(100)
                print('same' if got == line else 'other', flush=True)
            except OSError as error:
                print(type(error).__name__, flush=True)
    """

    def __init__(self, guest, host):
        self.host, self.lab = host, guest.fleet.lab
        self.lab.exec(host, "ip", "mptcp", "limits", "set", "add_addr_accepted", "4", "subflows", "4")
        self.process = self.lab.python(host, self.CODE, guest.address, stdin=subprocess.PIPE)
        assert self.process.stdout.readline().strip() == "ready"

    def ask(self):
        self.process.stdin.write("are you there?\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def paths(self):
        """Addresses of the guest's that its subflows have."""
        return sorted({line.split()[4].rsplit(":", 1)[0]
                       for line in self.lab.exec(self.host, "ss", "-Htn", "dport", "=", ":7009").stdout.splitlines()})

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)


def test_mptcp_takes_the_new_address_with_a_peer_that_knows_nothing_of_us(abroad):
    guest = Traveller(abroad, 46, words="godwit.iproute2=1")
    connection = Multipath(guest, STRANGER)
    assert connection.ask() == "same" and connection.paths() == [guest.address]
    guest.move("--strategy", "secondary-nic")
    new = guest.new_address()
    wait_until(lambda: connection.paths() == sorted([guest.address, new]), 20, connection.paths)
    told = abroad.json("f1", "vm", "nic", "configure", guest.name, guest.second, "--address", f"{new}/32",
                       "--gateway", "169.254.1.1", "--default", "--drop-old")
    assert told["mptcp"] and guest.address in told["dropped"], told
    wait_until(lambda: connection.paths() == [new], 20, connection.paths)
    abroad.lab.run("cut", "home-world")
    assert connection.ask() == "same"
    connection.close()
    abroad.lab.run("heal", "home-world")
