#!/usr/bin/python3
"""Hosts that are themselves vms in clouds which know nothing of Godwit: a vm inside one moves to the other.

      cloud A (e1)                       WAN                      cloud B (w1)
    +--------------------------+   40 ms RTT, 400 Mbit/s   +--------------------------+
    | n1 172.31.0.10           |                           | n2 172.31.0.10           |
    |  own kernel, godwitd     |                           |  own kernel, godwitd     |
    |    '- vm web  - - - - - -|- - - - - moves - - - - - >|                          |
    |  provider's filter, NAT  |                           |  provider's filter, NAT  |
    +--- public 10.66.1.100 ---+                           +--- public 10.66.2.100 ---+
                    '------------- client (its own agent) ------------'

Each provider lets one MAC and one IP address pass from its tenant, and gives it a public address by
1:1 NAT, so that a host does not see its own. Both clouds use the same private addresses. Everything is
emulated twice without KVM: this takes some minutes.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import argparse
import contextlib
import json
import pathlib
import queue
import subprocess
import sys
import threading
import time

from stage import (AGENT_LOG, CLIENT_ADDRESS, CLIENT_PORT, ROOT, VM, VM_ADDRESS, VM_PORT, WAYS, Client,
                   Lab, StageError, build_directory, demonstrated, finished, gaps_ms, guest_image,
                   wait_until, write_rows)

PRIVATE_IP, GATEWAY, FOREIGN_IP = "172.31.0.10", "172.31.0.1", "172.31.0.99"
MACS = {"n1": "02:00:00:00:00:01", "n2": "02:00:00:00:00:02"}
FOREIGN_MAC = "02:00:00:00:00:99"
# (provider's node in the lab, site, public address)
CLOUDS = {"n1": ("e1", "cloud-a", "10.66.1.100"), "n2": ("w1", "cloud-b", "10.66.2.100")}
CLIENT_HOST_ADDRESS = "10.66.1.11"
HOST_MEMORY = "1536M"
VM_MEMORY = "128MiB"

# What a guest of a guest needs under two layers of TCG, on a busy machine.
BOOT_LIMIT_S, VM_BOOT_LIMIT_S, MOVE_LIMIT_S, COMMAND_LIMIT_S = 240, 400, 400, 120
# What is left after the hand-over is the lease of the old wires.
GOOD_ENDS = ("committed", "draining", "done")
ENDS = (*GOOD_ENDS, "aborted", "undecided")
# Packets per second each way. While its memory is copied a vm under two layers of TCG comes to its packets
# only every 20 s, and the buffer of its socket holds 270.
PROBE_RATE = 5


def say(text=""):
    print(text, flush=True)


PROVIDER = f"""
set -e
public=$1 mac=$2
ip link add cloud0 type bridge
ip address add {GATEWAY}/24 dev cloud0
ip link set cloud0 up
ip tuntap add tenant0 mode tap
ip link set tenant0 master cloud0 up
ip address add $public/32 dev eth0
nft -f - <<RULES
table netdev provider {{
  counter foreign {{ }}
  chain from_tenant {{
    type filter hook ingress device "tenant0" priority 0; policy accept;
    ether saddr != $mac counter name foreign drop
    ether type arp arp saddr ether != $mac counter name foreign drop
    ether type arp arp saddr ip != {{ {PRIVATE_IP}, 0.0.0.0 }} counter name foreign drop
    ether type ip ip saddr != {PRIVATE_IP} counter name foreign drop
    ether type != {{ arp, ip }} drop
  }}
}}
table ip provider {{
  chain to_tenant {{
    type nat hook prerouting priority dstnat;
    ip daddr $public dnat to {PRIVATE_IP}
  }}
  chain from_tenant {{
    type nat hook postrouting priority srcnat;
    oifname "eth0" ip saddr {PRIVATE_IP} snat to $public
  }}
}}
RULES
echo 1 > /proc/sys/net/ipv4/ip_forward
"""


class NestedHost:
    """A host with its own kernel inside a provider's network, told what to do by its second console."""

    def __init__(self, lab, name, image):
        self.lab, self.name = lab, name
        self.provider, self.site, self.public = CLOUDS[name]
        lab.run(self.provider, "sh", "-c", PROVIDER, "provider", self.public, MACS[name])
        words = (f"console=ttyS0 quiet panic=-1 godwit.host={name} godwit.site={self.site} "
                 f"godwit.address={self.public} godwit.ip={PRIVATE_IP}/24 godwit.gw={GATEWAY}")
        self.qemu = lab.start(
            self.provider, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-smp", "2",
            "-m", HOST_MEMORY, "-no-reboot", "-kernel", image / "vmlinuz",
            "-initrd", image / "initrd.img", "-append", words,
            "-netdev", "tap,id=net0,ifname=tenant0,script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=net0,mac={MACS[name]},romfile=",
            "-device", "virtio-rng-pci", "-serial", "file:/var/log/console.log",
            "-device", "virtio-serial-pci", "-chardev", "stdio,id=control,signal=off",
            "-device", "virtconsole,chardev=control",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.qemu.stdout:
            self.lines.put(line.rstrip("\r\n"))
        self.lines.put(None)

    def await_boot(self):
        self._lines_until("=READY=", BOOT_LIMIT_S, "its boot")

    def _lines_until(self, mark, limit_s, what):
        """(The line that begins with `mark`, those before it)."""
        deadline, before = time.monotonic() + limit_s, []
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise StageError(f"{self.name}: {what} took longer than {limit_s} s: {before}\n"
                                 f"{self.console()}") from None
            if line is None:
                raise StageError(f"{self.name}: its QEMU ended: {before}\n{self.console()}")
            if line.startswith(mark):
                return line, before
            before.append(line)

    def sh(self, command, limit_s=COMMAND_LIMIT_S, check=True):
        """Runs a line of shell in the host: (status, output)."""
        self.qemu.stdin.write(command + "\n")
        self.qemu.stdin.flush()
        line, output = self._lines_until("=DONE= ", limit_s, command)
        status, text = int(line.split()[1]), "\n".join(output).strip()
        if check and status != 0:
            raise StageError(f"{self.name}: {command}: status {status}\n{text}\n{self.console()}")
        return status, text

    def ask(self, *words):
        return json.loads(self.sh("godwit " + " ".join(words) + " --json 2>/dev/null")[1])

    def console(self):
        return "\n".join(self.lab.run(self.provider, "cat", "/var/log/console.log").splitlines()[-60:])

    def dropped(self):
        """Frames of the tenant that the provider did not let pass."""
        text = self.lab.run(self.provider, "nft", "-j", "list", "counters")
        return next(item["counter"]["packets"] for item in json.loads(text)["nftables"]
                    if "counter" in item)

    def end(self):
        self.qemu.kill()
        self.qemu.wait()


def reaches_gateway(host, source):
    return host.sh(f"ping -c 2 -W 2 -I {source} {GATEWAY}", check=False)[0] == 0


def show_filter(host):
    """The provider drops what is not the tenant's address, and nothing else."""
    if not reaches_gateway(host, PRIVATE_IP):
        raise StageError(f"{host.name} does not reach its gateway with its own address")
    before = host.dropped()
    host.sh(f"ip address add {FOREIGN_IP}/24 dev eth0")
    if reaches_gateway(host, FOREIGN_IP):
        raise StageError(f"the provider of {host.name} lets a foreign IP address pass")
    host.sh(f"ip address del {FOREIGN_IP}/24 dev eth0")
    after_ip = host.dropped()
    set_mac = "ip link set eth0 down; ip link set eth0 address {}; ip link set eth0 up; " \
        f"ip route replace default via {GATEWAY}"
    host.sh(set_mac.format(FOREIGN_MAC))
    if reaches_gateway(host, PRIVATE_IP):
        raise StageError(f"the provider of {host.name} lets a foreign MAC address pass")
    host.sh(set_mac.format(MACS[host.name]))
    after_mac = host.dropped()
    if not before < after_ip < after_mac:
        raise StageError(f"the provider of {host.name} counts no drops: {before} {after_ip} {after_mac}")
    say(f"  {host.name}: a foreign IP and a foreign MAC are dropped ({after_mac - before} frames)")


def start_client_agent(lab):
    lab.run("client", "sh", "-c", f"mkdir -p /var/log; exec setsid {build_directory()}/bin/godwitd "
            f"--name client --site east --address {CLIENT_HOST_ADDRESS} > {AGENT_LOG} 2>&1 &")
    wait_until(lambda: answers(lab), COMMAND_LIMIT_S, "the client's agent answers")


def answers(lab):
    with contextlib.suppress(StageError):
        return lab.ask("client", "host", "ls")
    return None


def states(lab):
    return {host["name"]: host["state"] for host in lab.ask("client", "host", "ls")}


def join_fleet(lab, hosts):
    for host in hosts:
        line = lab.ask("client", "host", "invite")["command"]
        host.sh(line)
    wait_until(lambda: all(states(lab).get(name) == "up" for name in CLOUDS), COMMAND_LIMIT_S,
               "the sessions with both hosts")
    wait_until(lambda: all(other["state"] != "down" for host in hosts for other in
                           host.ask("host", "ls")), COMMAND_LIMIT_S, "the session of the two hosts")


def start_vm(lab, host):
    host.sh(f"godwit vm run {VM} --memory {VM_MEMORY} --kernel /guest/vmlinuz --initrd "
            f"/guest/initrd.img --append 'console=ttyS0 quiet nokaslr godwit.ip={VM_ADDRESS}/24 "
            f"godwit.dirty=200kbit godwit.working-set=1MiB' --nic {VM_PORT}")
    lab.run("client", "godwit", "port", "add", CLIENT_PORT, "--uplink", "--address",
            f"{CLIENT_ADDRESS}/24")
    lab.run("client", "godwit", "connect", CLIENT_PORT, VM_PORT)
    wait_until(lambda: vm_answers(lab), VM_BOOT_LIMIT_S, f"vm {VM} answers over its wire")


def vm_answers(lab):
    with contextlib.suppress(StageError):
        return lab.run("client", "ping", "-c", "1", "-W", "5", VM_ADDRESS)
    return None


# busybox has no pgrep, and its ps cuts long lines.
COUNT_QEMUS = f"for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep 'guest={VM},'; done 2>/dev/null | wc -l"


def instances(hosts):
    """The hosts whose QEMU of the vm runs, by the agents' word and by the process list."""
    running = []
    for host in hosts:
        vms = [vm for vm in host.ask("vm", "ls") if vm["name"] == VM]
        processes = int(host.sh(COUNT_QEMUS)[1])
        if processes > 0 or any(vm["state"] == "running" for vm in vms):
            running.append(host.name)
    return running


def move(lab, client, source, target):
    say(f"--- {source.name} -> {target.name}:  godwit migrate {VM} --to {target.name}")
    begun = time.monotonic()

    def go():
        started = source.ask("migrate", VM, "--to", target.name, "--max-downtime", "3s",
                             "--on-diverge", "pause", "--detach")

        def over():
            migration = source.ask("migration", "show", started["id"])
            return migration if migration["state"] in ENDS else None
        return wait_until(over, MOVE_LIMIT_S, "the end of the move")

    migration, window = client.watch(f"{source.name}-{target.name}", go)
    if migration["state"] not in GOOD_ENDS:
        raise StageError(f"the move ended as {migration['state']}: {migration.get('reason')}\n"
                         f"{source.console()}\n{target.console()}")
    wait_until(lambda: instances((source, target)) == [target.name], COMMAND_LIMIT_S,
               f"the vm runs at {target.name} only")
    report, gaps = migration["report"], gaps_ms(window)
    say(f"    moved in {time.monotonic() - begun:.1f} s, pause {report['pause_ms']:.0f} ms, "
        f"blackout {gaps['to_vm']:.0f} ms to the vm, {gaps['from_vm']:.0f} ms from it, "
        f"{report['bytes']['wan'] / 1e6:.0f} MB over the WAN")
    return migration, window


def judge(moves, total):
    kept = True

    def check(text, count):
        nonlocal kept
        kept = kept and count == 0
        say(f"  {'kept  ' if count == 0 else 'BROKEN'}  {text:<58} {count}")
    for name, (_, window) in moves.items():
        guest = window["guest"] or {"counter_damaged": 0, "pages_damaged": 0}
        check(f"{name}: TCP resets and wrong bytes", window["tcp"]["resets"] + window["tcp"]["mismatches"])
        check(f"{name}: jumps of the counter in the vm's memory",
              window["counter_jumps"] + guest["counter_damaged"] + guest["pages_damaged"])
    say(f"from the client's first packet to its last, {total['to_vm']['sent']} sent to the vm:")
    for way in WAYS:
        for fate in ("lost", "duplicated"):
            check(f"{fate} {way.replace('_', ' ')}", total[way][fate] or 0)
    check("TCP resets", total["tcp"]["resets"])
    return kept


def show(options):
    begun = time.monotonic()
    image = build_directory() / "host"
    finished([ROOT / "tools" / "make-host-image", str(build_directory() / "bin"),
              str(guest_image()[0].parent), str(image)], limit_s=COMMAND_LIMIT_S)
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(options.lab, agents=False))
        hosts = []
        for name in CLOUDS:
            hosts.append(NestedHost(lab, name, image))
            stack.callback(hosts[-1].end)
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            stack.callback(keep_logs, options.keep, lab, hosts)
        say("two hosts boot, each in its cloud")
        for host in hosts:
            host.await_boot()
        say(f"  {hosts[0].sh('uname -sr')[1]} on each, after {time.monotonic() - begun:.0f} s")
        for host in hosts:
            show_filter(host)
        start_client_agent(lab)
        join_fleet(lab, hosts)
        say("the hosts have joined the client's fleet, each under an address that it does not have")
        start_vm(lab, hosts[0])
        say(f"vm {VM} answers at {VM_ADDRESS} after {time.monotonic() - begun:.0f} s")
        client = stack.enter_context(Client(lab, "--rate", str(PROBE_RATE), "--connections", "2"))
        client.watch_idle("idle", 5)
        moves = {"there": move(lab, client, *hosts), "back": move(lab, client, *reversed(hosts))}
        wait_until(lambda: vm_answers(lab), COMMAND_LIMIT_S, "the vm has come to what waited for it")
        client.watch_idle("settled", 5)
        total = client.stop()
        if options.keep:
            (options.keep / "windows.json").write_text(json.dumps(
                {**client.windows, "total": total, "wires": lab.ask("client", "wire", "ls"),
                 **{host.name: [host.ask("wire", "ls"), host.ask("port", "ls")] for host in hosts}}, indent=1))
    if options.json:
        write_rows(options.json, rows(moves, time.monotonic() - begun))
    return judge(moves, total)


