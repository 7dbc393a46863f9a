"""End-to-end tests: real processes in a real lab (`godwit lab`), as root or in a user namespace.

A test asks for the `lab` fixture, brings up the topology it draws in its docstring, and everything
is removed afterwards, whatever happened. There are no fixed sleeps: `wait_until` polls a condition
up to a deadline.

Environment: GODWIT_BUILD, the build directory (default: build/dev, else build/release).
"""

import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import uuid
import zlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "demo"))  # what it promises and measures is tested too
COMMAND_LIMIT_S = 60
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable


def pytest_addoption(parser):
    parser.addoption("--fault-seed", type=int, default=datetime.date.today().toordinal(),
                     help="which crash cases ./dev test runs; default: another dozen each day")
    parser.addoption("--draw", action="store_true",
                     help="of the tests marked drawn only the third that --fault-seed is for, as ./dev test does")
    parser.addoption("--fault-case", action="append", default=[], metavar="POINT:FAULT",
                     help="only this crash case (repeatable)")


def pytest_report_header(config):
    return f"crash cases: --fault-seed {config.getoption('fault_seed')}"


def pytest_configure(config):
    # A shell that starts us in the background has us ignore Ctrl-C, and so would what we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "thorough: not part of ./dev test; ./dev e2e --all runs it")
    config.addinivalue_line("markers", "drawn: ./dev test runs it each third day")


DAYS = 3  # in which all that are drawn have run


def pytest_collection_modifyitems(config, items):
    if not config.getoption("draw"):
        return
    # By name: what is drawn does not depend on which others are selected.
    left_out = [item for item in items if item.get_closest_marker("drawn") and
                (zlib.crc32(f"{item.path.stem}.{item.name}".encode()) + config.getoption("fault_seed")) % DAYS]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def wait_until(condition, limit_s=20.0, what="the condition"):
    """Returns the first true value of condition(); fails the test when there is none in time.

    A limit is of a hang, not a promise: the machine has other work, and that what is waited for
    needs it: a condition that is dear to ask is asked less often. `what`: a text, or a function that
    tells how things stand then.
    """
    deadline = time.monotonic() + limit_s
    while True:
        asked = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        if now > deadline:
            pytest.fail(f"{what() if callable(what) else what} did not come true in {limit_s} s")
        time.sleep(min(max(0.02, 2 * (now - asked)), 0.2))


def build_directory():
    if "GODWIT_BUILD" in os.environ:
        return pathlib.Path(os.environ["GODWIT_BUILD"])
    for preset in ("dev", "release"):
        if (ROOT / "build" / preset).is_dir():
            return ROOT / "build" / preset
    pytest.exit("there is no build: run `./dev build`, or set GODWIT_BUILD", returncode=2)


class Lab:
    """One lab under a name of its own, so that tests can run beside each other and beside a user's."""

    def __init__(self, program, prefix=()):
        self.program = list(prefix) + [str(program)]
        self.name = f"t{uuid.uuid4().hex[:8]}"

    def argv(self, command, *arguments):
        return [*self.program, command, "--name", self.name, *map(str, arguments)]

    def run(self, command, *arguments, check=True, limit_s=COMMAND_LIMIT_S, **options):
        done = subprocess.run(self.argv(command, *arguments), capture_output=True, text=True,
                              timeout=limit_s, stdin=subprocess.DEVNULL, check=False, **options)
        if check and done.returncode != 0:
            pytest.fail(f"lab {command} {arguments}: {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def up(self, yaml=None, directory=None, agents=False, check=True):
        arguments = [] if agents else ["--no-agents"]
        if yaml is not None:
            path = pathlib.Path(directory) / f"{self.name}.yaml"
            path.write_text(yaml)
            arguments.append(path)
        return self.run("up", *arguments, check=check)

    def down(self):
        return self.run("down")

    def exec(self, host, *command, check=True, limit_s=COMMAND_LIMIT_S):
        return self.run("exec", host, "--", *command, check=check, limit_s=limit_s)

    def python(self, host, code, *arguments, stdin=subprocess.DEVNULL):
        """Runs Python in a host, in the background; its output is a pipe."""
        return subprocess.Popen(self.argv("exec", host, "--", PYTHON, "-c", code, *arguments),
                                stdin=stdin, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def ls(self):
        return json.loads(self.run("ls", "--json").stdout)

    def node(self, name):
        return next(node for node in self.ls()["nodes"] if node["name"] == name)

    def direction(self, link=0, source=None):
        """The counters of one direction of a link (the first one, or the one from site `source`)."""
        directions = self.ls()["links"][link]["directions"]
        return next(d for d in directions if source in (None, d["from"]))

    def processes(self):
        lab = self.ls()
        return [lab["holder_pid"], lab["emulator_pid"], *(node["pid"] for node in lab["nodes"])]


def is_alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"  # dead already; a container's init may never reap it


@pytest.fixture(scope="session")
def lab_program():
    program = build_directory() / "bin" / "godwit-lab"
    if not program.exists():
        pytest.exit(f"{program} is not built", returncode=2)
    return program


@pytest.fixture
def lab(lab_program):
    lab = Lab(lab_program)
    yield lab
    lab.down()


@pytest.fixture(scope="module")
def shared_fleet(lab_program):
    """One lab with agents for all tests of a module."""
    from fleet import Fleet  # which needs this module
    if not (build_directory() / "guest" / "vmlinuz").exists():
        pytest.exit("there is no guest image: build the target guest_image", returncode=2)
    lab = Lab(lab_program)
    try:
        yield Fleet(lab)
    finally:
        lab.down()


@pytest.fixture
def fleet(shared_fleet):
    """The module's fleet, without vms, ports, cuts and dead agents afterwards."""
    yield shared_fleet
    shared_fleet.tidy()


@pytest.fixture
def small_target(fleet):
    """Where w1 has its vms' disks is room for as much as is asked for, in MiB."""
    place = "/var/lib/godwit-disks/vms"
    yield lambda size: fleet.lab.exec("w1", "mount", "-t", "tmpfs", "-o",
                                      f"size={size}m,mode=711", "tmpfs", place)
    fleet.lab.exec("w1", "umount", "-l", place)
