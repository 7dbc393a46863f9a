"""The image library of one host, driven by the command line:

    east: e1 [10.66.1.10]
"""

import hashlib
import os
import re
import signal

import pytest
from conftest import Lab, wait_until
from fleet import Fleet

LIBRARY = "/var/lib/godwit-disks/images"
SOURCE = "/var/lib/sources"  # files to be added
MIB = 1 << 20


@pytest.fixture(scope="module")
def host(lab_program, tmp_path_factory):
    lab = Lab(lab_program)
    try:
        host = Host(Fleet(lab, "sites: { east: { hosts: [e1] } }\n", tmp_path_factory.mktemp("lab")))
        yield host
    finally:
        lab.down()


class Host:
    def __init__(self, fleet):
        self.fleet = fleet
        self.shell(f"mkdir {SOURCE}; cd {SOURCE}; printf begins >raw; truncate -s 4M raw; "
                   "truncate -s 64G endless; qemu-img create -q -f qcow2 qcow2 3M; "
                   "qemu-img create -q -f qcow2 -b qcow2 -F qcow2 overlay")

    def shell(self, script):
        return self.fleet.lab.exec("e1", "sh", "-ec", script).stdout

    def image(self, *arguments, expect=0):
        return self.fleet.godwit("e1", "image", *arguments, expect=expect)

    def images(self):
        return {image["name"]: image for image in self.fleet.json("e1", "image", "ls")}

    def files(self):
        return self.shell(f"ls -A {LIBRARY}").split()

    def begin_endless(self):
        """Begins to add a file that takes minutes; the process of the command."""
        process = self.fleet.popen("e1", self.fleet.bin / "godwit", "image", "add", "endless",
                                   f"{SOURCE}/endless")
        wait_until(lambda: self.images().get("endless", {}).get("done_bytes"), 20, "a copy")
        return process


def test_images_are_added_verified_and_removed(host):
    content = b"begins" + bytes(4 * MIB - 6)
    total = hashlib.sha256(content).hexdigest()
    done = host.image("add", "base", f"{SOURCE}/raw", "--sha256", total)
    assert re.match(r"copying +\d+ (B|KiB|MiB) of 4 MiB", done.stderr), done.stderr
    assert f"image base is ready: raw, a disk of 4 MiB, SHA-256 {total}" in done.stdout
    assert host.shell(f"sha256sum <{LIBRARY}/base.raw").split()[0] == total
    assert int(host.shell(f"du -k {LIBRARY}/base.raw").split()[0]) < 1024, "its holes are kept"
    host.image("add", "second", f"{SOURCE}/qcow2", "--public", "--tenant", "red")

    images = host.images()
    assert set(images) == {"base", "second"}
    assert images["base"]["state"] == "ready" and images["base"]["sha256"] == total, images
    assert images["second"]["format"] == "qcow2" and images["second"]["public"], images
    assert images["second"]["virtual_size_bytes"] == 3 * MIB
    table = host.image("ls").stdout.splitlines()
    assert table[1].split() == ["base", "raw", "4", "MiB", "4", "MiB", "ready", "-", "default"]
    assert total in host.image("show", "base").stdout
    assert "as it was added" in host.image("verify", "base").stdout

    host.shell(f"printf x | dd of={LIBRARY}/base.raw bs=1 seek={MIB} conv=notrunc status=none")
    damaged = host.image("verify", "base", expect=1)
    assert "image base is damaged" in damaged.stderr and total in damaged.stderr, damaged.stderr
    assert host.images()["base"]["state"] == "damaged"

    for name in ("base", "second"):
        host.image("rm", name)
    assert host.images() == {}
    wait_until(lambda: host.files() == [], 20, host.files)
    host.image("rm", "base", expect=1)


def test_what_is_refused_leaves_nothing(host):
    wrong = host.image("add", "base", f"{SOURCE}/raw", "--sha256", "0" * 64, expect=1)
    assert f"not {'0' * 64}" in wrong.stderr, wrong.stderr
    overlay = host.image("add", "base", f"{SOURCE}/overlay", expect=1)
    assert "qemu-img convert" in overlay.stderr, overlay.stderr
    host.image("add", "base", f"{SOURCE}/none", expect=2)
    assert host.images() == {} and host.files() == []


def test_ctrl_c_removes_what_was_begun(host):
    process = host.begin_endless()
    for pid in host.fleet.processes("e1", "godwit"):
        os.kill(pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1 and "interrupted: image endless is removed" in err, err
    assert host.images() == {}
    wait_until(lambda: host.files() == [], 20, host.files)


def test_an_agent_that_dies_leaves_no_half_copy(host):
    process = host.begin_endless()
    assert host.files() == ["endless.partial"]
    host.fleet.kill_agent("e1")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1, err
    host.fleet.start_agent("e1")
    assert host.images() == {} and host.files() == []
