"""Hosts that are vms with kernels of their own, each in a cloud that drops what is not its tenant's:
what ./dev demo nested shows is kept. Everything is emulated twice without KVM."""

import subprocess

import pytest
from conftest import ROOT

LIMIT_S = 1200

pytestmark = pytest.mark.thorough


def test_a_vm_moves_between_nested_hosts_behind_nat(tmp_path):
    done = subprocess.run([ROOT / "demo" / "nested.py", "--lab", "nested-test", "--keep", tmp_path],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                          timeout=LIMIT_S)
    logs = "".join(f"---- {path.name}\n{path.read_text()[-4000:]}\n" for path in tmp_path.iterdir())
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{logs}"
    assert "a foreign IP and a foreign MAC are dropped" in done.stdout
    assert done.stdout.count("moved in") == 2 and "every promise was kept" in done.stdout
