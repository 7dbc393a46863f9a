"""Domains of libvirt's that move. Topology: fleet.py; e1 and w1 have a libvirtd, a storage pool and a bridge br0 each
(demo/domains.py). The bridges are one network by a wire, and another one brings the client into it."""

import json
import random
import subprocess

import pytest
from conftest import COMMAND_LIMIT_S, wait_until
from domains import DISK, DOMAIN, Libvirt
from fleet import BOOT_WORDS, CONSOLE_WORDS, Vm
from test_disks import expect_intact, written

NET = "10.77.0"
NAME = f"libvirt:{DOMAIN}"
SLOW = ("--bandwidth", "8mbit")  # memory takes long enough to be disturbed


@pytest.fixture(scope="module")
def libvirt(shared_fleet):
    fleet = shared_fleet
    hosts = Libvirt(lambda host, *words: fleet.lab.exec(host, *words).stdout,
                    lambda host, *words, **options: subprocess.Popen(fleet.lab.argv("exec", host, "--", *words), **options),
                    ("e1", "w1"))
    yield hosts
    hosts.stop()


class Domain(Vm):
    def __init__(self, fleet, libvirt):
        super().__init__(fleet, NAME, NET, None)
        self.libvirt = libvirt

    def on_console(self):
        told = ""
        for host, state in where(self.libvirt).items():
            told += f"---- {host}: {state}\n{self.libvirt.at_console(host, CONSOLE_WORDS)}"
            told += "".join(self.libvirt.monitor(host, f"info {what}") for what in ("registers", "block", "network"))
        return told + "".join(self.fleet.lab.exec(host, "bridge", "-s", "fdb", "show", "br", "br0").stdout
                              for host in ("e1", "w1"))


@pytest.fixture
def domain(fleet, libvirt):
    """Runs at e1, writes to its disk, and answers the client."""
    for host, port in (("e1", "lan-e1"), ("w1", "lan-w1"), ("e1", "lan-out")):
        fleet.godwit(host, "port", "add", port, "--bridge", "br0")
    fleet.godwit("client", "port", "add", "lan-client", "--uplink", "--address", f"{NET}.1/24")
    fleet.godwit("e1", "connect", "lan-e1", "lan-w1")
    fleet.godwit("e1", "connect", "lan-out", "lan-client")
    words = f"{BOOT_WORDS} nokaslr godwit.ip={NET}.2/24 godwit.dirty=2mbit godwit.working-set=4MiB"
    libvirt.start_domain("e1", (fleet.guest / "vmlinuz", fleet.guest / "initrd.img"),
                         f"{words} godwit.disk=vda godwit.disk-rate=2mbit", memory_mib=128, disk_size="128M")
    vm = Domain(fleet, libvirt)
    vm.wait_until_it_answers()
    wait_until(lambda: written(vm) > 200, 60, "writes of the guest")
    yield vm
    for host in ("e1", "w1"):
        for verb in ("destroy", "undefine"):
            fleet.lab.exec(host, "virsh", "-q", verb, DOMAIN, check=False)
        fleet.lab.exec(host, "rm", "-f", DISK)


def where(libvirt):
    return {host: state for host in ("e1", "w1") if (state := libvirt.state(host))}


def begin(fleet, *options, source="e1", target="w1"):
    return fleet.json(source, "migrate", NAME, "--to", target, "--detach", *options)["id"]


def expect_at_e1_only(fleet, libvirt, vm):
    """As if nothing had been; and it can move still."""
    wait_until(lambda: where(libvirt) == {"e1": "running"}, 30, lambda: f"it runs at e1 only, not {where(libvirt)}")
    vm.wait_until_it_answers()
    expect_intact(vm)
    wait_until(lambda: fleet.lab.exec("w1", "ls", DISK, check=False).returncode != 0, 30, "no disk is left at w1")
    for host in ("e1", "w1"):
        wait_until(lambda host=host: "libvirt-" not in fleet.lab.exec(host, "ls", "/run/godwit").stdout, 20,
                   f"no sockets are left at {host}")
    fleet.godwit("e1", "migrate", NAME, "--to", "w1")
    assert where(libvirt) == {"w1": "running"}
    expect_intact(vm)


