"""Disks at servers (volumes), which stay there when their vm moves. Topology: fleet.py; the servers run at
`client`, which both hosts reach: QEMU's for NBD, tgt for iSCSI, NFS-Ganesha."""

import pytest
from conftest import wait_until
from fleet import ADDRESSES
from test_disks import disks_at, expect_intact, written

PLACE = "/var/lib/volumes"
GANESHA = f"""
NFS_CORE_PARAM {{ Protocols = 3; Enable_NLM = false; Enable_RQUOTA = false; }}
EXPORT {{ Export_Id = 1; Path = {PLACE}; Pseudo = /volumes; Access_Type = RW; Squash = No_Root_Squash; Protocols = 3;
         SecType = sys; Privileged_Port = false; FSAL {{ Name = VFS; }} }}
"""
SIZE = "128M"
SERVER = ADDRESSES["client"]


class Server:
    """What serves volumes, as processes of one node of the lab."""

    def __init__(self, lab, node):
        self.lab, self.node, self.started = lab, node, []
        lab.exec(node, "mkdir", "-p", PLACE)

    def make(self, name):
        """In the place of a file system some noise, as its guest knows of none."""
        self.lab.exec(self.node, "truncate", "-s", SIZE, f"{PLACE}/{name}")
        self.lab.exec(self.node, "dd", "if=/dev/urandom", f"of={PLACE}/{name}", "bs=4k", "count=1", "conv=notrunc")
        return f"{PLACE}/{name}"

    def empty(self, name):
        self.lab.exec(self.node, "fallocate", "--punch-hole", "--length", SIZE, f"{PLACE}/{name}")

    def start(self, *command):
        started = self.lab.exec(self.node, "sh", "-c", 'setsid "$@" >/dev/null 2>&1 & echo $!', "sh", *command)
        self.started.append(started.stdout.strip())
        return self.started[-1]

    def nbd(self, name, port=10809, address=SERVER):
        pid = self.start("qemu-nbd", "--persistent", "--shared=0", "--format=raw", f"--bind={address}",
                         f"--port={port}", f"--export-name={name}", self.make(name))
        wait_until(lambda: self.lab.exec(self.node, "nbdinfo", f"nbd://{address}:{port}/{name}",
                                         check=False).returncode == 0, 10, "the NBD server")
        return f"nbd://{address}:{port}/{name}", pid

    def iscsi(self, name):
        target = f"iqn.2026-01.example:{name}"
        file = self.make(name)
        self.start("tgtd", "--foreground", "--iscsi", f"portal={SERVER}:3260")
        admin = ["tgtadm", "--lld", "iscsi", "--tid", "1"]
        wait_until(lambda: self.lab.exec(self.node, *admin, "--op", "new", "--mode", "target", "-T", target,
                                         check=False).returncode == 0, 10, "the iSCSI server")
        self.lab.exec(self.node, *admin, "--op", "new", "--mode", "logicalunit", "--lun", "1", "-b", file)
        self.lab.exec(self.node, *admin, "--op", "bind", "--mode", "target", "-I", "ALL")
        return f"iscsi://{SERVER}/{target}/1"

    def nfs(self, name):
        self.lab.exec(self.node, "chmod", "666", self.make(name))
        self.lab.exec(self.node, "mkdir", "-p", "/run/rpcbind", "/run/ganesha")
        self.lab.exec(self.node, "sh", "-c", f"echo '{GANESHA}' > {PLACE}/ganesha.conf")
        self.start("rpcbind", "-f")
        self.start("ganesha.nfsd", "-F", "-L", "/var/log/ganesha.log", "-f", f"{PLACE}/ganesha.conf", "-p", "/run/ganesha.pid")
        wait_until(lambda: "mountd" in self.lab.exec(self.node, "rpcinfo", "-p", "127.0.0.1", check=False).stdout,
                   20, "the NFS server")
        return f"nfs://{SERVER}{PLACE}/{name}"

    def stop(self):
        for pid in self.started:
            self.lab.exec(self.node, "kill", "-9", pid, check=False)
        self.lab.exec(self.node, "rm", "-rf", PLACE)


@pytest.fixture
def server(fleet):
    server = Server(fleet.lab, "client")
    yield server
    for host in ("e1", "w1"):
        for vm in fleet.vms_of(host):
            fleet.godwit(host, "vm", "stop", vm, "--force")
            fleet.godwit(host, "vm", "purge", vm)
    server.stop()


def run_writer(fleet, *disks, disk="vda"):
    """One that writes so little that it reads all of that again soon, with a round trip for each block."""
    vm = fleet.run_vm(disks=disks, disk=disk, disk_rate="512kbit")
    wait_until(lambda: written(vm) > 20, 60, "writes of the guest")
    return vm


def checks_of_volumes(tried):
    return [check for check in tried["checks"] if check["name"] == "volumes"]