def rows(moves, total_s):
    out = [{"bench": "nested", "case": "all", "system": "godwit", "metric": "total_s",
            "value": total_s, "unit": "s"}]
    for case, (migration, window) in moves.items():
        for metric, value in (("pause_ms", migration["report"]["pause_ms"]),
                              ("blackout_ms", max(gaps_ms(window).values()))):
            out.append({"bench": "nested", "case": case, "system": "godwit", "metric": metric,
                        "value": value, "unit": "ms"})
    return out


def keep_logs(directory, lab, hosts):
    for host in hosts:
        (directory / f"{host.name}.console").write_text(
            lab.run(host.provider, "cat", "/var/log/console.log"))
    (directory / "client.log").write_text(lab.run("client", "sh", "-c", f"cat {AGENT_LOG} || :"))


def arguments():
    parser = argparse.ArgumentParser(prog="./dev demo nested", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the figures as rows")
    parser.add_argument("--keep", metavar="DIRECTORY", type=pathlib.Path,
                        help="keep the hosts' consoles and the agents' logs")
    parser.add_argument("--lab", default="nested", metavar="NAME", help="the lab's name")
    return parser.parse_args()


def main():
    options = arguments()
    return demonstrated(lambda: show(options))


if __name__ == "__main__":
    sys.exit(main())
