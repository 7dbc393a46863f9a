"""Two fleets that trust each other for named ports, a third one, and one that claims to be the second:

    alpha: a1, a2    gamma: c1    ==( 10 ms RTT )==    beta: b1, b2    forged: f1, which calls itself b1

Founded by a1, b1, c1 and f1, whose names the fleets have by themselves.
"""

import json

import pytest
from conftest import Lab, build_directory, wait_until
from fleet import BOOT_WORDS, LOG, Fleet, pid_namespace

LAB = """
sites:
  north: { hosts: [a1, a2, c1] }
  south: { hosts: [b1, b2, f1] }
links:
  north-south: { between: [north, south], rate: 400mbit, delay: 5ms, queue: 40ms }
"""
FLEETS = {"a1": ("a1", "a2"), "b1": ("b1", "b2"), "c1": ("c1",), "f1": ("f1",)}
CALLED = {"f1": "b1"}  # by itself
ADDRESSES = {"a1": "10.8.0.1", "b1": "10.8.0.2", "a2": "10.8.0.3", "c1": "10.8.0.4", "f1": "10.8.0.5"}


class Fleets(Fleet):
    def __init__(self, lab, directory):  # pylint: disable=super-init-not-called
        self.lab = lab
        self.bin = build_directory() / "bin"
        self.godwitd = self.bin / "godwitd"
        self.guest = build_directory() / "guest"
        self.agents = {}
        lab.up(LAB, directory)
        nodes = lab.ls()["nodes"]
        self.namespaces = {node["name"]: pid_namespace(node["pid"]) for node in nodes}
        self.sites = {node["name"]: node["site"] for node in nodes if not node["router"]}
        self.vms, self.small_disks, self.standing = 0, set(), None
        for founder, members in FLEETS.items():
            for host in members:
                self.start_agent(host)
                if host == founder:
                    self.godwit(host, "host", "invite")
                    continue
                line = self.json(founder, "host", "invite")["command"]
                self.godwit(host, "join", line.split()[-1])
        wait_until(lambda: all(map(self.sees_all, self.sites)), 30, "all sessions")

    def start_agent(self, host, **_):
        self.lab.run("exec", "--detach", "--log", LOG, host, "--", self.godwitd, "--name",
                     CALLED.get(host, host), "--site", self.sites[host],
                     *(word for address in self.lab.node(host)["announced"]
                       for word in ("--address", address)))
        wait_until(lambda: self.get(host, "/hosts") is not None, 20, f"the agent on {host}")

    def sees_all(self, host):
        members = next(members for members in FLEETS.values() if host in members)
        hosts = self.get(host, "/hosts") or []
        return len(hosts) == len(members) and all(h["state"] in ("up", "self") for h in hosts)

    def restart_agents(self, *hosts):
        for host in hosts:
            self.kill_agent(host)
        for host in hosts:
            self.start_agent(host)

    # ---- trust ----

    def trust(self, host, other, name, *ports, expect=0, options=()):
        """`host` takes the card of `other`, whose fleet it calls `name`."""
        card = self.godwit(other, "host", "trust", "offer").stdout
        self.lab.exec(host, "sh", "-c", "printf %s \"$1\" > /tmp/card", "sh", card)
        words = [word for port in ports for word in ("--port", port)]
        return self.godwit(host, "host", "trust", "add", "/tmp/card", "--as", name, *words, *options,
                           expect=expect)

    def is_up(self, host, peer):
        return any(h["name"] == peer and h["state"] == "up"
                   for fleet in self.get(host, "/trust") or [] for h in fleet["hosts"])

    def uplink(self, host, name, tenant="default"):
        self.godwit(host, "port", "add", name, "--uplink", "--address", f"{ADDRESSES[host]}/24", "--tenant", tenant)

    def passes(self, host, other):
        return self.lab.exec(host, "ping", "-c1", "-W1", ADDRESSES[other], check=False).returncode == 0

    def ally(self):
        """a1 and b1 trust each other for a port each, which are joined."""
        self.uplink("a1", "lan-a", tenant="red")
        self.uplink("b1", "lan-b", tenant="blue")
        self.trust("a1", "b1", "beta", "lan-a")
        self.trust("b1", "a1", "alpha", "lan-b")
        wait_until(lambda: self.is_up("a1", "b1@beta") and self.is_up("b1", "a1@alpha"), 20, self.logs)
        self.godwit("a1", "connect", "lan-a", "b1@beta/lan-b")
        wait_until(lambda: self.passes("a1", "b1"), 20, self.logs)

    def tidy(self):
        for host in self.sites:
            for fleet in self.get(host, "/trust"):
                self.godwit(host, "host", "trust", "rm", fleet["fleet"])
        super().tidy()


