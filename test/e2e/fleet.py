"""A lab with agents and what the tests of moves do with it: vms, agents that die and come back, the
client's probe, and an observer outside the agents.

    east: e1 [10.66.1.10], client [10.66.1.11]  ==( 40 ms RTT, 400 Mbit/s )==  west: w1 [10.66.2.10]

A vm is reached from `client` over a wire from its uplink to the vm's NIC.
"""

import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from conftest import COMMAND_LIMIT_S, build_directory, is_alive, wait_until
from debian import boot_words

HOSTS = ("e1", "w1")
ADDRESSES = {"e1": "10.66.1.10", "client": "10.66.1.11", "w1": "10.66.2.10"}
SOCKET = "/run/godwit/godwitd.sock"
LOG = "/var/log/godwitd.log"
# Of all agents, in all tests: GODWIT_WIRE_STORM=20 ./dev e2e
STORM = os.environ.get("GODWIT_WIRE_STORM")
HOOKS = "/var/lib/godwit/hooks"  # of each host its own
BOOT_LIMIT_S = 60
BOOT_WORDS = "console=ttyS0 quiet"  # of a guest's kernel
# At the console of a guest that is silent.
CONSOLE_WORDS = "dmesg | tail -n 25; cat /proc/net/dev /proc/interrupts; ip neigh; ps | grep -v '\\['; head -n 3 /proc/meminfo"
MOVE_LIMIT_S = 90
DISK_SIZE = "4m"  # of a small disk: the store of a test and its log


def pids_of(comm):
    """All processes with this name that have not ended."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            name = pathlib.Path(f"/proc/{entry}/comm").read_text().strip()
        except OSError:
            continue
        if name == comm and is_alive(int(entry)):
            found.append(int(entry))
    return found


def pid_namespace(pid):
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


# A command in the guest, by its agent's channel, without ours.
IN_GUEST = """if 1:
    import base64, json, socket, sys, time
    s = socket.socket(socket.AF_UNIX)
    s.connect(f'/run/godwit/vms/{sys.argv[1]}/guest-agent.sock')
    lines = s.makefile('rb')
    def ask(command, **arguments):
        s.sendall(json.dumps({'execute': command, 'arguments': arguments}).encode() + b'\\n')
        return json.loads(lines.readline())['return']
    s.sendall(b'\\xff' + json.dumps({'execute': 'guest-sync-delimited', 'arguments': {'id': 7}}).encode() + b'\\n')
    while b'7' not in lines.readline(): pass
    pid = ask('guest-exec', path='/bin/sh', arg=['-c', sys.argv[2]], **{'capture-output': True})['pid']
    while not (done := ask('guest-exec-status', pid=pid))['exited']: time.sleep(0.05)
    print(base64.b64decode(done.get('out-data', '')).decode() + base64.b64decode(done.get('err-data', '')).decode())
"""


# In a lab's host: asks guests, a line `ADDRESS LIMIT VERB` each; prints the answer, or an empty line.
ASKER = """
import socket, sys
for line in sys.stdin:
    address, limit_s, verb = line.split(maxsplit=2)
    answer = ""
    try:
        with socket.create_connection((address, 7008), 2) as s:
            s.settimeout(float(limit_s))
            s.sendall(verb.encode())
            answer = s.makefile().readline()
    except OSError:
        pass
    print(answer.strip(), flush=True)
