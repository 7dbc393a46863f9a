"""A fleet whose secrets the test knows: invitations' tokens and private keys. They are nowhere but where
they must be. Topology: fleet.py, with agents that log each step.
"""

import base64
import os
import pathlib
import re
import signal
import stat
import subprocess
import threading

import pytest
from conftest import is_alive, wait_until
from fleet import ADDRESSES, HOSTS, Fleet

STATE = "/var/lib/godwit"


class Arguments(threading.Thread):
    """Reads every process's arguments and environment, over and over, while it runs."""

    def __init__(self):
        super().__init__(daemon=True)
        self.stopping, self.seen = threading.Event(), {}

    def run(self):
        while not self.stopping.wait(0.02):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                if int(pid) == os.getpid():
                    continue
                try:
                    for name in ("cmdline", "environ"):
                        self.seen[pathlib.Path(f"/proc/{pid}/{name}").read_bytes()] = pid
                except OSError:
                    pass

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join()


class Secrets:
    """What must not be found, in the forms in which it would be."""

    def __init__(self):
        self.forms = {}

    def add(self, name, raw):
        for form in (raw, raw.hex().encode(), raw.hex().upper().encode(), base64.b64encode(raw).rstrip(b"="),
                     base64.urlsafe_b64encode(raw).rstrip(b"=")):
            self.forms[form] = name

    def add_token(self, token):
        self.add("a token's secret", base64.urlsafe_b64decode(token)[:16])
        # In the token the secret is followed by the hash: its last character differs.
        self.forms[token[:21].encode()] = "a token"

    def add_key(self, name, pem):
        lines = [line for line in pem.splitlines() if "-----" not in line]
        der = base64.b64decode("".join(lines))
        self.add(name, der[-32:])  # Ed25519 and X25519 (RFC 8410): the key ends it; P-256: a part of it
        self.add(name, der)
        for line in lines:
            if len(line) >= 24:
                self.forms[line.encode()] = name

    def found_in(self, data):
        return sorted({name for form, name in self.forms.items() if form in data})


class QuietFleet(Fleet):
    """Agents that log each step and may dump core, joined by tokens from standard input."""

    def __init__(self, lab):
        self.tokens = []
        super().__init__(lab)

    def start_agent(self, host, **options):
        super().start_agent(host, limits=("prlimit", "--core=unlimited"), options=("-v",), **options)


@pytest.fixture
def fleet(lab, monkeypatch):
    """As Fleet, but the test makes it: the lab comes up without agents."""
    monkeypatch.setattr(lab, "up", lambda *_, **__: type(lab).up(lab, agents=False))
    tokens = []

    class Joined(QuietFleet):
        def sees_all(self, host):
            if self.agent("e1") is None:  # the first question: make them
                self.vms, self.clean = 0, {}
                for name in self.sites:
                    self.start_agent(name)
                for name in ("client", "w1"):
                    tokens.append(self.json("e1", "host", "invite")["token"])
                    subprocess.run(lab.argv("exec", name, "--", str(self.bin / "godwit"), "join", "-"),
                                   input=f"{tokens[-1]}@{ADDRESSES['e1']}\n", text=True, check=True,
                                   capture_output=True, timeout=30)
            return super().sees_all(host)
    with Arguments() as arguments:
        fleet = Joined(lab)
        fleet.arguments, fleet.tokens = arguments, tokens
        yield fleet


def files_of(fleet, host):
    """(path in the host, mode, content) of every regular file and socket that a host of the lab has by itself."""
    root = pathlib.Path(f"/proc/{fleet.lab.node(host)['pid']}/root")
    for top in ("run", "var/lib", "var/log", "tmp", "var/tmp", "dev/shm"):
        for directory, _, names in os.walk(root / top):
            for name in names:
                path = pathlib.Path(directory) / name
                about = path.lstat()
                content = path.read_bytes() if stat.S_ISREG(about.st_mode) else b""
                yield "/" + str(path.relative_to(root)), about.st_mode, content