@pytest.fixture(scope="module")
def shared_fleets(lab_program, tmp_path_factory):
    lab = Lab(lab_program)
    try:
        yield Fleets(lab, tmp_path_factory.mktemp("trust"))
    finally:
        lab.down()


@pytest.fixture
def fleets(shared_fleets):
    yield shared_fleets
    shared_fleets.tidy()


def wires(fleets, host):
    return {(w["a"]["port"], w["b"]["host"] + "/" + w["b"]["port"]): w for w in fleets.get(host, "/wires")}


def test_a_wire_joins_named_ports_of_two_fleets(fleets):
    fleets.ally()
    assert wires(fleets, "a1")[("lan-a", "b1@beta/lan-b")]["tenant"] == "red"
    assert wires(fleets, "b1")[("lan-b", "a1@alpha/lan-a")]["tenant"] == "blue"
    fleets.godwit("a1", "connect", "lan-a", "b1@beta/lan-b")  # harmless
    assert "b1@beta" in fleets.godwit("a1", "host", "ls").stdout
    assert [h["name"] for h in fleets.get("a2", "/hosts")] == ["a2", "a1"]
    (shown,) = fleets.json("a1", "host", "trust", "ls")
    card = json.loads(fleets.godwit("b1", "host", "trust", "offer").stdout)
    assert shown["fleet"] == "beta" and shown["fingerprint"] == card["fingerprint"]
    assert shown["ports"] == [{"name": "lan-a", "tenant": "red"}]
    assert "PRIVATE" not in json.dumps(card)
    added = next(e for e in fleets.json("a1", "audit", "ls") if e["did"] == "POST /v1/trust")
    assert added["on"] == {"fleet": "beta", "fingerprint": card["fingerprint"], "ports": ["lan-a"]}, added

    # Both come back by themselves.
    fleets.restart_agents("a1", "b1")
    wait_until(lambda: fleets.passes("a1", "b1"), 30, fleets.logs)

    # Trust that ends is over at once, at both ends.
    fleets.godwit("b1", "host", "trust", "rm", "alpha")
    assert wires(fleets, "b1") == {} and fleets.get("b1", "/trust") == []
    assert not fleets.passes("a1", "b1")
    wait_until(lambda: wires(fleets, "a1") == {} and not fleets.is_up("a1", "b1@beta"), 10, fleets.logs)
    fleets.godwit("b1", "host", "trust", "rm", "alpha")  # harmless
    refused = fleets.godwit("a1", "connect", "lan-a", "b1@beta/lan-b", expect=1).stderr
    assert "no session" in refused and "host trust ls" in refused, refused
    wait_until(lambda: "refused our certificate" in fleets.godwit("a1", "host", "trust", "show", "beta").stdout,
               20, fleets.logs)