"""


class Fleet:
    """Hosts e1, client and w1 with an agent each; or those of another lab, with the same names."""

    def __init__(self, lab, yaml=None, directory=None):
        self.lab = lab
        self.bin = build_directory() / "bin"
        self.godwitd = self.bin / "godwitd"
        self.guest = build_directory() / "guest"
        self.agents = {}  # their pids, as long as they live
        self.asker, self.asking = None, threading.Lock()
        lab.up(yaml, directory, agents=True)
        nodes = lab.ls()["nodes"]
        self.namespaces = {node["name"]: pid_namespace(node["pid"]) for node in nodes}
        self.sites = {node["name"]: node["site"] for node in nodes
                      if node["agent"] or not node["router"]}
        wait_until(lambda: all(self.sees_all(host) for host in self.sites), 30, "all sessions")
        self.clean = {host: self.left_at(host) for host in self.sites}
        self.vms = 0
        self.small_disks = set()
        self.standing = None  # the vm that the next crash case may use

    # ---- the command line ----

    def godwit(self, host, *arguments, expect=0, limit_s=MOVE_LIMIT_S):
        done = self.lab.exec(host, self.bin / "godwit", *arguments, check=False, limit_s=limit_s)
        if expect is not None and done.returncode != expect:
            pytest.fail(f"godwit {' '.join(map(str, arguments))} on {host}: exit {done.returncode}, "
                        f"not {expect}\n{done.stdout}{done.stderr}\n{self.logs()}")
        return done

    def json(self, host, *arguments, **options):
        return json.loads(self.godwit(host, *arguments, "--json", **options).stdout)

    def popen(self, host, *arguments, **options):
        return subprocess.Popen(self.lab.argv("exec", host, "--", *map(str, arguments)), text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def get(self, host, path):
        return self.ask(host, "GET", path)

    def ask_guest(self, address, verb, limit_s):
        """By one process in the client for all questions: asking takes no CPU from the guest."""
        with self.asking:
            if self.asker is None or self.asker.poll() is not None:
                self.asker = self.lab.python("client", ASKER, stdin=subprocess.PIPE)
            self.asker.stdin.write(f"{address} {limit_s} {verb}\n")
            self.asker.stdin.flush()
            return json.loads(self.asker.stdout.readline().strip() or "null")

    def ask(self, host, method, path, body=None):
        """What the agent answers on its socket; None when it does not, or refuses.

        For what is asked again and again, and must not take the CPU from that for which the test
        waits, as commands do; and for what must be said in time.
        """
        pid = self.agent(host)
        if pid is None:
            return None
        connection = http.client.HTTPConnection(host)
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(COMMAND_LIMIT_S)
            connection.sock.connect(f"/proc/{pid}/root{SOCKET}")
            connection.request(method, f"/v1{path}", body and json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
            return json.loads(text) if answer.status < 300 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def sees_all(self, host):
        hosts = self.get(host, "/hosts") or []
        return len(hosts) == len(self.sites) and all(h["state"] in ("up", "self") for h in hosts)

    def log(self, host):
        return self.lab.exec(host, "cat", LOG, check=False).stdout

    def logs(self):
        return "".join(f"---- {host} ----\n{self.log(host)[-6000:]}\n" for host in self.sites)

    # ---- processes ----

    def processes(self, host, comm):
        return [p for p in pids_of(comm) if pid_namespace(p) == self.namespaces[host]]

    def qemus(self, host):
        return self.processes(host, "qemu-system-x86")

    def agent(self, host):
        known = self.agents.get(host)
        if known is None or not is_alive(known):
            pids = self.processes(host, "godwitd")
            self.agents[host] = pids[0] if pids else None
        return self.agents[host]

    def kill_agent(self, host, by=signal.SIGKILL):
        pid = self.agent(host)
        os.kill(pid, by)
        wait_until(lambda: not is_alive(pid), 20, f"the end of the agent on {host}")

    def start_agent(self, host, fault=None, limits=(), options=(), patient=True, storm=STORM):
        """Unless `patient`, not waited for: it may freeze before it answers.

        storm: so often, in ms, ports change among three wire threads. None: there is one.
        """
        environment = ["env"]
        if fault is not None:
            environment.append(f"GODWIT_FAULT={fault}")
        if storm is not None:
            environment.append(f"GODWIT_WIRE_STORM={storm}")
            options = ("--wire-threads", "3", *options)
        self.lab.run("exec", "--detach", "--log", LOG, host, "--", *environment, *limits,
                     self.godwitd,
                     "--name", host, "--site", self.sites[host], "--hooks", HOOKS,
                     *(word for address in self.lab.node(host)["announced"]
                       for word in ("--address", address)), *options)
        if not patient:
            wait_until(lambda: self.agent(host), 20, f"the agent's process on {host}")
            return
        wait_until(lambda: self.get(host, "/hosts") is not None, 20, f"the agent on {host}")

    def restart_agent(self, host, fault=None, options=(), storm=STORM):
        if self.agent(host) is not None:
            self.kill_agent(host)
        self.start_agent(host, fault, options=options, storm=storm)
        wait_until(lambda: self.sees_all(host) and self.sees_all("client"), 40,
                   f"the sessions of {host}")

    def agent_stopped(self, host):
        """Whether a fault has frozen the agent (state T)."""
        pid = self.agent(host)
        if pid is None:
            return False
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        return stat.rsplit(")", 1)[1].split()[0] == "T"

    # ---- disks ----

    def small_disk(self, host):
        """From now on the agent's state is on a disk of its own, small enough to be filled."""
        if host in self.small_disks:
            return
        self.kill_agent(host)
        self.lab.exec(host, "sh", "-ec", "cp -a /var/lib/godwit /run/kept; "
                      f"mount -t tmpfs -o mode=700,size={DISK_SIZE} tmpfs /var/lib/godwit; "
                      "cp -a /run/kept/. /var/lib/godwit/; rm -r /run/kept")
        self.small_disks.add(host)
        self.restart_agent(host)

    def fill_disk(self, host):
        self.lab.exec(host, "dd", "if=/dev/zero", "of=/var/lib/godwit/filler", "bs=4k", check=False)

    def free_disk(self, host):
        self.lab.exec(host, "rm", "-f", "/var/lib/godwit/filler")

    # ---- vms ----

    def run_vm(self, host="e1", memory="128MiB", dirty="5mbit", working_set="8MiB", nic=True,
               guest_agent=False, disks=(), disk="vda", disk_rate="0bit", cached="", options=()):
        """A vm that answers at its address; wired to the client unless nic is False."""
        vm = self.new_vm(nic)
        options = [*options, *(["--nic", vm.port] if nic else [])]
        options += ["--guest-agent"] if guest_agent else []
        options += [word for each in disks for word in ("--disk", each)]
        initrd = "initrd-agent.img" if guest_agent else "initrd.img"
        self.godwit(host, "vm", "run", vm.name, "--memory", memory,
                    "--kernel", self.guest / "vmlinuz", "--initrd", self.guest / initrd,
                    "--append", f"{BOOT_WORDS} godwit.ip={vm.address}/24 "
                    f"godwit.dirty={dirty} godwit.working-set={working_set} "
                    f"godwit.disk={disk} godwit.disk-rate={disk_rate} godwit.cached={cached}", *options)
        if nic:
            self.wire_to_client(vm, host)
        wait_until(lambda: self.vms_of(host)[vm.name]["state"] == "running", 20, f"{vm.name} runs")
        return vm

    def run_debian(self, host, files, *options):
        """The same with what tools/make-debian-image has made in `files`, its disk an image `debian` there."""
        vm = self.new_vm()
        self.godwit(host, "vm", "run", vm.name, "--memory", "384MiB", "--disk", "root,image=debian",
                    *boot_words(files, vm.address, f"{vm.net}.1"), "--nic", vm.port, *options)
        self.wire_to_client(vm, host)
        return vm

    def new_vm(self, nic=True):
        self.vms += 1
        return Vm(self, f"vm{self.vms}", f"10.9.{self.vms}", nic)

    def wire_to_client(self, vm, host):
        self.godwit("client", "port", "add", vm.uplink, "--uplink", "--address", f"{vm.net}.1/24")
        self.godwit("client", "connect", vm.uplink, vm.port)
        ids = {port["name"]: port["id"] for port in self.json(host, "port", "ls")}
        vm.tap = "gw" + ids[vm.port][:12]  # os::TapPair::name_of
        vm.wait_until_it_answers()

    def begin_vm(self, host, name):
        """Begins to start a vm in the background: the process of the command."""
        return self.popen(host, self.bin / "godwit", "vm", "run", name, "--memory", "96MiB",
                          "--kernel", self.guest / "vmlinuz", "--initrd", self.guest / "initrd.img",
                          "--append", BOOT_WORDS)

    def vms_of(self, host):
        vms = self.get(host, "/vms")
        if vms is None:
            pytest.fail(f"the agent on {host} does not tell its vms\n{self.logs()}")
        return {vm["name"]: vm for vm in vms}

    def where(self, name):
        """The hosts on which the vm runs by its agents' word."""
        return [h for h in HOSTS if self.agent(h) and self.vms_of(h).get(name, {}).get("state") ==
                "running"]

    def frames_nobody_read(self):
        """What the hosts' kernels had no room for, because an agent or a QEMU came too late: by its
        wires, and by its log of vms that have left. A host that is too busy loses these; a move, none."""
        count = 0
        for host in (*HOSTS, "client"):
            for wire in self.get(host, "/wires") or []:
                count += sum(wire.get("drops", {}).get(cause, 0) for cause in ("agent_late", "vm_late"))
            for pair in re.findall(r"(\d+) frames of its vm were lost, and (\d+) to it", self.log(host)):
                count += sum(map(int, pair))
        return count

    def where_frames_were_lost(self):
        """What every host counts of frames that it dropped, for who asks where some went."""
        told = [self.lab.run("ls").stdout]
        for host in (*HOSTS, "client"):
            told += [self.godwit(host, what, "ls", "--json", expect=None).stdout
                     for what in ("wire", "port", "migration")]
            told += [self.lab.exec(host, *command, check=False).stdout
                     for command in (("nstat", "-asz", "UdpRcvbufErrors"), ("ip", "-s", "link"))]
        return "\n".join(told)

    def in_guest(self, host, vm, command, check=True):
        """What a shell in a vm with qemu-guest-agent says."""
        return self.lab.exec(host, "python3", "-c", IN_GUEST, vm.name, command, check=check).stdout

    # ---- migrations ----

    def migration(self, host, identifier):
        return self.get(host, f"/migrations/{identifier}")

    def last_migration(self, host, vm):
        all_of_vm = [m for m in self.json(host, "migration", "ls") if m["vm"] == vm.name]
        return all_of_vm[-1] if all_of_vm else None

    # What is asked of these moves is to be right, also on a machine that is busy otherwise.
    PATIENT = ("--max-downtime", "3s", "--on-diverge", "pause")

    def move(self, vm, source, target, *options):
        """Moves and waits; returns the migration as it is then."""
        return self.json(source, "migrate", vm.name, "--to", target, *self.PATIENT, *options)

    def begin_move(self, vm, source, target, *options):
        """Begins a move in the background; returns its id."""
        return self.json(source, "migrate", vm.name, "--to", target, "--detach", *options)["id"]

    def wait_for_state(self, host, identifier, *states, limit_s=MOVE_LIMIT_S):
        def reached():
            migration = self.get(host, f"/migrations/{identifier}")
            return migration if migration and migration["state"] in states else None
        try:
            return wait_until(reached, limit_s, f"migration in {states}")
        except pytest.fail.Exception:
            pytest.fail(f"migration {identifier} on {host} does not come to {states}: "
                        f"{self.migration(host, identifier)}\n{self.logs()}")

    # ---- what is left behind ----

    def left_at(self, host):
        """Everything of vms and moves that lies about in a host, as text."""
        script = ("ip -o link | cut -d: -f2 | sort; nft list tables 2>/dev/null; "
                  "ls -A /run/godwit/vms /run/godwit/replicas; find /tmp /run/godwit -name '*.sock' | sort")
        return (self.lab.exec(host, "sh", "-c", script).stdout +
                "".join(f"qemu {pid} of {name}\n" for pid, name in self.guests(host)))

    def guests(self, host):
        """(pid, vm's name) of the host's QEMUs."""
        for pid in self.qemus(host):
            line = pathlib.Path(f"/proc/{pid}/cmdline").read_text()
            yield pid, line.partition("guest=")[2].partition(",")[0]

    def ports_at(self, host):
        return [port["name"] for port in self.get(host, "/ports")]

    def nothing_of(self, vm, host):
        """True once no trace of the vm is at the host."""
        vms, agent = self.get(host, "/vms"), self.agent(host)
        return (None not in (vms, agent) and vm.name not in [other["name"] for other in vms] and
                vm.port not in self.ports_at(host) and
                f"guest={vm.name}," not in self.command_lines(host) and
                vm.name not in os.listdir(f"/proc/{agent}/root/run/godwit/vms") and
                (vm.tap is None or vm.tap not in pathlib.Path(f"/proc/{agent}/net/dev").read_text()))

    def command_lines(self, host):
        lines = []
        for pid in self.qemus(host):
            try:
                lines.append(pathlib.Path(f"/proc/{pid}/cmdline").read_text())
            except OSError:
                pass
        return "\n".join(lines)

    def wait_for_nothing_of(self, vm, host, limit_s=10):
        wait_until(lambda: self.nothing_of(vm, host), limit_s,
                   lambda: f"an end of {vm.name} on {host}: {self.left_at(host)}")

    def calm(self):
        """Agents without faults, no cut, no full disk."""
        for link in self.lab.ls()["links"]:
            self.lab.run("heal", link["name"])
        for host in self.small_disks:
            self.free_disk(host)
        for host in self.sites:
            pid = self.agent(host)
            if pid is None or self.is_faulty(pid) or self.agent_stopped(host):
                self.restart_agent(host)

    def tidy(self):
        """After a test: calm, no vms, no ports."""
        self.calm()
        self.standing = None
        for host in self.sites:
            for replica in self.get(host, "/replicas"):
                self.godwit(host, "replica", "rm", replica["vm"], "--to", replica["to"], "--force", expect=None)
            for name in self.vms_of(host):
                self.godwit(host, "vm", "stop", name, "--force", expect=None)
                self.godwit(host, "vm", "purge", name, expect=None)
            for left in self.get(host, "/disks"):
                self.godwit(host, "vm", "purge", left["vm"], expect=None)
        for host in self.sites:
            for wire in self.get(host, "/wires"):
                self.godwit(host, "disconnect", f"{wire['a']['host']}/{wire['a']['port']}",
                            f"{wire['b']['host']}/{wire['b']['port']}", expect=None)
        for host in self.sites:
            for component in self.get(host, "/components"):
                self.godwit(host, "component", "rm", component["name"], expect=None)
            for port in self.ports_at(host):
                self.godwit(host, "port", "rm", port, expect=None)

    def expect_nothing_left(self):
        """The last test of a module: when the leases of its moves are over, hosts are as after `lab up`."""
        self.tidy()
        for host in self.sites:
            wait_until(lambda h=host: self.left_at(h) == self.clean[h], 45,
                       lambda h=host: f"{h} as it was:\n{self.clean[h]}\nnot\n{self.left_at(h)}"
                       f"{self.logs()}")
            assert self.json(host, "wire", "ls") == [] and self.json(host, "port", "ls") == []

    @staticmethod
    def is_faulty(pid):
        return b"GODWIT_FAULT=" in pathlib.Path(f"/proc/{pid}/environ").read_bytes()