def test_there_and_back(fleet, libvirt, domain):
    doctor = json.loads(fleet.godwit("e1", "doctor", "--json", expect=None).stdout)
    assert {"name": "libvirt", "level": "ok"}.items() <= next(f for f in doctor if f["name"] == "libvirt").items(), doctor
    tried = fleet.json("e1", "migrate", NAME, "--to", "west", "--dry-run")
    assert tried["ok"] and tried["to"] == "w1" and tried["estimate"]["disk_bytes"] > 0, tried
    assert any(check["name"] == "warning" and "TCG" in check["detail"] for check in tried["checks"]), tried
    counted = domain.counted()
    fleet.godwit("e1", "migrate", NAME, "--to", "west")
    assert where(libvirt) == {"w1": "running"}
    expect_intact(domain)
    moved = fleet.json("e1", "migration", "ls")[-1]
    assert moved["vm"] == NAME and moved["state"] == "done" and moved["to"] == "w1", moved
    report = moved["report"]
    assert 0 < report["pause_ms"] < report["total_ms"], report
    assert report["bytes"]["wan"] < report["bytes"]["memory_stream"] * 0.8, "encoded, with the disk"
    assert {use["name"]: use for use in report["encodings"]}["zero"]["pages"] > 1000, report
    assert "persistent:     yes" in libvirt.virsh("w1", "dominfo", DOMAIN).lower()
    fleet.lab.exec("e1", "test", "-f", DISK)  # as it was, until somebody removes it
    assert domain.counted() > counted, "the same run of it"
    back = fleet.json("w1", "migrate", NAME, "--to", "e1", "--delete-source")
    assert back["state"] == "done", back
    assert where(libvirt) == {"e1": "running"}
    expect_intact(domain)
    wait_until(lambda: fleet.lab.exec("w1", "ls", DISK, check=False).returncode != 0, 10, "its disk at w1 goes")


def test_refused_and_nothing_changes(fleet, libvirt, domain):
    def refusal(*words, status=3):
        done = fleet.godwit("e1", "migrate", *words, expect=status)
        return done.stdout + done.stderr

    assert "no running libvirt domain 'nobody'" in refusal("libvirt:nobody", "--to", "w1")
    assert "one at a time" in refusal(NAME, "libvirt:other", "--to", "w1")
    assert "'hold'" in refusal(NAME, "--to", "w1", "--hold")
    assert "throttle" in refusal(NAME, "--to", "w1", "--on-diverge", "postcopy")
    assert "cannot reach libvirt" in refusal(NAME, "--to", "client")
    fleet.lab.exec("w1", "cp", "/etc/hostname", DISK)
    assert "is there already" in refusal(NAME, "--to", "w1")
    fleet.lab.exec("w1", "cmp", "/etc/hostname", DISK)
    fleet.lab.exec("w1", "rm", DISK)
    libvirt.virsh("w1", "pool-destroy", "default")
    assert "no active storage pool" in refusal(NAME, "--to", "w1", "--dry-run")
    libvirt.virsh("w1", "pool-start", "default")
    fleet.lab.exec("w1", "ip", "link", "set", "br0", "name", "br1")
    assert "no bridge br0" in refusal(NAME, "--to", "w1")
    fleet.lab.exec("w1", "ip", "link", "set", "br1", "name", "br0")
    libvirt.virsh("e1", "suspend", DOMAIN)
    assert "is paused" in refusal(NAME, "--to", "w1")
    libvirt.virsh("e1", "resume", DOMAIN)
    assert where(libvirt) == {"e1": "running"} and libvirt.state("w1") is None
    expect_intact(domain)


def copying(fleet, move):
    wait_until(lambda: (fleet.migration("e1", move) or {}).get("progress", {}).get("sent_bytes", 0) > 1 << 20, 60,
               "bytes are on their way")


@pytest.mark.parametrize("host, point", [
    ("e1", "libvirt.released.commit.before"),
    pytest.param("w1", "libvirt.preparing.run.before", marks=pytest.mark.thorough),
    pytest.param("w1", "libvirt.preparing.run.after", marks=pytest.mark.thorough)])
