"""Open vSwitch as a peer, in a host of a lab: a database and a daemon of the bench's own, in a directory of its own,
apart from the system's service, and ended by their process ids."""

import shlex
import subprocess

from stage import StageError, wait_until

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
LIMIT_S = 20


class OpenVswitch:
    """A bridge. `is_kernel`: its datapath is the kernel's module, else the daemon itself, between packet
    sockets, with super-frames left whole (userspace-tso-enable). A context; `why_not` then says why there is none."""

    def __init__(self, lab, host, is_kernel):
        self.lab, self.host, self.is_kernel = lab, host, is_kernel
        self.name = "ovs" if is_kernel else "ovs-netdev"
        self.bridge = f"br-{self.name}"
        self.directory, self.daemons, self.why_not = None, [], None

    def __enter__(self):
        try:
            self._begin()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_):
        self.end()

    def _begin(self):
        self.directory = self.lab.run(self.host, "mktemp", "-d", "/run/ovs.XXXXXX").strip()
        at = self.directory
        self._run("ovsdb-tool", "create", f"{at}/conf.db", SCHEMA)
        self._start("ovsdb-server", f"{at}/conf.db", f"--remote=punix:{at}/db.sock", f"--unixctl={at}/ovsdb.ctl")
        wait_until(lambda: self._shell(f"test -S {at}/db.sock && echo yes || :"), LIMIT_S, "Open vSwitch's database")
        self.vsctl("--no-wait", "init")
        if not self.is_kernel:
            self.vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")
        self._start("ovs-vswitchd", f"unix:{at}/db.sock", f"--unixctl={at}/vswitchd.ctl")
        # It answers with success also when it could not.
        self.vsctl("add-br", self.bridge, "--", "set", "bridge", self.bridge,
                   f"datapath_type={'system' if self.is_kernel else 'netdev'}")
        if not self._shell(f"ip -o link show {self.bridge} 2>/dev/null || :"):
            said = self._first_error() or "the bridge was not made"
            if not self.is_kernel:
                raise StageError(f"Open vSwitch: {said}")
            self.why_not = f"the kernel's module openvswitch is missing ({said})"

    def _first_error(self):
        lines = self._shell(f"grep -E '[|](ERR|WARN)[|]' {self.directory}/ovs-vswitchd.log || :").splitlines()
        return lines[0].split("|", 4)[-1] if lines else ""

    def end(self):
        for process, pid in reversed(self.daemons):
            self._shell(f"kill {pid} 2>/dev/null || :")
            try:
                process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                self._shell(f"kill -9 {pid} 2>/dev/null || :")
                process.wait()
        self.daemons = []
        if self.directory:
            self.lab.run(self.host, "rm", "-r", self.directory)
            self.directory = None

    def vsctl(self, *words):
        return self._run("ovs-vsctl", f"--db=unix:{self.directory}/db.sock", f"--timeout={LIMIT_S}", *words)

    def join(self, places, addresses):
        """A pair of veths from each place into the bridge."""
        for number, place in enumerate(places):
            inner, outer = (f"{self.name[-3:]}{number}{side}" for side in "ab")
            self._run("ip", "link", "add", inner, "type", "veth", "peer", "name", outer)
            self._run("ip", "link", "set", outer, "up")
            self.vsctl("add-port", self.bridge, outer)
            place.enter(inner, addresses[number])

    def _run(self, *words):
        return self.lab.run(self.host, *self._shown(words))

    def _shown(self, words):
        words = ("env", f"OVS_RUNDIR={self.directory}", *words)
        print(f"  {self.name}: {shlex.join(words)}", flush=True)
        return words

    def _shell(self, line):
        return self.lab.run(self.host, "sh", "-c", line)

    def _start(self, *words):
        words = self._shown((*words, f"--log-file={self.directory}/{words[0]}.log"))
        process = self.lab.start(self.host, "sh", "-c", 'echo $$; exec "$@" 2>/dev/null', "sh", *words,
                                 stdout=subprocess.PIPE)
        self.daemons.append((process, process.stdout.readline().strip()))
