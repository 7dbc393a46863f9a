"""Stock practice: what an operator does with QEMU and Linux alone, as the measure for Godwit.

The hosts' bridges are joined by kernel VXLAN (flood entries to both other hosts, MAC learning), the
vm's TAP is a port of its host's bridge, the client has its address on its own bridge. A move starts
a QEMU with -incoming tcp: at the target and sends QMP `migrate` to the source; QEMU announces the
vm (RARP) where it resumes. MTU is 1450, as VXLAN over 1500 needs it. Migration parameters are QEMU's
defaults, if a move's settings do not say otherwise, but for max-bandwidth, which is lifted: its
128 MiB/s are no limit on this WAN anyway.

The vm itself is Godwit's: same program, machine, CPU model, memory and devices, taken from the
command line that Godwit gave its QEMU. Its memory is not a multiple of 256 KiB: QEMU 7.2 under TCG
then misses dirty pages, which would not be a fair fight.
"""

import json
import subprocess
import threading
import time
from dataclasses import dataclass, field

from stage import (CLIENT_ADDRESS, COMMAND_LIMIT_S, HOSTS, MAX_DOWNTIME_MS, MOVE_LIMIT_S, POLL_S,
                   StageError, wait_until)

VNI, VXLAN_PORT, MIGRATION_PORT, MTU = 42, 4789, 4748, 1450
# QEMU takes bytes per second; zero would mean none, not unlimited.
MAX_BANDWIDTH = 1 << 40
# Any TOS but 0 keeps the kernel from caching a remote's route. With a cached one VXLAN goes on using
# the old remote's next hop after it has learned that a MAC moved (seen with Linux 6.18).
VXLAN_TOS = "0x10"
QUIT_LIMIT_S = 5


@dataclass(frozen=True)
class Settings:
    """How an operator has QEMU migrate."""

    capabilities: tuple = ()  # at both ends
    parameters: dict = field(default_factory=dict)  # at both ends

    @property
    def post_copy(self):
        return "postcopy-ram" in self.capabilities


class NotConverged(StageError):
    """The guest changed its memory faster than QEMU sent it, or the link was too slow."""