def test_what_is_not_trusted_is_not_there(fleets):
    fleets.ally()
    for name in ("other-a", "late"):
        fleets.godwit("a1", "port", "add", name, "--tenant", "red")
    fleets.godwit("b1", "port", "add", "secret-b", "--tenant", "blue")

    def refusal(a, b, host="a1"):
        return fleets.godwit(host, "connect", a, b, expect=1).stderr

    fleets.godwit("a1", "disconnect", "lan-a", "b1@beta/lan-b")
    assert wires(fleets, "a1") == {} and wires(fleets, "b1") == {}
    # A port of theirs that is there, and one that is not.
    there, nowhere = refusal("lan-a", "b1@beta/secret-b"), refusal("lan-a", "b1@beta/nothing")
    assert there.replace("secret-b", "nothing") == nowhere and "host trust add" in there, there
    # A port of ours for which they are not trusted: refused here, and there if we asked all the same.
    assert "--port other-a" in refusal("other-a", "b1@beta/lan-b")
    assert "shows us no port 'other-a'" in refusal("lan-b", "a1@alpha/other-a", host="b1")
    # A host of their fleet that we have no session with, and one of no fleet that is known.
    assert "no session" in refusal("lan-a", "b2@beta/lan-b")
    assert "no session" in refusal("lan-a", "b1@gamma/lan-b")
    # A local port is none of theirs, whatever it is called.
    assert "no port 'lan-b'" in refusal("lan-a", "lan-b")
    # Of another tenant by now.
    fleets.trust("a1", "b1", "beta", "late", options=("--tenant", "red"))
    fleets.godwit("a1", "port", "rm", "late")
    fleets.godwit("a1", "port", "add", "late", "--tenant", "green")
    assert "--port late" in refusal("late", "b1@beta/lan-b")
    assert "shows us no port 'late'" in refusal("lan-b", "a1@alpha/late", host="b1")
    wrong = fleets.trust("a1", "b1", "beta", "lan-a", options=("--tenant", "green"), expect=1).stderr
    assert "is of tenant red" in wrong, wrong
    # One port less: its wire is cut, the fleet stays.
    fleets.godwit("a1", "connect", "lan-a", "b1@beta/lan-b")
    fleets.godwit("a1", "host", "trust", "rm", "beta", "--port", "lan-a")
    assert wires(fleets, "a1") == {} and fleets.is_up("a1", "b1@beta")
    wait_until(lambda: wires(fleets, "b1") == {}, 10, fleets.logs)
    assert "--port lan-a" in refusal("lan-a", "b1@beta/lan-b")


def test_trust_is_of_both_or_of_none_and_of_one_ca(fleets):
    fleets.ally()
    # One-sided: a1 has not taken c1's card.
    fleets.uplink("c1", "lan-c")
    fleets.trust("c1", "a1", "alpha", "lan-c")
    assert "no session" in fleets.godwit("c1", "connect", "lan-c", "a1@alpha/lan-a", expect=1).stderr
    wait_until(lambda: "does not trust" in fleets.log("a1"), 10, fleets.logs)
    # A third fleet, trusted for another port: not for this one, nor for its wire.
    fleets.godwit("a1", "port", "add", "for-c", "--tenant", "red")
    fleets.trust("a1", "c1", "gamma", "for-c")
    wait_until(lambda: fleets.is_up("c1", "a1@alpha"), 20, fleets.logs)
    assert "shows us no port" in fleets.godwit("c1", "connect", "lan-c", "a1@alpha/lan-a", expect=1).stderr
    # It is called b1 of a fleet b1, and is not: a1 knows beta by its CA.
    fleets.uplink("f1", "lan-b")
    taken = fleets.trust("a1", "f1", "beta", "lan-a", expect=1).stderr
    assert "another fleet is known here as beta" in taken and "--as" in taken, taken
    fleets.trust("f1", "a1", "alpha", "lan-b")
    assert "no session" in fleets.godwit("f1", "connect", "lan-b", "a1@alpha/lan-a", expect=1).stderr
    wait_until(lambda: "refused our certificate" in
               fleets.godwit("f1", "host", "trust", "show", "alpha").stdout, 10, fleets.logs)
    (beta,) = [fleet for fleet in fleets.get("a1", "/trust") if fleet["fleet"] == "beta"]
    assert [host["name"] for host in beta["hosts"]] == ["b1@beta"]
    assert fleets.passes("a1", "b1")
    # Our own fleet is none to trust; neither is one that is called like it, unless it is called otherwise.
    assert "our own fleet" in fleets.trust("a1", "a2", "beta", "lan-a", expect=1).stderr
    assert "our own fleet is called a1" in fleets.trust("a1", "f1", "a1", "lan-a", expect=1).stderr
    damaged = fleets.lab.exec("a1", "sh", "-c", "sed 's/\\(\"fleet\": \\)\"b1/\\1\"b9/' /tmp/card > /tmp/bad; "
                              f"{fleets.bin}/godwit host trust add /tmp/bad --port lan-a", check=False)
    assert damaged.returncode == 1 and "was changed" in damaged.stderr, damaged