class Vm:
    def __init__(self, fleet, name, net, nic):
        self.fleet, self.name, self.net, self.nic = fleet, name, net, nic
        self.port, self.uplink, self.address = f"{name}-nic", f"{name}-lan", f"{net}.2"
        self.tap = None  # the start of the names of its TAPs, once it has a port

    def ping(self):
        return self.fleet.lab.exec("client", "ping", "-c", "1", "-W", "1", self.address,
                                   check=False).returncode == 0

    def wait_until_it_answers(self, limit_s=BOOT_LIMIT_S):
        wait_until(self.ping, limit_s, self.why_silent)

    def why_silent(self):
        return f"{self.name} at {self.address}: {self.on_console()}{self.fleet.logs()}"

    def on_console(self):
        """What a vm that does not answer over the network says on its console, for who asks why."""
        told = ""
        for host in self.fleet.where(self.name):
            told += self.fleet.lab.exec(host, "sh", "-c", '(echo "$1"; sleep 5) | timeout 8 "$2" vm console "$3"', "sh",
                                        CONSOLE_WORDS, self.fleet.bin / "godwit", self.name, check=False).stdout
        return told

    def ask(self, verb, limit_s=2):
        """What the vm answers on its control port; None if it does not."""
        return self.fleet.ask_guest(self.address, verb, limit_s)

    def counter(self):
        """The vm's memory counter."""
        report = self.ask("report")
        return report and report["counter"]

    def clock_error_ms(self):
        """How far the vm's wall clock is ahead of ours, by the quickest of some answers."""
        code = ("import socket,sys,json,time\n"
                "s = socket.create_connection((sys.argv[1], 7008), 2)\n"
                "s.settimeout(2)\n"
                "lines, seen = s.makefile(), []\n"
                "for _ in range(15):\n"
                "    asked = time.time_ns()\n"
                "    s.sendall(b'report\\n')\n"
                "    told = json.loads(lines.readline())['realtime_ns']\n"
                "    trip = time.time_ns() - asked\n"
                "    seen.append((trip, (told - asked - trip / 2) / 1e6))\n"
                "print(min(seen)[1])\n")
        return float(self.fleet.lab.exec("client", "/usr/bin/python3", "-c", code, self.address).stdout)

    def counted(self, limit_s=20):
        """Its counter, which a busy vm does not tell at the first question."""
        return wait_until(self.counter, limit_s, lambda: f"{self.name}'s counter: {self.fleet.logs()}")

    def wait_until_it_counts(self, limit_s=20):
        """The vm lives if its counter grows."""
        first = self.counted(limit_s)
        wait_until(lambda: (self.counter() or 0) > first, limit_s, f"{self.name} counts on")


