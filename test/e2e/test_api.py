"""The API over the network: users of the fleet on host `client`, the agents of e1 and w1. Topology:
fleet.py. e1 has founded the fleet.
"""

import json
import os
import shutil
import subprocess

import pytest
from conftest import PYTHON, ROOT, build_directory, wait_until
from fleet import ADDRESSES, SOCKET

PORT = 4747


@pytest.fixture(scope="module")
def users(shared_fleet):
    """Identities on `client`, by name: /root/NAME.pem."""
    made = {"olga": ("operator", None), "rita": ("operator", "red"), "vera": ("viewer", None),
            "bert": ("viewer", "blue")}
    for name, (role, tenant) in made.items():
        certify(shared_fleet, name, role, tenant)
    return {name: identity(name) for name in made}


def identity(name):
    return f"/tmp/{name}.pem"


def certify(fleet, name, role, tenant=None, ttl="1h"):
    """What `godwit user add` prints on the founder, carried to the user's own machine."""
    of = ["--tenant", tenant] if tenant else []
    pem = fleet.godwit("e1", "user", "add", name, "--role", role, *of, "--ttl", ttl,
                       "--out", "-").stdout
    fleet.lab.exec("client", "sh", "-c", "umask 077; printf %s \"$1\" > \"$2\"", "sh", pem,
                   identity(name))


def remote(fleet, name, host, *words, expect=0):
    return fleet.godwit("client", "-H", host, "--identity", identity(name), *words, expect=expect)


def remote_json(fleet, name, host, *words):
    return json.loads(remote(fleet, name, host, *words, "--json").stdout)


# Another's client: Python's TLS and HTTP. Arguments: address, host's name, identity.
CLIENT = """
import http.client, json, os, socket, ssl, sys, time
address, name, pem = sys.argv[1:4]
def context(certificate=True, alpn='http/1.1'):
    tls = ssl.create_default_context(cafile=pem)
    if certificate: tls.load_cert_chain(pem)
    tls.set_alpn_protocols([alpn])
    return tls
def connect(**how):
    raw = socket.create_connection((address, 4747), 10)
    return context(**how).wrap_socket(raw, server_hostname=name)
def ask(method, path, body=None, field=''):
    with connect() as tls:
        text = b'' if body is None else json.dumps(body).encode()
        tls.sendall(f'{method} {path} HTTP/1.1\\r\\nHost: {name}\\r\\n{field}'
                    f'Content-Length: {len(text)}\\r\\nConnection: close\\r\\n\\r\\n'.encode() + text)
        answer = http.client.HTTPResponse(tls)
        answer.begin()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
"""


