"""A fleet is upgraded host by host and can go back, while a vm and its wire go on:

    site a: east, client (machines)  ==( 40 ms RTT )==  site b: west (machine)

The vm is at east or west, its client at `client`. The older release is built from its own sources
(debian/previous); the newer one is this build.
"""

import json
import pathlib
import subprocess

import pytest
from conftest import ROOT, wait_until
from machine import Machine, requires_root
from packages import built
from stage import CLIENT_ADDRESS, VM_ADDRESS, Client

pytestmark = pytest.mark.thorough

LAB = """
sites:
  a: { hosts: [east, client] }
  b: { hosts: [west] }
links:
  a-b: { between: [a, b], rate: 400mbit, delay: 20ms, queue: 40ms }
"""
PREVIOUS = ROOT / "build" / "previous" / "package"
GUEST = "/var/lib/guest"


class Fleet:
    """Three machines with the older release, in one fleet, and the vm `web` at east."""

    def __init__(self, lab, directory):
        self.machines = {}
        lab.up(LAB, directory)
        self.lab = lab

    def begin(self):
        for host in ("east", "west", "client"):
            self.machines[host] = Machine(self.lab, host)
            self.install(host, PREVIOUS)
            self[host].run("godwit-guest-image", GUEST)
        for host in ("west", "client"):
            line = json.loads(self["east"].run("godwit", "host", "invite", "--json").stdout)["command"]
            self[host].sh(line)
        self.await_sessions()
        self["east"].sh(
            f"godwit vm run web --memory 128MiB --kernel {GUEST}/vmlinuz --initrd {GUEST}/initrd.img "
            f"--append 'console=ttyS0 quiet nokaslr godwit.ip={VM_ADDRESS}/24 godwit.dirty=2mbit "
            "godwit.working-set=4MiB' --nic web0")
        self["client"].run("godwit", "port", "add", "lan0", "--uplink", "--address",
                           f"{CLIENT_ADDRESS}/24")
        self["client"].run("godwit", "connect", "lan0", "web0")

    def __getitem__(self, host):
        return self.machines[host]

    def start(self, host, *words, **options):  # as stage.Lab's, for its Client
        return subprocess.Popen(self[host].argv(*words), text=True, **options)

    def install(self, host, directory):
        self[host].sh(f"cd {directory} && apt-get install -y --allow-downgrades ./godwitd_*.deb "
                      "./godwit_*.deb ./godwit-lab_*.deb")
        wait_until(lambda: self[host].run("godwit", "vm", "ls", check=False).returncode == 0, 30,
                   f"the agent on {host}")

    def ask(self, host, *words):
        return json.loads(self[host].run("godwit", *words, "--json").stdout)

    def await_sessions(self):
        def all_up():
            return all(other["state"] in ("up", "self") for host in self.machines
                       for other in self.ask(host, "host", "ls"))
        wait_until(all_up, 40, "all sessions")

    def await_wire(self):
        wait_until(lambda: self.ask("client", "wire", "ls")[0]["state"] == "up", 40, "the wire")

    def qemus(self):
        found = {}
        for host in ("east", "west"):
            pids = self[host].run("pgrep", "-x", "qemu-system-x86", check=False).stdout.split()
            found.update({host: pids} if pids else {})
        return found

    def end(self):
        for machine in self.machines.values():
            machine.end()


@pytest.fixture
def fleet(lab, tmp_path):
    requires_root()
    if not list(pathlib.Path(PREVIOUS).glob("*.deb")):
        pytest.fail("there are no packages of the release before: ./dev package --previous")
    fleet = Fleet(lab, tmp_path)
    try:
        fleet.begin()
        yield fleet
    finally:
        fleet.end()


def change_release(fleet, client, host, directory):
    """Whatever the agent's absence costs in frames, no connection and no vm ends by it."""
    before = fleet.qemus()

    def change():
        fleet.install(host, directory)
        fleet.await_sessions()
        fleet.await_wire()
    _, window = client.watch(f"{len(client.windows)}-{host}-changes", change)
    assert fleet.qemus() == before
    assert window["tcp"]["resets"] == 0 and window["tcp"]["mismatches"] == 0, window["tcp"]
    # And it flows on: as much as before, none lost, in a window after it.
    after = client.watch_idle(f"{len(client.windows)}-{host}-changed", 3)
    assert after["to_vm"]["sent"] > 0
    assert (after["to_vm"]["lost"], after["from_vm"]["lost"]) == (0, 0), after


def move(fleet, client, source, target):
    """A move as between equals: nothing lost, nothing twice, nothing reset, one instance."""
    def go():
        return fleet.ask(source, "migrate", "web", "--to", target, "--max-downtime", "3s",
                         "--on-diverge", "pause")
    migration, window = client.watch(f"{len(client.windows)}-{source}-{target}", go)
    assert migration["state"] in ("committed", "draining", "done"), migration
    wait_until(lambda: list(fleet.qemus()) == [target], 10, f"one instance, at {target}")
    for way in ("to_vm", "from_vm"):
        assert (window[way]["lost"], window[way]["duplicated"]) == (0, 0), window[way]
    assert window["tcp"]["resets"] == 0 and window["tcp"]["mismatches"] == 0
    assert window["counter_jumps"] == 0


def spoken(fleet, host):
    sessions = fleet.ask(host, "host", "show")["sessions"]
    return {session["peer"]: (session["protocol"], session["version"]) for session in sessions}


def release_of(fleet, host):
    return fleet.ask(host, "host", "show")["version"]


def test_a_host_is_upgraded_and_goes_back(fleet):
    newer = built()
    older_release = release_of(fleet, "east")
    with Client(fleet, "--rate", "200") as client:
        client.watch_idle("before", 3)
        change_release(fleet, client, "east", newer)
        assert release_of(fleet, "east") != older_release
        assert all(protocol >= 1 for protocol, _ in spoken(fleet, "east").values())
        move(fleet, client, "east", "west")  # newer to older
        move(fleet, client, "west", "east")  # and back
        change_release(fleet, client, "client", newer)  # the wire's other end
        mine = spoken(fleet, "client")["east"]
        assert mine[0] > spoken(fleet, "client")["west"][0] and mine[1] == release_of(fleet, "east")
        move(fleet, client, "east", "west")
        change_release(fleet, client, "west", newer)
        move(fleet, client, "west", "east")
        change_release(fleet, client, "east", PREVIOUS)  # what the newer one stored is read
        assert release_of(fleet, "east") == older_release
        assert {vm["name"] for vm in fleet.ask("east", "vm", "ls")} == {"web"}
        move(fleet, client, "east", "west")  # older to newer
        total = client.stop()
    assert total["tcp"]["resets"] == 0 and total["tcp"]["mismatches"] == 0