class Observer:
    """Watches from outside the agents that a vm never runs twice: the CPU time of the vCPU threads
    of all its QEMUs, on all hosts. A hand-over may show both within one interval, never within two
    in a row. A paused QEMU's vCPU threads do a little for the main loop: less than `BUSY`. The last
    thread of a QEMU that ends gives its memory back, which takes time: one that exits runs no guest.
    """

    INTERVAL_S = 0.05
    BUSY = 0.02  # of the interval

    def __init__(self, vm):
        self.vm = vm
        self.violations, self.samples, self.most = [], 0, 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stopping.set()
        self.thread.join()
        if kind is None:
            assert self.samples > 0
            assert not self.violations, self.violations

    def qemus(self):
        mark = f"guest={self.vm.name},".encode()
        hosts = {ns: name for name, ns in self.vm.fleet.namespaces.items()}
        found = []
        for pid in pids_of("qemu-system-x86"):
            try:
                if (mark in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() and
                        pid_namespace(pid) in hosts):
                    found.append(pid)
            except OSError:
                pass
        return found

    PF_EXITING = 0x4  # include/linux/sched.h

    @classmethod
    def vcpu_seconds(cls, pid):
        """None if it is ending, or gone."""
        total = 0
        try:
            for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
                if thread.joinpath("comm").read_text().startswith("CPU "):
                    total += int(thread.joinpath("schedstat").read_text().split()[0])
                    flags = thread.joinpath("stat").read_text().rpartition(") ")[2].split()[6]
                    if int(flags) & cls.PF_EXITING:
                        return None
        except (OSError, IndexError):
            return None
        return total / 1e9

    def watch(self):
        before, then, both_before = {}, time.monotonic(), set()
        pids, listed = [], 0.0
        while not self.stopping.wait(self.INTERVAL_S):
            if time.monotonic() - listed > 0.3:
                pids, listed = self.qemus(), time.monotonic()
                self.most = max(self.most, len(pids))
            now = time.monotonic()
            spent = {pid: s for pid in pids if (s := self.vcpu_seconds(pid)) is not None}
            busy = {pid for pid, s in spent.items()
                    if pid in before and s - before[pid] > self.BUSY * (now - then)}
            both = busy if len(busy) > 1 else set()
            if len(both & both_before) > 1:
                self.violations.append((now, {p: spent[p] - before[p] for p in both}))
            before, then, both_before = spent, now, both
            self.samples += 1