def python(fleet, user, code, host="e1"):
    done = fleet.lab.exec("client", PYTHON, "-c", CLIENT + code, ADDRESSES[host], host,
                          identity(user), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def unix(fleet, host, method, path, body=None):
    """One request on the agent's socket: (status, the body's text)."""
    code = ("import http.client, socket, sys\n"
            "c = http.client.HTTPConnection('e1'); c.sock = socket.socket(socket.AF_UNIX)\n"
            f"c.sock.connect('{SOCKET}')\n"
            "c.request(sys.argv[1], sys.argv[2], sys.argv[3] or None)\n"
            "a = c.getresponse(); print(a.status); print(a.read().decode(), end='')\n")
    text = fleet.lab.exec(host, PYTHON, "-c", code, method, path,
                          "" if body is None else json.dumps(body)).stdout
    status, _, rest = text.partition("\n")
    return int(status), rest


# ---- the document ----


def closed(schema):
    """As strict as a test must be: what is not documented is wrong."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: closed(value) for key, value in schema.items()}
    if "properties" in schema and "additionalProperties" not in schema:
        out["additionalProperties"] = False
    return out


class Document:
    """openapi.json as the agent serves it, and answers held against it."""

    def __init__(self, text):
        import jsonschema
        self.jsonschema = jsonschema
        self.json = json.loads(text)
        self.seen = set()

    def check(self, method, route, status, text):
        operation = self.json["paths"][route][method.lower()]
        answer = operation["responses"][str(status)]
        if "$ref" in answer:
            answer = self.json["components"]["responses"][answer["$ref"].rsplit("/", 1)[1]]
        schema = answer["content"]["application/json"]["schema"]
        components = closed(self.json["components"])
        whole = {**closed(schema), "components": components}
        self.jsonschema.Draft202012Validator(whole).validate(json.loads(text))
        self.seen.add((method.lower(), route))


def parse_metrics(text):
    from prometheus_client.parser import text_string_to_metric_families
    return {(s.name, tuple(sorted(s.labels.items()))): s.value
            for family in text_string_to_metric_families(text) for s in family.samples}


def value(metrics, name, **labels):
    found = [v for (n, have), v in metrics.items()
             if n == name and labels.items() <= dict(have).items()]
    assert len(found) == 1, (name, labels, found)
    return found[0]


@pytest.mark.drawn
def test_an_operator_moves_a_vm_from_afar(fleet, users):
    """From its start to its end through the network; answers, events, figures and records on the way."""
    document = Document(unix(fleet, "e1", "GET", "/v1/openapi.json")[1])

    def ask(method, route, status=200, body=None, host="e1", **names):
        got, text = unix(fleet, host, method, route.format(**names), body)
        assert got == status, (method, route, got, text)
        document.check(method, route, status, text)
        return json.loads(text)

    vm = fleet.run_vm(disks=["root,size=64MiB"])
    before = parse_metrics(unix(fleet, "e1", "GET", "/metrics")[1])
    assert [v["name"] for v in remote_json(fleet, "olga", "e1", "vm", "ls")] == [vm.name]
    assert [p["name"] for p in remote_json(fleet, "olga", "client", "port", "ls")] == [vm.uplink]
    assert remote_json(fleet, "rita", "e1", "vm", "ls") == []  # the vm is of tenant default
    for user in ("rita", "vera"):
        done = remote(fleet, user, "e1", "migrate", vm.name, "--to", "w1", expect=None)
        assert done.returncode in (1, 3), done
        assert "is a viewer" in done.stderr or "no running vm" in done.stderr, done.stderr
    moved = remote(fleet, "olga", "e1", "migrate", vm.name, "--to", "w1", *fleet.PATIENT)
    assert fleet.where(vm.name) == ["w1"] and "moved from e1 to w1" in moved.stdout, moved.stdout
    assert "pause" in moved.stdout
    move = fleet.last_migration("e1", vm)
    assert move["by"] == "olga" and fleet.last_migration("w1", vm)["by"] == "olga"
    ask("POST", "/v1/migrations/{id}/cutover", id=move["id"])  # harmless: it has handed over

    # Who did what: here, and where it came to.
    audit = ask("GET", "/v1/audit")
    begun = next(e for e in audit if e["did"] == "POST /v1/migrations" and e["status"] == 202)
    assert begun["who"] == "olga" and begun["role"] == "operator", begun
    assert begun["on"] == {"vm": vm.name, "to": "w1", "id": move["id"]}, begun
    assert begun["from"].startswith("10.66.1.11:") and begun["certificate"], begun
    done = next(e for e in audit if e["did"] == "migration done")
    assert done["who"] == "olga" and done["on"]["id"] == move["id"] and done["pause_ms"] > 0, done
    arrived = fleet.json("w1", "audit", "ls", "--since", "1h")[-1]
    assert arrived["did"] == "migration arrived" and arrived["who"] == "olga", arrived
    refused = [e for e in audit if e.get("status") == 403]
    assert {e["who"] for e in refused} == {"vera"}, refused
    assert "olga" in fleet.godwit("e1", "audit", "ls").stdout

    # The figures have moved with it.
    after = parse_metrics(unix(fleet, "e1", "GET", "/metrics")[1])
    assert value(after, "godwit_migrations_total", tenant="default", outcome="done") >= 1
    assert value(after, "godwit_migration_pause_seconds_count", tenant="default") >= 1
    parts = sum(v for (n, _), v in after.items() if n == "godwit_migration_pause_part_seconds_total")
    assert parts == pytest.approx(value(after, "godwit_migration_pause_seconds_sum",
                                        tenant="default"), abs=0.002)
    assert value(after, "godwit_migration_bytes_total", kind="wan") > 1e6
    assert value(after, "process_open_fds") > 10
    assert value(after, "process_resident_memory_bytes") > 1e6
    assert value(after, "godwit_loop_round_seconds_count") > value(before,
                                                                   "godwit_loop_round_seconds_count")
    assert value(after, "godwit_session_up", peer="w1") == 1
    assert value(after, "godwit_session_rtt_seconds", peer="w1") > 0.03
    at_target = parse_metrics(python(fleet, "vera", "print(ask('GET', '/metrics')[2])", host="w1"))
    assert value(at_target, "godwit_migrations_arrived_total", tenant="default") == 1
    frames = [value(at_target, "godwit_wire_frames_total", port=vm.port, direction=way)
              for way in ("tx", "rx")]
    for _ in range(5):
        assert vm.ping()
    again = parse_metrics(unix(fleet, "w1", "GET", "/metrics")[1])
    for way, count in zip(("tx", "rx"), frames):
        assert value(again, "godwit_wire_frames_total", port=vm.port, direction=way) >= count + 5
    others = python(fleet, "rita", "print(ask('GET', '/metrics')[2])", host="w1")
    assert vm.port not in others and "godwit_info" in others

    # A move that goes on tells what it does, and is gone from the figures when it is over.
    identifier = fleet.begin_move(vm, "w1", "e1", "--bandwidth", "4mbit")
    labels = {"migration": identifier, "vm": vm.name, "tenant": "default", "to": "e1"}

    def running():
        return parse_metrics(unix(fleet, "w1", "GET", "/metrics")[1])

    def known():
        figures = running()
        told = {name: value(figures, f"godwit_migration_{name}", **labels)
                for name in ("rate_bytes_per_second", "effective_rate_bytes_per_second",
                             "predicted_pause_seconds", "cpu_seconds_total")
                if any(n == f"godwit_migration_{name}" for n, _ in figures)}
        if len(told) < 4 or not all(told.values()):
            return None
        compressed = value(figures, "godwit_migration_encoding_output_bytes_total", encoding="zstd", **labels)
        return figures if compressed > 1e4 else None

    figures = wait_until(known, 20, "rates and a predicted pause")
    shown = ask("GET", "/v1/migrations/{id}", host="w1", id=identifier)["progress"]["encodings"]
    encodings = {use["name"] for use in shown}
    assert {"zero", "literal", "zstd"} < encodings, shown

    def by_encoding(kind):
        return {encoding: value(figures, f"godwit_migration_encoding_{kind}_total", encoding=encoding, **labels)
                for encoding in encodings}

    pages, given, left = map(by_encoding, ("pages", "input_bytes", "output_bytes"))
    assert sum(pages.values()) > 1000 and pages["zero"] > 0, pages
    # zstd takes a batch of 1 MiB at a time.
    assert 0 <= sum(left.values()) - left["zstd"] - given["zstd"] < 2 << 20, (left, given)
    assert sum(given.values()) - given["zstd"] > given["zstd"] > left["zstd"] > 1e4, (given, left)
    assert identifier not in python(fleet, "rita", "print(ask('GET', '/metrics')[2])", host="w1")
    ask("POST", "/v1/migrations/{id}/abort", host="w1", id=identifier)
    fleet.wait_for_state("w1", identifier, "aborted")
    assert not any(n.startswith("godwit_migration_encoding") for n, _ in running())

    def replica(method, status, route="", **more):
        return ask(method, "/v1/replicas/{vm}/{to}" + route, status, host="w1", vm=vm.name, to="e1", **more)

    ask("POST", "/v1/replicas", 404, host="w1", body={"vm": "nobody", "to": "e1"})
    ask("POST", "/v1/replicas", 400, host="w1", body={"vm": vm.name, "to": "e1", "every": "soon"})
    ask("POST", "/v1/replicas", 201, host="w1", body={"vm": vm.name, "to": "e1", "every": "1h"})
    wait_until(lambda: replica("GET", 200)["runs"], 40, "a replica")
    changed = ask("POST", "/v1/replicas", 200, host="w1", body={"vm": vm.name, "to": "e1", "rate": "100mbit"})
    assert (changed["rate_bps"], changed["every_s"]) == (100_000_000, 3600)
    replica("POST", 200, "/sync")
    assert ask("GET", "/v1/disks")[0]["replica_from"] == "w1"
    assert len(ask("GET", "/v1/replicas", host="w1")) == 1
    assert value(running(), "godwit_replica_behind_seconds", vm=vm.name, to="e1", tenant="default") < 60
    replica("DELETE", 200)
    for method, route in (("GET", ""), ("POST", "/sync"), ("DELETE", "")):
        replica(method, 404, route)
    # Real answers are what is documented.
    for host in ("e1", "w1", "client"):
        for route in ("/v1/host", "/v1/hosts", "/v1/ports", "/v1/wires", "/v1/vms", "/v1/migrations",
                      "/v1/audit", "/v1/users", "/v1/card", "/v1/trust", "/v1/rules",
                      "/v1/fleet-rules", "/v1/rules/verify", "/v1/fabric"):
            ask("GET", route, host=host)
    assert [host["ok"] for host in ask("GET", "/v1/rules/verify")["hosts"]] == [True] * 3
    ask("POST", "/v1/rules/prune", body={})
    ask("POST", "/v1/rules/prune", body={"guest": "a" * 32})
    ask("POST", "/v1/rules/prune", 400, body={"guest": 7})
    fabric = {"name": "dc", "tiers": ["edge"],
              "devices": {"r1": {"tier": "edge", "networks": ["10.66.1.0/24"], "hosts": ["e1"], "outside": True}}}
    ask("POST", "/v1/fabric", body=fabric)
    wait_until(lambda: ask("GET", "/v1/fabric", host="w1")["file"] == fabric, 10, "w1 knows the fabric")
    ask("POST", "/v1/fabric", 400, body=[])
    ask("POST", "/v1/fabric", 409, body={"tiers": "edge"})
    assert "r1" in remote(fleet, "olga", "e1", "fabric", "show").stdout
    for user in ("rita", "olga"):  # a tenant's, and no root
        assert remote(fleet, user, "e1", "fabric", "rm", expect=None).returncode != 0
    assert remote(fleet, "rita", "e1", "fabric", "show", expect=None).returncode != 0
    ask("DELETE", "/v1/fabric")
    wait_until(lambda: ask("GET", "/v1/fabric", host="w1")["file"] is None, 10, "w1 forgets it")
    assert "of our own fleet" in ask("POST", "/v1/trust", 409, body={"card": ask("GET", "/v1/card"), "ports": ["p"]})[
        "error"]
    ask("POST", "/v1/trust", 400, body=[])
    ask("DELETE", "/v1/trust/{fleet}", fleet="nobody", body={"ports": ["p"]})
    ask("GET", "/v1/vms/{name}", host="w1", name=vm.name)
    ask("GET", "/v1/vms/{name}", 404, name=vm.name)
    ask("GET", "/v1/migrations/{id}", id=move["id"])
    ask("POST", "/v1/migrations/{id}/abort", 409, id=move["id"])
    ask("POST", "/v1/migrations/{id}/set", 404, id="0" * 32, body={})
    ask("POST", "/v1/migrations/{id}/resolve", 409, id=move["id"], body={})
    ask("POST", "/v1/migrations", 200, host="w1", body={"vm": vm.name, "to": "e1", "dry_run": True})
    ask("POST", "/v1/migrations", 409, body={"vm": "nobody", "to": "w1"})
    ask("POST", "/v1/ports", body={"name": "spare"})
    ask("DELETE", "/v1/ports/{name}", name="spare")
    ask("POST", "/v1/ports", body={"name": "of-a-guest", "kind": "uplink", "guest_addresses": ["10.66.1.77"]})
    ask("POST", "/v1/ports", 409, body={"name": "other", "kind": "uplink", "guest_addresses": ["10.66.1.77"]})
    ask("POST", "/v1/ports", 409, body={"name": "nic", "guest_addresses": ["10.66.1.78"]})
    assert any("guest_addresses" in port for port in ask("GET", "/v1/ports"))
    ask("DELETE", "/v1/ports/{name}", name="of-a-guest")
    ask("DELETE", "/v1/ports/{name}", 409, host="w1", name=vm.port)
    ends = {"a": f"client/{vm.uplink}", "b": f"w1/{vm.port}"}
    ask("POST", "/v1/wires", host="w1", body=ends)
    ask("DELETE", "/v1/wires", host="w1", body=ends)
    ask("DELETE", "/v1/wires", 400, body={})
    ask("POST", "/v1/invites", body={})
    ask("POST", "/v1/join", 409, body={"target": "a" * 64 + "@10.66.2.99"})
    ask("POST", "/v1/vms", 409, body={"name": "Bad Name"})
    ask("GET", "/v1/vms/{name}/recording", 400, host="w1", name=vm.name)
    ask("POST", "/v1/vms/{name}/nics", 404, name=vm.name, body={"port": "more"})
    ask("POST", "/v1/vms/{name}/nics", 409, host="w1", name=vm.name, body={"port": "No Name"})
    plugged = ask("POST", "/v1/vms/{name}/nics", host="w1", name=vm.name, body={"port": "more"})
    assert plugged["slot"] == 0 and plugged in ask("GET", "/v1/vms/{name}", host="w1", name=vm.name)["nics"]
    nic = {"host": "w1", "name": vm.name, "port": "more"}
    ask("POST", "/v1/vms/{name}/nics/{port}/network", 409, **nic, body={"addresses": ["10.77.0.7"]})
    ask("POST", "/v1/vms/{name}/nics/{port}/network", 409, **nic, body={"addresses": ["10.77.0.7/24"]})  # no agent in it
    ask("DELETE", "/v1/vms/{name}/nics/{port}/network", **nic)
    ask("DELETE", "/v1/vms/{name}/nics/{port}", **nic)
    ask("POST", "/v1/vms/{name}/stop", host="w1", name=vm.name, body={"force": True})
    ask("POST", "/v1/vms/{name}/start", host="w1", name=vm.name)
    assert ask("GET", "/v1/disks", host="w1")[0]["vm_state"] in ("running", "paused")
    ask("POST", "/v1/vms/{name}/stop", host="w1", name=vm.name, body={"force": True})
    ask("DELETE", "/v1/vms/{name}", 409, host="w1", name=vm.name)  # without a word on its disk
    ask("POST", "/v1/vms/{name}/purge", host="w1", name=vm.name)
    ask("POST", "/v1/vms/{name}/purge", 404, host="w1", name=vm.name)
    assert ask("GET", "/v1/disks") == []  # what it left there went with the move that was aborted
    ask("POST", "/v1/images", 202, body={"name": "base", "file": f"{fleet.guest}/initrd.img"})
    wait_until(lambda: ask("GET", "/v1/images/{name}", name="base")["state"] == "ready", 20, "a copy")
    ask("POST", "/v1/images", 409, body={"name": "base", "file": f"{fleet.guest}/initrd.img"})
    ask("POST", "/v1/images/{name}/verify", 202, name="base")
    assert len(ask("GET", "/v1/images")) == 1
    ask("DELETE", "/v1/images/{name}", name="base")
    ask("DELETE", "/v1/images/{name}", 404, name="base")
    new = {"name": "sw1", "ports": [{"name": "a", "access": 10}, {"name": "b", "trunk": [10], "native": 1}],
           "macs": [{"mac": "52:54:00:00:00:01", "port": "a", "vlan": 10}]}
    ask("POST", "/v1/components", body=new)
    ask("POST", "/v1/components", 409, body={"name": "sw1"})
    ask("GET", "/v1/components")
    assert ask("GET", "/v1/components/{name}", name="sw1")["known_macs"] == 1
    ask("GET", "/v1/components/{name}", 404, name="sw2")
    ask("POST", "/v1/components/{name}", name="sw1", body={"mirror": "b", "remove_ports": ["x"]})
    ask("POST", "/v1/components/{name}", 409, name="sw1", body={"mirror": "c"})
    assert ask("GET", "/v1/components/{name}/{table}", name="sw1", table="macs")[0]["static"]
    ask("GET", "/v1/components/{name}/{table}", 404, name="sw1", table="leases")
    assert {port["kind"] for port in ask("GET", "/v1/ports")} >= {"component"}
    metrics = parse_metrics(unix(fleet, "e1", "GET", "/metrics")[1])
    assert value(metrics, "godwit_component_frames_total", component="sw1", port="a", direction="rx") == 0
    # Of tenant default: not rita's, who may neither see nor remove it.
    assert remote_json(fleet, "rita", "e1", "component", "ls") == []
    remote(fleet, "rita", "e1", "component", "rm", "sw1")
    assert "no component 'sw1'" in remote(fleet, "rita", "e1", "component", "show", "sw1", expect=None).stderr
    ask("DELETE", "/v1/components/{name}", name="sw1")
    assert ask("GET", "/v1/components") == []
    several = ask("POST", "/v1/batch", body={"requests": [
        {"method": "POST", "path": "/v1/ports", "body": {"name": "spare"}},
        {"method": "DELETE", "path": "/v1/ports/spare"}, {"method": "GET", "path": "/v1/vms/nobody"}]})
    assert [one["status"] for one in several] == [200, 200, 404], several
    ask("POST", "/v1/batch", 400, body={"requests": []})
    ask("POST", "/v1/users", 409, body={"name": "x", "role": "root", "csr": ""})
    ask("DELETE", "/v1/users/{name}", name="nobody")
    documented = {(method, path) for path, operations in document.json["paths"].items()
                  for method in operations}
    streams = {("get", "/v1/events"), ("get", "/metrics"), ("get", "/v1/migrations/{id}/events"),
               ("get", "/v1/vms/{name}/console"), ("get", "/v1/openapi.json")}
    assert documented - document.seen == streams


# ---- who is let in ----


def test_the_host_must_be_the_one_that_was_meant(shared_fleet, users):
    fleet = shared_fleet  # nothing to tidy
    assert remote(fleet, "vera", f"e1@{ADDRESSES['e1']}:{PORT}", "vm", "ls").returncode == 0
    assert remote(fleet, "vera", ADDRESSES["e1"], "vm", "ls").returncode == 0  # known by the identity
    done = remote(fleet, "vera", f"w1@{ADDRESSES['e1']}", "vm", "ls", expect=1)
    assert "the host that answered is e1, not w1" in done.stderr, done.stderr
    done = remote(fleet, "vera", "10.66.1.99", "vm", "ls", expect=2)
    assert "NAME@10.66.1.99" in done.stderr, done.stderr


def test_identities_that_are_not_users(shared_fleet, users):
    fleet = shared_fleet  # nothing to tidy
    fleet.lab.exec("client", "chmod", "644", identity("bert"))
    done = remote(fleet, "bert", "e1", "vm", "ls", expect=2)
    assert "mode 644" in done.stderr, done.stderr
    fleet.lab.exec("client", "chmod", "600", identity("bert"))
    # A host's certificate is not an operator's, and no certificate is none.
    out = python(fleet, "vera", """
state = '/var/lib/godwit/'
host = ssl.create_default_context(cafile=pem)
host.load_cert_chain(state + 'host.pem', state + 'host.key')
host.set_alpn_protocols(['http/1.1'])
for tls in (host, context(certificate=False)):
    try:
        with tls.wrap_socket(socket.create_connection((address, 4747), 10), server_hostname=name) as s:
            s.sendall(b'GET /v1/vms HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
            print('let in', s.recv(100))
    except OSError as error:
        print('refused', error)
try:
    with connect(alpn='godwit-session/1') as s: print('let in', s.recv(1))
except OSError as error: print('refused', error)
""")
    assert out.count("refused") == 3 and "let in b'HTTP" not in out, out
    wait_until(lambda: "is not a user's" in fleet.log("e1") and "is not a host's" in fleet.log("e1"), 10,
               lambda: fleet.log("e1"))
    assert fleet.sees_all("e1")


def test_a_revoked_user_is_refused_by_every_host(shared_fleet, users):
    fleet = shared_fleet  # nothing to tidy
    certify(fleet, "eve", "operator")
    events = fleet.lab.python("client", CLIENT + """
tls = connect()
tls.settimeout(30)
tls.sendall(b'GET /v1/events HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
print('listening', tls.recv(1000)[:15], flush=True)
try:
    while tls.recv(1000): pass
except OSError: pass
print('cut', flush=True)
""", ADDRESSES["w1"], "w1", identity("eve"))
    assert "200" in events.stdout.readline()
    assert remote(fleet, "eve", "w1", "vm", "ls").returncode == 0
    fleet.godwit("e1", "user", "rm", "eve")
    assert "cut" in events.communicate(timeout=20)[0]  # also what it had begun
    for host in ("e1", "w1"):
        wait_until(lambda h=host: "was revoked" in
                   remote(fleet, "eve", h, "vm", "ls", expect=None).stderr, 5, f"{host} knows")
    assert "revoked" in fleet.godwit("e1", "user", "ls").stdout
    # An agent that was away learns it when it comes back, and one that comes back has kept it.
    fleet.restart_agent("w1")
    assert "was revoked" in remote(fleet, "eve", "w1", "vm", "ls", expect=1).stderr
    assert remote(fleet, "vera", "w1", "vm", "ls").returncode == 0
    done = fleet.godwit("w1", "user", "add", "mallory", "--role", "operator", expect=1)
    assert "founder" in done.stderr


def test_tenants_apart_over_the_network(shared_fleet, users):
    fleet = shared_fleet  # nothing to tidy
    remote(fleet, "rita", "e1", "port", "add", "red-port")
    remote(fleet, "olga", "e1", "port", "add", "blue-port", "--tenant", "blue")
    try:
        assert [p["name"] for p in remote_json(fleet, "rita", "e1", "port", "ls")] == ["red-port"]
        assert [p["name"] for p in remote_json(fleet, "bert", "e1", "port", "ls")] == ["blue-port"]
        done = remote(fleet, "rita", "e1", "connect", "red-port", "e1/blue-port", expect=1)
        assert "there is no port 'e1/blue-port'" in done.stderr, done.stderr
        # Nor by way of another host's agent.
        done = remote(fleet, "rita", "w1", "connect", "e1/red-port", "e1/blue-port", expect=1)
        assert "there is no port" in done.stderr, done.stderr
        done = remote(fleet, "rita", "e1", "port", "add", "x", "--tenant", "blue", expect=None)
        assert "tenant red only" in done.stderr, done.stderr
        done = remote(fleet, "rita", "e1", "vm", "run", "x", "--kernel", "/etc/shadow", expect=1)
        assert "godwit-images/red" in done.stderr, done.stderr
    finally:
        remote(fleet, "rita", "e1", "port", "rm", "red-port")
        remote(fleet, "olga", "e1", "port", "rm", "blue-port")


def test_events_go_on_after_a_break(fleet, users):
    code = """
def events(after, until):
    seen, last = [], after
    with connect() as tls:
        tls.settimeout(20)
        field = f'Last-Event-ID: {after}\\r\\n' if after else ''
        tls.sendall(f'GET /v1/events HTTP/1.1\\r\\nHost: x\\r\\n{field}\\r\\n'.encode())
        lines = tls.makefile()
        while not lines.readline().startswith('Connection'): pass
        if not after:
            print('listening', flush=True)
        for line in lines:
            if line.startswith('id: '): last = line[4:].strip()
            if line.startswith('data: '):
                seen.append(json.loads(line[6:]).get('name', ''))
                if seen[-1] == until: return seen, last
seen, last = events('', 'p1')
print('broken', flush=True)
sys.stdin.readline()
print(events(last, 'p3')[0])
"""
    listener = fleet.lab.python("client", CLIENT + code, ADDRESSES["e1"], "e1", identity("bert"),
                                stdin=subprocess.PIPE)
    try:
        assert "listening" in listener.stdout.readline()
        for port, tenant in (("q1", "red"), ("p1", "blue")):
            fleet.godwit("e1", "port", "add", port, "--tenant", tenant)
        assert "broken" in listener.stdout.readline()
        for port, tenant in (("p2", "blue"), ("q2", "red"), ("p3", "blue")):
            fleet.godwit("e1", "port", "add", port, "--tenant", tenant)
        out, _ = listener.communicate("go on\n", timeout=30)
    finally:
        listener.kill()
    assert "['p2', 'p3']" in out, out


# ---- hostile clients ----


@pytest.mark.thorough  # what is slow is cut after 10 s; src/agent/api_test.cc has the limits themselves
def test_hostile_clients_cost_only_themselves(shared_fleet, users):
    """With a good certificate: a flood, slow headers, huge ones, too many connections."""
    fleet = shared_fleet  # nothing to tidy
    descriptors = len(os.listdir(f"/proc/{fleet.agent('e1')}/fd"))
    attack = fleet.lab.python("client", CLIENT + """
status = [ask('GET', '/v1/hosts')[0] for _ in range(5)]
assert status == [200] * 5, status
limited, wait = 0, None
with connect() as tls:
    tls.sendall(b'GET /v1/hosts HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' * 300)
    answers = b''
    while answers.count(b'HTTP/1.1 ') < 300: answers += tls.recv(65536)
    print('limited', answers.count(b'HTTP/1.1 429'), answers.count(b'Retry-After: 1'))
with connect() as tls:
    try:
        tls.sendall(b'GET /v1/hosts HTTP/1.1\\r\\n' + b'X: ' + b'y' * 20000 + b'\\r\\n\\r\\n')
        print('header', tls.recv(15))
    except OSError as error: print('header', error)
with connect() as tls:
    try:
        tls.sendall(b'POST /v1/ports HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 99999999\\r\\n\\r\\n')
        print('body', tls.recv(15))
    except OSError as error: print('body', error)
held, refused = [], 0
for _ in range(40):
    tls = connect()
    tls.settimeout(0.3)
    try:
        if tls.recv(1) == b'': refused += 1; continue
    except TimeoutError: pass
    except OSError: refused += 1; continue
    held.append(tls)
print('held', len(held), 'refused', refused, flush=True)
for tls in held: tls.sendall(b'GET /v1/ho')  # and then nothing
sys.stdin.readline()
began = time.monotonic()
for tls in held:
    tls.settimeout(20)
    try: assert tls.recv(1000) == b''
    except OSError: pass
print('slow ones cut', flush=True)
""", ADDRESSES["e1"], "e1", identity("olga"), stdin=subprocess.PIPE)
    try:
        lines = [attack.stdout.readline() for _ in range(4)]
        limited = int(lines[0].split()[1])
        assert 200 <= limited < 300 and lines[0].split()[2] == str(limited), lines
        assert "431" in lines[1] and "413" in lines[2], lines
        held = int(lines[3].split()[1])
        assert held == 16, lines  # http::Server::kMaxPerCaller
        assert len(os.listdir(f"/proc/{fleet.agent('e1')}/fd")) < descriptors + 40
        # Others are served meanwhile, locally and from afar.
        assert fleet.sees_all("e1")
        assert remote(fleet, "vera", "e1", "host", "ls").returncode == 0
        out, _ = attack.communicate("go on\n", timeout=40)
        assert "slow ones cut" in out, out
    finally:
        attack.kill()
        attack.wait()
    wait_until(lambda: len(os.listdir(f"/proc/{fleet.agent('e1')}/fd")) < descriptors + 10, 20,
               "the end of its connections")


# ---- shells and manual pages ----


COMPLETIONS = {
    "godwit mig": {"migrate", "migration"},
    "godwit vm st": {"start", "stop"},
    "godwit migrate --on-diverge ": {"abort", "pause", "throttle", "postcopy"},
    "godwit migrate --on-diverge=p": {"pause", "postcopy"},
    "godwit port rm lan": {"lan-a", "lan-b"},
    "godwit connect lan-a w1/": {"w1/"},
    "godwit migrate x --to w": {"w1", "west"},
    "godwit host show ": {"client", "e1", "w1"},
    "godwit vm run --ker": {"--kernel"},
    "godwit --sock": {"--socket"},
}

BASH = """
eval "$(godwit completion bash)"
COMP_LINE=$1 COMP_POINT=${#1}
read -ra COMP_WORDS <<<"${1//=/ = }"
[[ $1 == *[[:space:]] ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_godwit godwit "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = "godwit completion fish | source; complete -C \"$argv[1]\" | string replace -r '\\t.*' ''; true"
# The function as zsh's completion calls it, with that system's own functions in their shortest form.
ZSH = """
compdef() { : }; _files() { print :file }; _describe() { print -rl -- "${(@P)2}" }
eval "$(godwit completion zsh)"
words=("${(@)${(z)1}}"); [[ $1 == *' ' ]] && words+=(""); CURRENT=$#words
_godwit
"""


def test_shells_complete_words_and_names(fleet):
    for port in ("lan-a", "lan-b"):
        fleet.godwit("e1", "port", "add", port)
    # Nobody answers: nothing is offered, and soon.
    expected = {**COMPLETIONS, "godwit --socket /nonexistent port rm ": set()}
    each = 'PATH=$1:/usr/bin:/bin; shift; for line; do "$SHELL_" $ARGS "$CODE" $NAME "$line"; echo ==; done'

    def complete(shell, arguments, code, name=""):
        """What the shell offers for each line."""
        out = fleet.lab.exec("e1", "env", f"SHELL_={shell}", f"ARGS={arguments}", f"CODE={code}",
                             f"NAME={name}", "sh", "-c", each, "sh", fleet.bin, *expected).stdout
        return dict(zip(expected, (part.split("\n") for part in out.split("==\n"))))

    def check(offered, name_of=lambda word: word):
        for line, names in expected.items():
            assert {name_of(word) for word in offered[line] if word} == names, (line, offered[line])
    check(complete("bash", "-c", BASH, "bash"))
    if shutil.which("zsh"):
        check(complete("zsh", "-f -c", ZSH, "zsh"),
              lambda word: word.partition(":")[0].rpartition("=")[2])
    if shutil.which("fish"):
        check(complete("fish", "-c", FISH), lambda word: word.rpartition("=")[2])


def test_manual_pages_are_current():
    """docs/man is what --help and the prose beside it make."""
    for page in ("godwit.1", "godwitd.8"):
        prose = (ROOT / "docs" / "man" / f"{page}.in").read_text()
        program = build_directory() / "bin" / page.split(".")[0]
        made = subprocess.run([program, "man", prose], capture_output=True, text=True, check=True)
        assert made.stdout == (ROOT / "docs" / "man" / page).read_text(), f"{page}: run ./dev man"
        if shutil.which("mandoc"):
            lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning",
                                   ROOT / "docs" / "man" / page], capture_output=True, text=True)
            assert lint.returncode == 0, lint.stdout
        help_text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
        for word in help_text.stdout.split():
            if word.startswith("--") and word.strip(",") != "--help":
                assert word.partition("=")[0].strip(",.")[2:] in made.stdout.replace("\\-", "-").replace("\\&", ""), word
