"""The Debian packages of this build, made once a session."""

import functools
import os
import shutil
import subprocess

import pytest
from conftest import ROOT, build_directory


@functools.cache
def built(version=None):
    """Their directory. What takes the time is compressing: these are to be installed, not sent."""
    if not shutil.which("dh"):
        pytest.fail("debhelper is not installed: ./dev package installs it")
    # Not under build/package, where a user may have made some to keep.
    directory = build_directory() / "test-packages" / (version or "own")
    shutil.rmtree(directory, ignore_errors=True)
    environment = dict(os.environ, GODWIT_BUILD=str(build_directory()), GODWIT_PACKAGES=str(directory),
                       DEB_RULES_REQUIRES_ROOT="no", GODWIT_COMPRESSION="none", GODWIT_BUILT="yes")
    if version:
        environment["GODWIT_PACKAGE_VERSION"] = version
    done = subprocess.run(["debian/rules", "binary"], cwd=ROOT, env=environment, check=False,
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        pytest.fail(f"debian/rules binary: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return directory