def test_a_volume_stays_where_it_is(fleet, server):
    uri, _ = server.nbd("db")
    vm = run_writer(fleet, f"db,uri={uri}")
    disk = disks_at(fleet, "e1")[vm.name, "db"]
    assert disk["uri"] == uri and "path" not in disk, disk
    assert f"running, at {uri}" in fleet.godwit("e1", "disk", "ls").stdout
    tried = fleet.json("e1", "migrate", vm.name, "--to", "w1", "--dry-run")
    assert [check["ok"] for check in checks_of_volumes(tried)] == [True], tried
    for source, target in (("e1", "w1"), ("w1", "e1")):
        moved = fleet.move(vm, source, target)
        assert "disks" not in moved["report"], moved
        expect_intact(vm)
        assert disks_at(fleet, source) == {} and disks_at(fleet, target)[vm.name, "db"]["uri"] == uri
    fleet.godwit("e1", "vm", "stop", vm.name, "--force")
    fleet.godwit("e1", "vm", "rm", vm.name)  # nothing of it is here
    server.lab.exec(server.node, "test", "-f", f"{PLACE}/db")


@pytest.mark.thorough  # 30 s
def test_what_the_target_finds_there_must_be_the_same(fleet):
    """At the other site the same address is another server's."""
    address = "10.99.0.1"
    servers = {host: Server(fleet.lab, host) for host in ("e1", "w1")}
    for host in servers:
        fleet.lab.exec(host, "ip", "address", "add", f"{address}/32", "dev", "lo")
    try:
        uri, _ = servers["e1"].nbd("db", address=address)
        vm = run_writer(fleet, f"db,uri={uri}")
        refused = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=3).stderr
        assert "Connection refused" in refused and "host w1" in refused, refused
        servers["w1"].nbd("db", address=address)
        refused = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=3).stderr
        assert "does not find the same: other contents at byte 0" in refused, refused

        def nothing_found():
            """The vm writes meanwhile: what it has written since is found."""
            servers["e1"].empty("db")
            told = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=3).stderr
            assert "nothing was found on it" in told or "other contents" in told, told
            return "nothing was found on it" in told

        wait_until(nothing_found, 30, "a volume without contents")
        assert fleet.where(vm.name) == ["e1"]
        fleet.godwit("e1", "vm", "stop", vm.name, "--force")
        fleet.godwit("e1", "vm", "rm", vm.name)
    finally:
        for host, server in servers.items():
            fleet.lab.exec(host, "ip", "address", "del", f"{address}/32", "dev", "lo")
            server.stop()


def test_a_uri_that_is_none_or_leads_nowhere(fleet, server):
    bad = fleet.godwit("e1", "vm", "run", "lost", "--disk", "db,uri=file:///etc/shadow", expect=1).stderr
    assert "none of nbd, iscsi, nfs, rbd" in bad, bad
    bad = fleet.godwit("e1", "vm", "run", "lost", "--disk", "db,uri=nbd://127.0.0.1/x,size=1GiB", expect=1).stderr
    assert "size is of no use with a URI" in bad, bad
    bad = fleet.godwit("e1", "vm", "run", "lost", "--disk", f"db,uri=nbd://{SERVER}:1/x", expect=1).stderr
    assert "Connection refused" in bad, bad
    assert not fleet.vms_of("e1")


@pytest.mark.thorough
def test_beside_disks_that_move(fleet, server):
    uri, _ = server.nbd("db")
    vm = run_writer(fleet, "root,size=64MiB", f"db,uri={uri},bus=scsi", disk="sda")
    for source, target in (("e1", "w1"), ("w1", "e1")):
        assert "disks" in fleet.move(vm, source, target)["report"]
        expect_intact(vm)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["iscsi", "nfs"])
def test_other_servers(fleet, server, kind):
    vm = run_writer(fleet, f"db,uri={getattr(server, kind)('db')}")
    for source, target in (("e1", "w1"), ("w1", "e1")):
        fleet.move(vm, source, target)
        expect_intact(vm)


@pytest.mark.thorough
@pytest.mark.parametrize("victim", ["e1", "w1"])
def test_an_agent_is_killed_meanwhile(fleet, server, victim):
    uri, _ = server.nbd("db")
    vm = run_writer(fleet, f"db,uri={uri}")
    move = fleet.begin_move(vm, "e1", "w1", "--hold", "--on-restart", "abort", *fleet.PATIENT)
    fleet.wait_for_state("e1", move, "ready")
    fleet.restart_agent(victim)
    fleet.wait_for_state("e1", move, "aborted")
    wait_until(lambda: fleet.sees_all("e1") and fleet.where(vm.name) == ["e1"], 40, "sessions, and the vm at e1")
    expect_intact(vm)
    fleet.move(vm, "e1", "w1")
    expect_intact(vm)
