"""Where guests are that left their home is published in a real etcd, which runs beside x1's agent and takes only who has
a certificate; h1's and f1's agents have one (examples/abroad)."""

import json
import os
import signal
import subprocess

import pytest
import test_endpoint
from conftest import PYTHON, wait_until
from test_second_nic import Traveller

shared, abroad = test_endpoint.shared, test_endpoint.abroad  # fixtures

PORT = 2379


class Etcd:
    ASK = """if 1:
        import base64, json, ssl, sys, urllib.request
        url, ca, certificate, key = sys.argv[1:]
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(certificate, key)
        body = {'key': base64.b64encode(b'/').decode(), 'range_end': base64.b64encode(b'0').decode()}
        request = urllib.request.Request(url + '/v3/kv/range', json.dumps(body).encode())
        told = json.load(urllib.request.urlopen(request, timeout=5, context=context))
        plain = lambda text: base64.b64decode(text).decode()
        print(json.dumps({plain(each['key']): json.loads(plain(each['value'])) for each in told.get('kvs', [])}))
    """

    def __init__(self, fleet, directory):
        self.fleet, self.directory = fleet, directory
        self.address = fleet.lab.node("x1")["announced"][0]
        self.url = f"https://{self.address}:{PORT}"
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=ca",
                     "-days", "2", "-keyout", "ca.key", "-out", "ca.pem")
        for name, more in (("server", f"subjectAltName=IP:{self.address},IP:127.0.0.1"),
                           ("agent", "basicConstraints=CA:false")):
            self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                         "-keyout", f"{name}.key", "-out", f"{name}.csr")
            (directory / f"{name}.ext").write_text(more)
            self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                         "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem")
        for host in ("x1", "h1", "f1"):
            for file in (*directory.glob("*.pem"), *directory.glob("*.key")):
                put = f"umask 077; cat > {self.of(file.name)} <<'END'\n{file.read_text()}END"
                self.fleet.lab.exec(host, "sh", "-ec", put)
        self.start()

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True, timeout=20)

    @staticmethod
    def of(name):
        """In a host, whose /run is its own."""
        return f"/run/{name}"

    def start(self):
        peer = "http://127.0.0.1:2380"
        self.fleet.lab.run("exec", "--detach", "--log", self.of("etcd.log"), "x1", "--", "etcd", "--data-dir", self.of("etcd-data"),
                           "--listen-client-urls", self.url, "--advertise-client-urls", self.url, "--listen-peer-urls", peer,
                           "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
                           "--client-cert-auth", "--trusted-ca-file", self.of("ca.pem"),
                           "--cert-file", self.of("server.pem"), "--key-file", self.of("server.key"))
        wait_until(lambda: self.all() is not None, 30,
                   lambda: self.fleet.lab.exec("x1", "tail", self.of("etcd.log"), check=False).stdout)

    def stop(self):
        for pid in self.fleet.processes("x1", "etcd"):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.fleet.processes("x1", "etcd"), 10, "etcd is gone")

    def options(self):
        return ("--etcd", self.url, "--etcd-ca", self.of("ca.pem"), "--etcd-certificate", self.of("agent.pem"),
                "--etcd-key", self.of("agent.key"), "--dns-domain", "fleet.example")

    def all(self):
        """All keys, with their values; None: it does not answer."""
        done = self.fleet.lab.exec("x1", PYTHON, "-c", self.ASK, self.url, self.of("ca.pem"), self.of("agent.pem"),
                                   self.of("agent.key"), check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def mapping(self, address):
        return (self.all() or {}).get(f"/godwit/mapping/default/{address}")

    def name(self, vm):
        return ((self.all() or {}).get(f"/skydns/example/fleet/{vm}") or {}).get("host")


@pytest.fixture
def etcd(abroad, tmp_path):
    served = Etcd(abroad, tmp_path)
    for host in ("h1", "f1"):
        abroad.kill_agent(host)
        abroad.start_agent(host, options=served.options())
    wait_until(lambda: abroad.sees_all("h1") and abroad.sees_all("f1"), 60, "all sessions")
    yield served
    served.stop()
    for host in ("h1", "f1"):
        abroad.kill_agent(host)
        abroad.start_agent(host)


def test_who_begins_anew_finds_a_guest_wherever_it_is(abroad, etcd):
    guest = Traveller(abroad, 60)
    home = guest.address
    wait_until(lambda: etcd.name(guest.name) == home, 10, lambda: f"{etcd.all()} {abroad.logs()}")
    assert etcd.mapping(home) is None

    guest.move("--strategy", "secondary-nic")
    new = guest.new_address()
    wait_until(lambda: etcd.mapping(home) and etcd.name(guest.name) == new, 10, lambda: f"{etcd.all()} {abroad.logs()}")
    mapping = etcd.mapping(home)
    assert (mapping["vm"], mapping["mobile"], mapping["holder"], mapping["state"]) == (guest.name, new, "f1", "flipped")
    listed = abroad.json("h1", "mapping", "ls", guest.name)["mappings"]
    assert [(each["home"], each["mobile"], each["published"]) for each in listed] == [(home, new, True)], listed
    assert new in abroad.godwit("f1", "mapping", "ls").stdout

    # Nobody waits for an etcd that is away.
    etcd.stop()
    guest.move("--strategy", "secondary-nic", target="h1")
    wait_until(lambda: "trouble" in abroad.json("h1", "mapping", "ls")["etcd"], 20, abroad.logs)
    etcd.start()
    wait_until(lambda: etcd.mapping(home) is None and etcd.name(guest.name) == home, 90,
               lambda: f"{etcd.all()} {abroad.logs()}")
    assert etcd.mapping(new)["mobile"] == home  # what began at f1 finds it by that
    assert [each["home"] for each in abroad.json("h1", "mapping", "ls", guest.name)["mappings"]] == [new]