@pytest.mark.drawn
def test_an_agent_is_killed_as_the_domain_changes_hands(fleet, libvirt, domain, host, point):
    """libvirt has handed it over, and nobody has said yet that it may run: it stands until somebody does."""
    fleet.restart_agent(host, point)
    move = begin(fleet)
    wait_until(lambda: fleet.agent_stopped(host), 60, f"{host} comes to {point}")
    assert where(libvirt) == {"w1": "running" if point.endswith("after") else "paused"}
    fleet.restart_agent(host)
    fleet.wait_for_state("e1", move, "done")
    assert where(libvirt) == {"w1": "running"}
    domain.wait_until_it_answers()
    expect_intact(domain)
    for each in ("e1", "w1"):
        wait_until(lambda each=each: "libvirt-" not in fleet.lab.exec(each, "ls", "/run/godwit").stdout, 20,
                   f"no sockets are left at {each}")


@pytest.mark.thorough
def test_the_domain_ends_by_itself_meanwhile(fleet, libvirt, domain):
    move = begin(fleet, *SLOW)
    copying(fleet, move)
    libvirt.virsh("e1", "destroy", DOMAIN)
    assert "has ended" in fleet.wait_for_state("e1", move, "aborted")["reason"]
    wait_until(lambda: where(libvirt) == {"e1": "shut off"}, 20, lambda: f"it is off at e1 only, not {where(libvirt)}")
    wait_until(lambda: fleet.lab.exec("w1", "ls", DISK, check=False).returncode != 0, 30, "no disk is left at w1")


@pytest.mark.thorough
def test_a_host_that_lets_nobody_near_its_libvirt(fleet, libvirt, domain):
    fleet.restart_agent("w1", options=("--libvirt", "none"))
    try:
        done = fleet.godwit("e1", "migrate", NAME, "--to", "w1", expect=3)
        assert "--libvirt none" in done.stdout + done.stderr
    finally:
        fleet.restart_agent("w1")
    assert where(libvirt) == {"e1": "running"}


@pytest.mark.thorough
def test_aborted_meanwhile(fleet, libvirt, domain):
    move = begin(fleet, *SLOW)
    copying(fleet, move)
    fleet.godwit("e1", "migration", "abort", move)
    assert fleet.wait_for_state("e1", move, "aborted")["reason"] == "aborted on request"
    expect_at_e1_only(fleet, libvirt, domain)
    assert "nothing is in flight" in fleet.log("e1"), "as QEMU needs it when copies of disks are forced to end"


@pytest.mark.thorough
@pytest.mark.parametrize("victim", ["e1", "w1"])
def test_an_agent_is_killed_meanwhile(fleet, libvirt, domain, victim):
    move = begin(fleet, *SLOW)
    copying(fleet, move)
    fleet.restart_agent(victim)
    fleet.wait_for_state("e1", move, "aborted")
    expect_at_e1_only(fleet, libvirt, domain)


@pytest.mark.thorough
def test_the_link_is_cut_for_longer_than_a_write_may_wait(fleet, libvirt, domain):
    move = begin(fleet, *SLOW)
    copying(fleet, move)
    fleet.lab.run("cut", "east-west")
    try:
        assert "no write of the disks" in fleet.wait_for_state("e1", move, "aborted")["reason"]
        assert where(libvirt)["e1"] == "running"
    finally:
        fleet.lab.run("heal", "east-west")
    wait_until(lambda: fleet.sees_all("e1"), 60, "all sessions")
    expect_at_e1_only(fleet, libvirt, domain)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(4))
def test_an_agent_is_killed_at_any_time(fleet, libvirt, domain, seed):
    """Whatever happens, the domain ends up running at one host, with its disk."""
    chance = random.Random(seed)
    victim = chance.choice(("e1", "w1"))
    move = begin(fleet)
    killer = subprocess.Popen(["sleep", f"{chance.uniform(1, 12):.2f}"])
    killer.wait(COMMAND_LIMIT_S)
    fleet.restart_agent(victim)
    state = fleet.wait_for_state("e1", move, "aborted", "done")["state"]
    expected = {"e1": "running"} if state == "aborted" else {"w1": "running"}
    wait_until(lambda: where(libvirt) == expected, 30,
               lambda: f"seed {seed}: {victim} killed, move {state}: {json.dumps(where(libvirt))}")
    domain.wait_until_it_answers()
    expect_intact(domain)
