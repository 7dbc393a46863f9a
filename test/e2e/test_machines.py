"""What a vm has beside disks, memory and NICs: UEFI variables, a TPM, a CD. Topology: fleet.py."""

import pytest
from conftest import wait_until
from test_disks import expect_intact, run_writer

VMS = "/var/lib/godwit-disks/vms/*"
pytestmark = pytest.mark.thorough


def sum_of(fleet, host, file):
    return fleet.lab.exec(host, "sh", "-ec", f"sha256sum < $(echo {file})").stdout.split()[0]


def restart(fleet, host, vm):
    fleet.godwit(host, "vm", "stop", vm.name, "--force")
    fleet.godwit(host, "vm", "start", vm.name)
    vm.wait_until_it_answers()


def test_uefi_and_tpm(fleet):
    """OVMF writes variables as it boots, and measures what it boots into the TPM."""
    template = sum_of(fleet, "e1", "/usr/share/OVMF/OVMF_VARS_4M.fd")
    vm = run_writer(fleet, memory="256MiB", options=["--firmware", "uefi", "--tpm"])
    assert fleet.vms_of("e1")[vm.name]["tpm"]
    fleet.move(vm, "e1", "w1")
    expect_intact(vm)
    written = sum_of(fleet, "e1", f"{VMS}/uefi-vars.raw")  # as they were at the hand-over
    assert written == sum_of(fleet, "w1", f"{VMS}/uefi-vars.raw") != template
    assert sum_of(fleet, "e1", f"{VMS}/tpm/tpm2-00.permall") == sum_of(fleet, "w1", f"{VMS}/tpm/tpm2-00.permall")
    assert fleet.lab.exec("w1", "sh", "-c", f"stat -c %a $(echo {VMS}/tpm/tpm2-00.permall)").stdout == "600\n"
    restart(fleet, "w1", vm)
    fleet.move(vm, "w1", "e1")
    expect_intact(vm)
    fleet.godwit("e1", "vm", "stop", vm.name, "--force")
    wait_until(lambda: fleet.lab.exec("e1", "pgrep", "-x", "swtpm", check=False).stdout == "", 10, "swtpm's end")


def test_a_host_without_firmware_is_told_so_before(fleet):
    vm = run_writer(fleet, memory="256MiB", options=["--firmware", "uefi"])
    fleet.lab.exec("w1", "mount", "-t", "tmpfs", "none", "/usr/share/qemu/firmware")
    refused = fleet.godwit("e1", "migrate", vm.name, "--to", "w1", expect=3).stderr
    fleet.lab.exec("w1", "umount", "/usr/share/qemu/firmware")
    assert "w1 has none for QEMU: install it (Debian: ovmf)" in refused, refused
    fleet.move(vm, "e1", "w1")