API = ("/v1/host", "/v1/hosts", "/v1/ports", "/v1/wires", "/v1/vms", "/v1/migrations")
CURL = """
import socket, sys
for path in sys.argv[1:]:
    s = socket.socket(socket.AF_UNIX); s.connect('/run/godwit/godwitd.sock')
    s.settimeout(5)
    s.sendall(f'GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n'.encode())
    try:
        while data := s.recv(65536): sys.stdout.write(data.decode(errors='replace'))
    except TimeoutError: pass
"""
EVENTS = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect('/run/godwit/godwitd.sock')
s.sendall(b'GET /v1/events HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
while data := s.recv(65536): sys.stdout.write(data.decode(errors='replace')); sys.stdout.flush()
"""


def test_secrets_are_nowhere_but_where_they_must_be(fleet):
    events = {host: fleet.lab.python(host, EVENTS) for host in HOSTS}
    vm = fleet.run_vm()
    moved = fleet.move(vm, "e1", "w1")
    fleet.lab.exec("e1", fleet.bin / "godwit", "host", "invite")
    said = "".join(fleet.lab.python(host, CURL, *API, f"/v1/migrations/{moved['id']}")
                   .communicate(timeout=60)[0] for host in fleet.sites)
    assert f'"{vm.name}"' in said, "the API did answer"
    for process in events.values():
        process.kill()
        said += process.communicate()[0]
    assert "event: migration" in said

    secrets = Secrets()
    for token in fleet.tokens:
        secrets.add_token(token)
    for host in fleet.sites:
        for path, mode, content in files_of(fleet, host):
            if b"PRIVATE KEY-----" in content:
                assert stat.S_IMODE(mode) == 0o600, (host, path, oct(mode))
                secrets.add_key(f"{host}:{path}", content.decode())
    keys = set(secrets.forms.values()) - {"a token", "a token's secret"}
    assert {f"e1:{STATE}/ca.key"} < keys and len(keys) == 4, keys  # and each host's own

    assert secrets.found_in(said.encode()) == []
    seen = {secret for line in fleet.arguments.seen for secret in secrets.found_in(line)}
    assert seen == set(), seen
    assert any(b"godwit\0join\0-" in line for line in fleet.arguments.seen), "the join was watched"
    wrong = []
    for host in fleet.sites:
        for path, mode, content in files_of(fleet, host):
            found = [s for s in secrets.found_in(content) if s != f"{host}:{path}"]
            if found:
                wrong.append((host, path, found))
            public = path.endswith(("/kernel", "/initrd", ".pem"))
            if path.startswith((STATE, "/run/godwit")) and mode & 0o077 and not public:
                wrong.append((host, path, oct(mode)))
    assert wrong == []
    assert len(fleet.log("e1")) > 2000 and " debug " in fleet.log("e1"), "it logged each step"


# Of the same rights as the other: only PR_SET_DUMPABLE stands between them (ptrace(2), access mode checking).
_MAY_LOOK = "-sys_ptrace,-perfmon,-sys_admin"  # the last two: perfmon_capable()
LESS = ("setpriv", f"--bounding-set={_MAY_LOOK}", f"--inh-caps={_MAY_LOOK}")


def may_read(fleet, host, pid):
    inside = re.search(r"NSpid:.*\s(\d+)\n", pathlib.Path(f"/proc/{pid}/status").read_text())[1]
    return fleet.lab.exec(host, *LESS, "cat", f"/proc/{inside}/environ", check=False).returncode == 0


def test_an_agent_s_memory_comes_into_no_core_and_no_hands(fleet):
    fleet.kill_agent("w1")
    Fleet.start_agent(fleet, "w1", limits=(*LESS, "prlimit", "--core=unlimited"))
    fleet.lab.run("exec", "--detach", "--log", "/var/log/control.log", "w1", "--", *LESS, "sleep", "1000")
    control = wait_until(lambda: fleet.processes("w1", "sleep"), 10, "the control")[0]
    agent = fleet.agent("w1")
    assert may_read(fleet, "w1", control), "the control can be looked into"
    assert not may_read(fleet, "w1", agent)
    os.kill(agent, signal.SIGABRT)
    wait_until(lambda: not is_alive(agent), 20, "its end")
    for path, _, content in files_of(fleet, "w1"):
        assert not content.startswith(b"\x7fELF"), f"{path} is a core file"