class Qemu:
    """A QEMU in a host of the lab, spoken to with QMP on its standard input and output."""

    def __init__(self, lab, host, argv):
        self.host = host
        self.argv = argv
        self._process = lab.start(host, *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, start_new_session=True)
        self._changed = threading.Condition()
        self._replies, self._events, self._ended = [], {}, False
        threading.Thread(target=self._read, daemon=True).start()
        self.execute("qmp_capabilities")

    def _read(self):
        for line in self._process.stdout:
            message = json.loads(line)
            with self._changed:
                if "event" in message:
                    self._events.setdefault(message["event"], message["timestamp"])
                elif "QMP" not in message:
                    self._replies.append(message)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _wait(self, condition, what, limit_s):
        with self._changed:
            if not self._changed.wait_for(lambda: condition() or self._ended, limit_s):
                raise StageError(f"QEMU at {self.host}: {what}: not within {limit_s} s")
            if not condition():
                raise StageError(f"QEMU at {self.host} ended: {self._process.stderr.read()}")
            return condition()

    def execute(self, command, **arguments):
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        self._wait(lambda: self._replies, command, COMMAND_LIMIT_S)
        reply = self._replies.pop(0)
        if "error" in reply:
            raise StageError(f"QMP {command} at {self.host}: {reply['error']['desc']}")
        return reply["return"]

    def event_s(self, name, limit_s=MOVE_LIMIT_S):
        """When the event `name` first happened, in seconds since 1970."""
        at = self._wait(lambda: self._events.get(name), name, limit_s)
        return at["seconds"] + at["microseconds"] / 1e6

    def forget_events(self):
        with self._changed:
            self._events.clear()

    def end(self):
        """Ends QEMU and returns when it is gone."""
        try:
            self.execute("quit")
            self._process.wait(QUIT_LIMIT_S)
        except (OSError, StageError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


def stock_argv(godwits, load):
    """The command line of Godwit's QEMU with an operator's TAP, console and QMP in it, and the files themselves of which Godwit
    makes copies for a QEMU that may not read them."""
    words, argv = iter(godwits), []
    own = dict(zip(("-kernel", "-initrd", "-append"), (*map(str, load.files()), load.append(MTU))))
    for word in words:
        if word in ("-chardev", "-mon", "-uuid"):
            next(words)
        elif word == "-device" and (device := next(words)).startswith("isa-serial"):
            argv += ["-serial", "null"]
        elif word == "-device":
            argv += [word, device]
        elif word == "-netdev":
            next(words)
            argv += [word, "tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=off"]
        elif word in own:
            next(words)
            argv += [word, own[word]]
        else:
            argv.append(word)
    return [*argv, "-qmp", "stdio"]


class StockVm:
    """A vm of the operator, and its moves."""

    def __init__(self, lab, load, argv, port=MIGRATION_PORT):
        self.lab, self.argv, self.port = lab, stock_argv(argv, load), port
        self.addresses = {node["name"]: node["ipv4"] for node in lab.describe()["nodes"]
                          if not node["router"]}
        self.vm = self._left = None
        self.commands = []  # what an operator would have typed, for the record

    @property
    def host(self):
        return self.vm.host

    def start(self):
        self.vm = self._qemu(HOSTS["east"])

    def _qemu(self, host, *more):
        argv = [*self.argv, *more]
        self.commands.append(f"{host}# {' '.join(quoted(argv))}")
        return Qemu(self.lab, host, argv)

    def _qmp(self, qemu, command, **arguments):
        self.commands.append(f"{qemu.host} QMP: {command} {json.dumps(arguments)}")
        return qemu.execute(command, **arguments)

    def _set(self, qemu, settings):
        """A QEMU that came with an earlier move has that one's settings still."""
        other = [{"capability": c["capability"], "state": not c["state"]}
                 for c in qemu.execute("query-migrate-capabilities")
                 if c["state"] != (c["capability"] in settings.capabilities)]
        if other:
            self._qmp(qemu, "migrate-set-capabilities", capabilities=other)
        self._qmp(qemu, "migrate-set-parameters",
                  **{"max-bandwidth": MAX_BANDWIDTH, "downtime-limit": int(MAX_DOWNTIME_MS)}
                  | settings.parameters)

    def move(self, host, settings=Settings(), limit_s=MOVE_LIMIT_S):
        """Moves the vm; returns (total_s, pause_ms, QEMU's own account).

        After `limit_s` the move is cancelled, and the vm goes on where it is: NotConverged.

        The total runs from starting the target's QEMU, as Godwit's preparation does, until the vm
        runs there and the source has completed. The pause is from the source's STOP to the
        target's RESUME, both on this machine's clock.
        """
        begun = time.monotonic()
        self.vm.forget_events()
        uri = f"tcp:{self.addresses[host]}:{self.port}"
        target = self._qemu(host, "-incoming", "defer")
        try:
            for qemu in (target, self.vm):
                self._set(qemu, settings)
            self._qmp(target, "migrate-incoming", uri=uri)
            self._qmp(self.vm, "migrate", uri=uri)
            if settings.post_copy:
                self._switch_to_post_copy(begun + limit_s)
            account = self._completed(begun + limit_s)
            resumed = target.event_s("RESUME")
        except BaseException:
            target.end()
            raise
        total_s = time.monotonic() - begun
        pause_ms = (resumed - self.vm.event_s("STOP")) * 1000
        self._left, self.vm = self.vm, target
        return total_s, pause_ms, account

    def _account(self):
        account = self.vm.execute("query-migrate")
        if account.get("status") == "failed":
            raise StageError(f"QEMU's migration failed: {account.get('error-desc', account)}")
        return account

    def _switch_to_post_copy(self, deadline):
        """After one round of pre-copy: the second begins with a sync of the dirty bitmap."""
        while time.monotonic() < deadline:
            account = self._account()
            if account["status"] == "completed":
                return
            if account.get("ram", {}).get("dirty-sync-count", 0) > 1:
                self._qmp(self.vm, "migrate-start-postcopy")
                return
            time.sleep(POLL_S)

    def _completed(self, deadline):
        while (account := self._account())["status"] != "completed":
            # In post-copy there is no way back.
            if time.monotonic() > deadline and account["status"] == "active":
                self._cancel()
                raise NotConverged(f"QEMU at {self.host}: not converged: {account}")
            if time.monotonic() > deadline + MOVE_LIMIT_S:
                raise StageError(f"QEMU's migration: still {account['status']}")
            time.sleep(POLL_S)
        return account

    def _cancel(self):
        self.vm.execute("migrate_cancel")
        wait_until(lambda: self._account()["status"] == "cancelled", COMMAND_LIMIT_S,
                   "QEMU cancels its migration")

    def end_source(self):
        """After a move, once it was measured: the old QEMU goes (its CPU time was read before)."""
        self._left.end()
        self._left = None

    def stop(self):
        for qemu in filter(None, (self.vm, self._left)):
            qemu.end()


class Stock(StockVm):
    """With the operator's network, to the client."""

    def _run(self, host, *words):
        line = f"{host}# {' '.join(words)}"
        self.commands.append(line)
        self.lab.run(host, *words)

    def start(self):
        for host in self.addresses:
            self._make_bridge(host)
        for host in HOSTS.values():
            self._run(host, "ip", "tuntap", "add", "tap0", "mode", "tap", "vnet_hdr")
            self._run(host, "ip", "link", "set", "tap0", "mtu", str(MTU), "master", "br0", "up")
        self._run("client", "ip", "address", "add", f"{CLIENT_ADDRESS}/24", "dev", "br0")
        super().start()

    def _make_bridge(self, host):
        own = self.addresses[host]
        self._run(host, "ip", "link", "add", "br0", "type", "bridge")
        self._run(host, "ip", "link", "add", "vxlan0", "type", "vxlan", "id", str(VNI), "dstport",
                  str(VXLAN_PORT), "local", own, "tos", VXLAN_TOS)
        for other, address in self.addresses.items():
            if other != host:
                self._run(host, "bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vxlan0",
                          "dst", address)
        self._run(host, "ip", "link", "set", "vxlan0", "mtu", str(MTU), "master", "br0", "up")
        self._run(host, "ip", "link", "set", "br0", "mtu", str(MTU), "up")

    def stop(self):
        super().stop()
        for host in self.addresses:
            self.lab.run(host, "ip", "link", "del", "vxlan0")
            self.lab.run(host, "ip", "link", "del", "br0")
        for host in HOSTS.values():
            wait_until(lambda: self._drop_tap(host), COMMAND_LIMIT_S, f"QEMU leaves tap0 at {host}")

    def _drop_tap(self, host):
        """False while a QEMU that was killed still holds it."""
        try:
            self.lab.run(host, "ip", "tuntap", "del", "tap0", "mode", "tap")
        except StageError:
            return False
        return True


def quoted(argv):
    return [f"'{word}'" if " " in word else word for word in argv]