# What an agent of another fleet would say that keeps to no rule: the identity of b2, which a1 has no card of but
# whose fleet it trusts. Requests as JSON lines on standard input; answers as lines.
STRANGER = r"""
import json, socket, ssl, struct, subprocess, sys
address, alpn, chooses = sys.argv[1], sys.argv[2], sys.argv[3] == 'True'
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
tls.load_cert_chain('/var/lib/godwit/host.pem', '/var/lib/godwit/host.key')
tls.set_alpn_protocols([alpn])
peer = tls.wrap_socket(socket.create_connection((address, 4747), 10))
peer.settimeout(10)
def say(kind, id, method, body):
    rest = struct.pack('>BBHQB', 1, kind, 0, id, len(method)) + method.encode() + json.dumps(body).encode()
    peer.sendall(struct.pack('>I', len(rest)) + rest)
def exactly(count):
    data = b''
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more: raise EOFError
        data += more
    return data
def hear():
    rest = exactly(struct.unpack('>I', exactly(4))[0])
    _, kind, _, id, size = struct.unpack('>BBHQB', rest[:13])
    return kind, id, rest[13:13 + size].decode(), rest[13 + size:]
try:
    say(4, 0, 'session.hello', {'instance': 'stranger', 'replaces': True, 'protocol': 15, 'oldest_protocol': 1})
    while True:
        _, _, method, _ = hear()
        if method == 'session.hello' and chooses:
            say(4, 0, 'session.select', {})
            break
        if method == 'session.select': break
    for number, line in enumerate(sys.stdin, 1):
        kind, method, body = json.loads(line)
        if kind == 'push':
            say(4, 0, method, body)
            continue
        say(1, number, method, body)
        while True:
            kind, id, _, answer = hear()
            if kind in (2, 3) and id == number: break
        print(json.dumps([method, 'reply' if kind == 2 else 'error', answer.decode()]), flush=True)
except (OSError, EOFError) as error:
    print(json.dumps(['', 'refused', str(error)]))
"""


def stranger(fleets, requests=(), alpn="godwit-trust/1", host="b2"):
    prints = [json.loads(fleets.godwit(h, "host", "trust", "offer").stdout)["fingerprint"] for h in (host, "a1")]
    address = fleets.lab.node("a1")["announced"][0].rsplit(":", 1)[0]
    process = fleets.lab.python(host, STRANGER, address, alpn, str(prints[0] < prints[1]), stdin=-1)
    out, _ = process.communicate("".join(json.dumps(each) + "\n" for each in requests), timeout=60)
    return [json.loads(line) for line in out.splitlines()]


