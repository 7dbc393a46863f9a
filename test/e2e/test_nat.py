"""Strategy nat: guests keep their addresses in a routed data centre whose routers run agents
(examples/data-centre), while correspondents in their rack, in another pod and outside talk to them."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time

import pytest
from conftest import ROOT, Lab, wait_until
from fleet import HOOKS, Fleet, Probe, Vm

DATA_CENTRE = ROOT / "examples" / "data-centre"
HOSTS = [f"{rack}{n}" for rack in "abcd" for n in (1, 2)]


class Guest(Vm):
    """At home in rack a; `number` is the last of its addresses."""

    def __init__(self, fleet, number, host="a1"):
        super().__init__(fleet, f"vm{number}", "10.66.1", nic=True)
        self.address, self.address6 = f"10.66.1.{number}", f"fd67:6f64:7769:1::{number:x}"
        self.host = host
        fleet.godwit(host, "port", "add", self.uplink, "--uplink", "--guest", self.address, "--guest", self.address6)
        fleet.godwit(host, "vm", "run", self.name, "--memory", "96MiB", "--nic", self.port,
                     "--kernel", fleet.guest / "vmlinuz", "--initrd", fleet.guest / "initrd.img",
                     "--append", f"console=ttyS0 quiet godwit.ip={self.address}/24 godwit.gw=10.66.1.1 "
                     f"godwit.ip6={self.address6}/128 godwit.gw6=fe80::1 "
                     "godwit.dirty=2mbit godwit.working-set=4MiB")
        fleet.godwit(host, "connect", self.port, self.uplink)
        for address in (self.address, self.address6):
            wait_until(lambda a=address: self.answers("a2", a), 60, lambda: f"{self.name}: {fleet.logs()}")

    def answers(self, correspondent, address=None):
        return self.fleet.lab.exec(correspondent, "ping", "-c", "1", "-W", "1", address or self.address,
                                   check=False).returncode == 0

    def expect_answers(self):
        for correspondent in ("a2", "b1", "c1", "x1"):
            for address in (self.address, self.address6):
                assert self.answers(correspondent, address), f"{correspondent} {address}"

    def move(self, target, *options, expect=0):
        done = self.fleet.godwit(self.host, "migrate", self.name, "--to", target, "--json",
                                 *Fleet.PATIENT, *options, expect=expect)
        if expect == 0:
            self.host = target
        return json.loads(done.stdout) if done.stdout else done.stderr


class DataCentre(Fleet):
    def __init__(self, lab, directory):
        super().__init__(lab, (DATA_CENTRE / "lab.yaml").read_text(), directory)
        self.godwit("x1", "fabric", "set", DATA_CENTRE / "fabric.yaml")
        for host in self.sites:
            wait_until(lambda h=host: (self.get(h, "/fabric") or {}).get("file"), 10, f"{host} knows the fabric")

    def frames_nobody_read(self):
        return 0

    def where_frames_were_lost(self):
        return self.logs()

    def rules(self, host="x1"):
        return self.json(host, "rule", "ls", "--all")["rules"]

    def devices_of(self, guest):
        return {rule["host"] for rule in self.rules() if rule["name"] == guest.uplink}

    def relocations(self, host):
        return (self.get(host, "/fabric") or {"relocations": [None]})["relocations"]

    def wait_until_settled(self, host):
        wait_until(lambda: self.relocations(host) == [], 60, lambda: f"{self.relocations(host)}\n{self.logs()}")
        verdict = self.godwit("x1", "rule", "verify", expect=None)
        assert verdict.returncode == 0, verdict.stdout

    def expect_clean(self):
        assert self.rules() == []
        for host in self.sites:  # a host's own guests are proxied at home
            proxies = "ip neigh show proxy; ip -6 neigh show proxy; " if host.startswith("router-") else ""
            left = self.lab.exec(host, "sh", "-c", "nft list tables | grep godwit_translate; " + proxies +
                                 "ip route show proto 71; ip -6 route show proto 71").stdout
            assert left == "", f"{host}: {left}"

    @contextlib.contextmanager
    def hook_before_pause(self, host):
        """A move from there waits in its hook; what is yielded waits for it, and lets it go on."""
        script = f"#!/bin/sh\ntouch {HOOKS}/waits\nwhile [ -e {HOOKS}/waits ]; do sleep 0.02; done\n"
        path = f"{HOOKS}/pre-pause.d/wait"
        self.lab.exec(host, "sh", "-ec", f"mkdir -p {HOOKS}/pre-pause.d; cat > {path} <<'END'\n{script}END\n"
                      f"chmod 755 {path}")

        def waits():
            return self.lab.exec(host, "test", "-e", f"{HOOKS}/waits", check=False).returncode == 0
        try:
            yield (lambda: wait_until(waits, 30, "the hook before the pause"),
                   lambda: self.lab.exec(host, "rm", "-f", f"{HOOKS}/waits"))
        finally:
            self.lab.exec(host, "rm", "-f", path, f"{HOOKS}/waits")


class Pings:
    """Each 20 ms from everywhere; none may be lost."""

    def __init__(self, guest, *correspondents):
        self.guest, self.correspondents = guest, correspondents

    def __enter__(self):
        argv = self.guest.fleet.lab.argv
        self.running = {(c, a): subprocess.Popen(argv("exec", c, "--", "ping", "-n", "-i", "0.02", "-W", "5", a),
                                                 text=True, stdout=subprocess.PIPE)
                        for c in self.correspondents for a in (self.guest.address, self.guest.address6)}
        time.sleep(0.5)
        return self

    def __exit__(self, kind, *_):
        lab = self.guest.fleet.lab
        time.sleep(0.5)
        for correspondent in self.correspondents:
            lab.exec(correspondent, "pkill", "-INT", "-x", "ping", check=False)
        self.told = {each: process.communicate(timeout=20)[0] for each, process in self.running.items()}
        if kind is None:
            for each, text in self.told.items():
                answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", text)}
                assert len(answered) > 50, (each, text[-1000:])
                lost = set(range(1, max(answered) + 1)) - answered  # the last is under way as it ends
                assert not lost, (each, lost, self.guest.fleet.logs())


@pytest.fixture(scope="module")
def shared(lab_program, tmp_path_factory):
    lab = Lab(lab_program)
    try:
        yield DataCentre(lab, tmp_path_factory.mktemp("dc"))
    finally:
        lab.down()


@pytest.fixture
def centre(shared):
    yield shared
    for host in shared.sites:
        if shared.agent(host) is None:
            shared.start_agent(host)
    wait_until(lambda: all(shared.sees_all(host) for host in shared.sites), 60, "all sessions")
    shared.tidy()
    shared.godwit("x1", "rule", "prune")
    for guest in {rule["guest"] for rule in shared.rules()}:
        shared.godwit("x1", "rule", "prune", "--guest", guest)


def test_a_guest_goes_about_and_comes_home(centre):
    guest = Guest(centre, 20)
    planned = centre.godwit("a1", "migrate", guest.name, "--to", "c2", "--dry-run").stdout
    assert "staged: before the guest stands" in planned and "rules at 9 of 18 devices are left" in planned
    centre.expect_clean()
    for target, rules in (("c2", True), ("d1", True), ("b1", True), ("a2", False), ("a1", False)):
        with Pings(guest, "a2" if target != "a2" else "a1", "b2", "d2", "x1"):
            moved = guest.move(target, "--strategy", "nat")
            assert moved["strategy"] == "nat"
            told = moved["network"][0]
            assert told["staged_ms"] > 0 and told["flipped_ms"] >= told["uplink_ms"] >= told["forwarded_ms"] > 0
            assert (told["rules"] > 0) == rules
            centre.wait_until_settled(target)
        assert guest.uplink in centre.ports_at(target)
        assert (centre.rules() != []) == rules
    centre.expect_clean()


def test_connections_and_every_packet_survive(centre):
    guest = Guest(centre, 21)
    for correspondent in ("a2", "x1"):
        with ProbeFrom(correspondent, guest) as probe:
            guest.move("c1" if guest.host != "c1" else "d2", "--strategy", "nat")
            centre.wait_until_settled(guest.host)
        probe.expect_nothing_lost()


class ProbeFrom(Probe):
    def __init__(self, correspondent, guest):
        self.vm, self.figures, self.nobody_read = guest, None, 0
        self.process = guest.fleet.popen(correspondent, guest.fleet.bin / "godwit", "lab", "probe", guest.address,
                                         "--connections", 2, "--settle", "1s", stdin=subprocess.PIPE)


def test_two_displaced_guests_talk_to_each_other(centre):
    one, other = Guest(centre, 22), Guest(centre, 23)
    one.move("c1", "--strategy", "nat")
    other.move("d1", "--strategy", "nat")
    with ProbeFrom("a2", one) as probe, Pings(other, "a2", "c1", "x1"):
        one.move("b1", "--strategy", "nat")
        centre.wait_until_settled("b1")
    probe.expect_nothing_lost()
    assert {"b1", "d1"} <= centre.devices_of(one) | centre.devices_of(other)
    for guest in (one, other):
        guest.expect_answers()
