"""The packages, installed on hosts that have nothing of Godwit:

    site a: east (machine, systemd)  ==( 40 ms RTT )==  site b: west (machine, systemd)

README's quick start is read from README and run, line by line.
"""

import concurrent.futures
import json
import re
import time

import pytest
from conftest import ROOT, wait_until
from machine import Machine, requires_root
from packages import built

LAB = """
sites:
  a: { hosts: [east] }
  b: { hosts: [west] }
links:
  a-b: { between: [a, b], rate: 400mbit, delay: 20ms, queue: 40ms }
"""
# "fresh two hosts -> first migration", with everything that is downloaded left out: it is here.
QUICK_START_LIMIT_S = 600


@pytest.fixture
def machines(lab, tmp_path):
    requires_root()
    lab.up(LAB, tmp_path)
    made = {}
    try:
        for host in ("east", "west"):
            made[host] = Machine(lab, host)
        yield made
    finally:
        for machine in made.values():
            machine.end()


def quick_start():
    """[(hosts, command)] of README's quick start; hosts: east, west or both."""
    section = (ROOT / "README.md").read_text().split("## Quick start on two hosts", 1)[1]
    block = section.split("```sh\n", 1)[1].split("```", 1)[0]
    hosts, lines = None, []
    for line in block.splitlines():
        if line.startswith("# on "):
            hosts = re.match(r"# on (both|east|west)", line)[1]
        elif line.strip():
            lines.append((hosts, line))
    return lines


def run_quick_start(machines, packages):
    """Runs it; returns its seconds."""
    begun, invitation = time.monotonic(), None
    for hosts, line in quick_start():
        if "TOKEN@" in line:
            assert invitation, "no line before this one printed an invitation"
            line = invitation
        on = list(machines) if hosts == "both" else [hosts]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            done = list(pool.map(lambda host: machines[host].sh(f"cd {packages} && {line}",
                                                                limit_s=QUICK_START_LIMIT_S), on))
        if "host invite" in line:
            invitation = done[0].stdout.strip()
    return time.monotonic() - begun


def ask(machine, *words):
    return json.loads(machine.run("godwit", *words, "--json").stdout)


def vm_states(machine):
    return {vm["name"]: vm["state"] for vm in ask(machine, "vm", "ls")}


def process(machine, name):
    """What the machine's only process of this name may do, by /proc and ps."""
    pid = machine.run("pgrep", "-x", name).stdout.split()
    assert len(pid) == 1, f"{name}: {pid}"
    status = machine.run("cat", f"/proc/{pid[0]}/status").stdout
    user = machine.run("stat", "-c", "%U", f"/proc/{pid[0]}").stdout.strip()
    bits = int(re.search(r"CapEff:\s*(\w+)", status)[1], 16)
    return {"pid": pid[0], "user": re.search(r"Uid:\s*(\d+)", status)[1], "owner": user,
            "capabilities": bits, "no_new_privileges": "NoNewPrivs:\t1" in status,
            "seccomp": "Seccomp:\t2" in status,
            "scheduling": set(machine.run("ps", "-L", "-o", "cls=", "-p", pid[0]).stdout.split())}


def test_quick_start_of_the_readme(machines):
    seconds = run_quick_start(machines, built())
    print(f"quick start: {seconds:.1f} s")
    assert seconds < QUICK_START_LIMIT_S
    assert vm_states(machines["east"]) == {}
    assert vm_states(machines["west"]) == {"web": "running"}
    users(machines["west"])
    a_disk_moves(machines["west"], machines["east"])


@pytest.mark.thorough
def test_an_installed_host(machines):
    run_quick_start(machines, built())
    east, west = machines["east"], machines["west"]
    the_unit_is_sound(west)
    configuration(west)
    restarts_leave_vms_alone(west)
    doctor_has_no_complaint(west)
    removal_and_purge(east)


def a_disk_moves(source, target):
    """Between agents that are not root, and QEMUs that are users of their own."""
    source.run("godwit", "vm", "run", "db", "--memory", "128MiB", "--kernel", "/var/lib/guest/vmlinuz",
               "--initrd", "/var/lib/guest/initrd.img", "--disk", "data,size=64MiB")
    source.run("godwit", "migrate", "db", "--to", "east", "--max-downtime", "3s")
    assert vm_states(target) == {"db": "running"}
    disk = ask(target, "disk", "ls")[0]
    assert target.run("stat", "-c", "%U:%G %a", disk["path"]).stdout.strip() == "godwit:godwit-qemu 660"
    source.run("godwit", "vm", "purge", "db")