def test_a_foreign_host_may_ask_for_its_ports_and_nothing_else(fleets):
    fleets.ally()
    fleets.godwit("a1", "port", "add", "mine", "--tenant", "red")
    ids = {port["name"]: port["id"] for port in fleets.get("a1", "/ports")}
    fleets.uplink("a2", "lan-a2", tenant="red")
    fleets.godwit("a1", "connect", "mine", "lan-a2")
    inner = wires(fleets, "a1")[("mine", "a2/lan-a2")]["id"]
    outer = wires(fleets, "a1")[("lan-a", "b1@beta/lan-b")]["id"]
    other = "ab" * 16

    def attach(port, wire=other, remote="cd" * 16):
        return {"id": wire, "local": port, "remote": remote, "remote_name": "x", "remote_host": "b2",
                "remote_epoch": 1, "tenant": "red"}

    asked = [["request", method, body] for method, body in (
        ("migration.preflight", {"spec": {}}), ("migration.prepare", {"id": other}), ("migration.after", {"id": other}),
        ("component.preflight", {}), ("replica.check", {}), ("libvirt.prepare", {}), ("api.call", {
            "method": "GET", "path": "/v1/hosts", "query": "", "caller": {"role": "operator", "name": "x"}}),
        ("relay.call", {"to": "a2", "ticket": "a" * 32}), ("relay.answer", {"from": "a2", "ticket": "a" * 32}),
        ("wire.connect", {"a": "a1/mine", "b": "a1/lan-a"}), ("wire.disconnect", {"a": "a1/mine", "b": "a2/lan-a2"}),
        ("wire.attach", attach(ids["mine"])), ("wire.attach", attach(other)),  # untrusted; not there
        ("wire.attach", attach(ids["lan-a"])),               # has a wire
        ("wire.attach", attach(ids["lan-a"], wire=inner)), ("wire.attach", attach(ids["lan-a"], wire=outer)))]
    found = [["request", "port.find", body] for body in (
        {"name": "lan-a"}, {"name": "mine"}, {"name": "nothing"}, {"id": ids["mine"]}, {"id": ids["lan-a"]})]
    rest = [["push", "hosts", [{"host": "evil", "site": "s", "addresses": []}]],
            ["push", "revoked", {"pem": ""}],
            ["request", "wire.detach", {"id": inner}],
            ["request", "wire.check", {"wires": [{"id": other, "port": ids["lan-a"]}, {"id": other, "port": other}]}]]
    answers = stranger(fleets, asked + found + rest)
    refused, told = answers[:len(asked)], answers[len(asked):]
    assert [kind for _, kind, _ in refused] == ["error"] * len(asked), refused
    assert refused[11][2] == refused[12][2], refused  # an untrusted port is as if it were not there
    assert "b1" not in refused[13][2] and "lan-b" not in refused[13][2], refused  # nor is told who has the wire
    lan_a = {"id": ids["lan-a"], "name": "lan-a", "epoch": 1}
    assert [json.loads(answer) for _, _, answer in told] == [
        lan_a, {}, {}, {}, lan_a, {}, {"unknown": [other]}], told
    # Nothing has come of it.
    assert fleets.passes("a1", "b1") and ("mine", "a2/lan-a2") in wires(fleets, "a1")
    assert len(fleets.get("a1", "/hosts")) == 2
    assert fleets.log("a1").count("no host of another fleet may") >= 1

    # Its certificate opens no other protocol here, and another fleet's not this one.
    for alpn in ("godwit-session/1", "godwit-lane/1", "godwit-relay/1", "http/1.1"):
        ((_, outcome, _),) = stranger(fleets, asked[:1], alpn=alpn)
        assert outcome == "refused", alpn
    for host in ("c1", "f1"):
        ((_, outcome, _),) = stranger(fleets, asked[:1], host=host)
        assert outcome == "refused", host
    fleets.godwit("a1", "disconnect", "mine", "a2/lan-a2")


