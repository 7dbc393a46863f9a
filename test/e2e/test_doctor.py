"""`godwit doctor` on a lab's host without an agent: what is missing there is named, with a remedy."""

import json
import pathlib
import subprocess

import pytest
from conftest import build_directory, wait_until

HOLDER = """
import socket, sys
sockets = [socket.socket(socket.AF_INET6, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
for each in sockets:
    each.bind(("::", 4747))
sockets[0].listen()
print("bound", flush=True)
sys.stdin.read()
"""


class Doctor:
    def __init__(self, lab):
        self.lab = lab
        lab.up()

    def examine(self, *options, before="true"):
        """(exit status, findings by name) after the shell commands `before`, in mounts of their own."""
        done = self.lab.exec("e1", "unshare", "--mount", "sh", "-c", before + '; exec "$@"', "doctor",
                             build_directory() / "bin" / "godwit", "doctor", "--json", *options,
                             check=False)
        try:
            return done.returncode, {f["name"]: f for f in json.loads(done.stdout)}
        except json.JSONDecodeError:
            pytest.fail(f"doctor: {done.returncode}: {done.stdout}{done.stderr}")

    def fails(self, name, *options, **more):
        status, findings = self.examine(*options, **more)
        assert findings[name]["level"] == "fail" and status == 1, findings[name]
        assert findings[name]["remedy"], findings[name]
        others = {f["name"] for f in findings.values() if f["level"] == "fail"} - {name}
        return findings[name], others


@pytest.fixture
def doctor(lab):
    return Doctor(lab)


def test_what_is_missing_is_named(doctor):
    status, healthy = doctor.examine()
    assert status == 0 and all(f["level"] != "fail" for f in healthy.values()), healthy
    for name in ("kernel", "tun", "tap-pair", "udp-segmentation", "qemu", "disk-tools", "uefi", "tpm", "libvirt", "port", "mtu"):
        assert healthy[name]["level"] == "ok", healthy[name]
    speaks_all = "iscsi" in subprocess.run(["qemu-img", "--help"], capture_output=True, text=True).stdout
    assert healthy["volumes"]["level"] == ("ok" if speaks_all else "warn"), healthy["volumes"]
    allowed = pathlib.Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip() == "1"
    assert healthy["post-copy"]["level"] == ("ok" if allowed else "warn"), healthy["post-copy"]
    assert healthy["agent"]["level"] == "warn" and "godwitd" in healthy["agent"]["remedy"]

    finding, others = doctor.fails("tun", before="mount -t tmpfs none /dev/net")
    assert "modprobe tun" in finding["remedy"] and others == {"tap-pair"}
    finding, others = doctor.fails("qemu", before="PATH=/nowhere; export PATH")
    assert "qemu-system-x86" in finding["remedy"] and others == {"disk-tools"}
    without = doctor.examine(before="mount -t tmpfs none /usr/share/qemu/firmware")[1]["uefi"]
    assert without["level"] == "warn" and "ovmf" in without["remedy"], without
    finding, others = doctor.fails("state-dir", before="chmod 755 /var/lib/godwit")
    assert finding["remedy"] == "chmod 0700 /var/lib/godwit" and not others
    doctor.lab.exec("e1", "chmod", "700", "/var/lib/godwit")
    finding, others = doctor.fails("mtu", "--path-mtu", "1600")
    assert "1600" in finding["detail"] and not others
    finding, others = doctor.fails("reach w1", "--reach", "w1")
    assert "w1" not in others and "4747" in finding["remedy"]

    holder = doctor.lab.python("e1", HOLDER, stdin=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == "bound\n"
        finding, others = doctor.fails("port")
        assert "in use" in finding["detail"] and not others
    finally:
        holder.kill()
        holder.wait()
    wait_until(lambda: doctor.examine()[0] == 0, 20, "the port is free again")