def users(machine):
    """Agent and QEMU run as users of their own, with what they need and no more."""
    agent, qemu = process(machine, "godwitd"), process(machine, "qemu-system-x86")
    ids = {name: machine.run("id", "-u", name).stdout.strip() for name in ("godwit", "godwit-qemu")}
    assert agent["user"] == ids["godwit"] and qemu["user"] == ids["godwit-qemu"]
    # capabilities(7): KILL 5, SETGID 6, SETUID 7, NET_ADMIN 12, SYS_PTRACE 19, SYS_NICE 23
    assert agent["capabilities"] == sum(1 << bit for bit in (5, 6, 7, 12, 19, 23))
    assert qemu["capabilities"] == 0
    # Frames go before other work; what makes them and takes them does not.
    assert "RR" in agent["scheduling"] and qemu["scheduling"] == {"TS"}, (agent, qemu)
    assert agent["no_new_privileges"] and agent["seccomp"]
    assert qemu["no_new_privileges"] and qemu["seccomp"]
    for path, mode in (("/var/lib/godwit", "700"), ("/run/godwit", "711"),
                       ("/run/godwit/godwitd.sock", "600"), ("/var/lib/godwit/host.key", "600")):
        assert machine.run("stat", "-c", "%a", path).stdout.strip() == mode, path


def the_unit_is_sound(machine):
    machine.run("systemd-analyze", "verify", "godwitd.service")
    machine.run("systemd-analyze", "security", "--no-pager", "--threshold=35", "godwitd.service")


def configuration(machine):
    """The file counts, is kept by an upgrade (below), and a misspelt word in it is refused."""
    machine.sh("printf 'site = \"far\"\\n' >> /etc/godwit/godwitd.conf; systemctl restart godwitd")
    assert ask(machine, "host", "show")["site"] == "far"
    refused = machine.sh("echo 'prot = 4747' > /tmp/bad.conf; godwitd --config /tmp/bad.conf",
                         check=False)
    assert refused.returncode == 2 and "prot" in refused.stderr, refused


def restarts_leave_vms_alone(machine):
    """By systemctl, and by an upgrade of the package: QEMU goes on, and its agent knows it."""
    before = process(machine, "qemu-system-x86")["pid"]
    for command in ("systemctl restart godwitd",
                    f"dpkg -i {built()}/godwitd_*.deb && systemctl is-active godwitd",
                    "systemctl kill --kill-whom=main --signal=KILL godwitd"):
        agent = process(machine, "godwitd")["pid"]
        machine.sh(command)
        wait_until(lambda: agent_answers(machine, agent), 20, f"the agent after {command}")
        assert vm_states(machine) == {"web": "running"}
        assert process(machine, "qemu-system-x86")["pid"] == before
    assert ask(machine, "host", "show")["site"] == "far"


def agent_answers(machine, other_than):
    pids = machine.run("pgrep", "-x", "godwitd", check=False).stdout.split()
    return pids and pids != [other_than] and \
        machine.run("godwit", "vm", "ls", check=False).returncode == 0


def doctor_has_no_complaint(machine):
    done = machine.run("godwit", "doctor", "--json", "--reach", "10.66.1.10",
                       check=False)
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, findings
    for name in ("kernel", "tun", "tap-pair", "qemu", "qemu-user", "state-dir", "run-dir",
                 "certificate", "agent", "port", "mtu", "reach 10.66.1.10", "session east"):
        assert findings[name]["level"] == "ok", findings[name]
    assert all(finding["remedy"] for finding in findings.values() if finding["level"] != "ok")


def removal_and_purge(machine):
    machine.sh("apt-get remove -y godwitd")
    assert machine.run("pgrep", "-x", "godwitd", check=False).returncode == 1
    machine.run("test", "-e", "/var/lib/godwit/host.key")
    machine.run("test", "-e", "/etc/godwit/godwitd.conf")
    machine.sh("apt-get purge -y godwitd")
    assert machine.sh("ls -d /var/lib/godwit /etc/godwit", check=False).stdout == ""