def test_a_component_moves_within_its_fleet_and_keeps_its_wire(fleets):
    """lan-a at a1 -- sw1, from a1 to a2 -- lan-b at b1."""
    fleets.uplink("a1", "lan-a")
    fleets.uplink("b1", "lan-b")
    fleets.godwit("a1", "component", "add", "sw1", "--ports", "2")
    fleets.trust("a1", "b1", "beta", "sw1-2")
    fleets.trust("b1", "a1", "alpha", "lan-b")
    wait_until(lambda: fleets.is_up("a1", "b1@beta"), 20, fleets.logs)
    fleets.godwit("a1", "connect", "lan-a", "sw1-1")
    fleets.godwit("b1", "connect", "lan-b", "a1@alpha/sw1-2")
    wait_until(lambda: fleets.passes("a1", "b1"), 20, fleets.logs)
    refused = fleets.godwit("a1", "migrate", "component/sw1", "--to", "a2", expect=3).stderr
    assert "host trust add" in refused and "disconnect" in refused, refused
    fleets.trust("a2", "b1", "beta", "sw1-2")
    wait_until(lambda: fleets.is_up("a2", "b1@beta"), 20, fleets.logs)
    pings = fleets.popen("a1", "ping", "-q", "-i0.02", "-c150", ADDRESSES["b1"])
    fleets.godwit("a1", "migrate", "component/sw1", "--to", "a2")
    assert " 0% packet loss" in pings.communicate(timeout=60)[0]
    wait_until(lambda: ("lan-b", "a2@alpha/sw1-2") in wires(fleets, "b1"), 10, fleets.logs)
    # A restarted agent finds it there.
    fleets.restart_agents("b1", "a2")
    wait_until(lambda: fleets.passes("a1", "b1"), 30, fleets.logs)


@pytest.mark.thorough  # a guest, and two moves
def test_a_vm_moves_within_its_fleet_and_keeps_its_wire(fleets):
    vm = fleets.new_vm()
    fleets.godwit("a1", "vm", "run", vm.name, "--memory", "96MiB", "--kernel", fleets.guest / "vmlinuz",
                  "--initrd", fleets.guest / "initrd.img", "--nic", vm.port,
                  "--append", f"{BOOT_WORDS} godwit.ip={vm.address}/24 godwit.dirty=1mbit")
    fleets.godwit("b1", "port", "add", vm.uplink, "--uplink", "--address", f"{vm.net}.1/24")
    fleets.trust("a1", "b1", "beta", vm.port)
    fleets.trust("b1", "a1", "alpha", vm.uplink)
    wait_until(lambda: fleets.is_up("a1", "b1@beta"), 20, fleets.logs)
    fleets.godwit("b1", "connect", vm.uplink, f"a1@alpha/{vm.port}")

    def answers():
        return fleets.lab.exec("b1", "ping", "-c1", "-W1", vm.address, check=False).returncode == 0

    wait_until(answers, 60, fleets.logs)
    refused = fleets.godwit("a1", "migrate", vm.name, "--to", "a2", expect=3).stderr
    assert "not trusted" in refused and "host trust add" in refused and "disconnect" in refused, refused
    # Under another name it is another fleet.
    fleets.trust("a2", "b1", "their", vm.port)
    fleets.godwit("a1", "migrate", vm.name, "--to", "a2", expect=3)
    fleets.godwit("a2", "host", "trust", "rm", "their")
    fleets.trust("a2", "b1", "beta", vm.port)
    wait_until(lambda: fleets.is_up("a2", "b1@beta"), 20, fleets.logs)
    pings = fleets.popen("b1", "ping", "-q", "-i0.02", "-w60", "-c600", vm.address)
    for source, target in (("a1", "a2"), ("a2", "a1")):
        fleets.move(vm, source, target)
        wait_until(lambda t=target: (vm.uplink, f"{t}@alpha/{vm.port}") in wires(fleets, "b1"), 10, fleets.logs)
        assert (vm.port, f"b1@beta/{vm.uplink}") in wires(fleets, target)
    text, _ = pings.communicate(timeout=90)
    assert " 0% packet loss" in text, text
    # What the wire became is what is kept.
    fleets.restart_agents("a1", "b1")
    wait_until(answers, 30, fleets.logs)
    fleets.godwit("a1", "host", "trust", "rm", "beta")
    assert not answers()