class Probe:
    """The client's traffic: 1,000 packets/s each way and TCP; figures at the end."""

    def __init__(self, vm, connections=2):
        self.vm = vm
        self.nobody_read = vm.fleet.frames_nobody_read()
        self.process = vm.fleet.popen("client", vm.fleet.bin / "godwit", "lab", "probe", vm.address,
                                      "--connections", connections, "--settle", "1s",
                                      stdin=subprocess.PIPE)
        self.figures = None

    def __enter__(self):
        line = self.process.stdout.readline()
        assert json.loads(line)["event"] == "ready", line
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.process.kill()
        out, err = self.process.communicate(timeout=60)
        if kind is None:
            lines = [json.loads(line) for line in out.splitlines()]
            summaries = [line for line in lines if line["event"] == "summary"]
            assert summaries, out + err
            self.figures = summaries[0]["total"]

    def expect_one_history(self):
        """Whatever was lost, the vm's memory never went back and no packet came twice."""
        f = self.figures
        assert f["counter_jumps"] == 0, f
        assert f["from_vm"]["duplicated"] == 0, f
        assert f["tcp"]["mismatches"] == 0, f
        if f["guest"] is not None:
            assert f["guest"]["counter_damaged"] == 0 and f["guest"]["pages_damaged"] == 0, f
            assert f["to_vm"]["duplicated"] == 0, f

    def expect_nothing_lost(self):
        self.expect_one_history()
        f = self.figures
        assert f["guest"] is not None, f
        lost = f["to_vm"]["lost"] + f["from_vm"]["lost"]
        if lost > 0:  # by hosts that were too busy?
            excused = self.vm.fleet.frames_nobody_read() - self.nobody_read
            assert lost <= excused, f"{excused} of {f}\n{self.vm.fleet.where_frames_were_lost()}"
        assert f["tcp"]["resets"] == 0, f
