"""Routers, NAT, firewalls: real clients' traffic through components.

    client: lan (10.7.0.9, fd00:7::9) ---- r1-lan [r1 at e1] r1-wan ---- w1: wan (192.0.2.9, 2001:db8::9)
"""

import json

import pytest
from conftest import ROOT, wait_until

LAN, WAN = "lan,address=10.7.0.1/24+fd00:7::1/64", "wan,address=192.0.2.1/24+2001:db8::1/64"
HTTP = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.client_address[0].encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
# The size that is sent, and what comes back of it.
BULK = """
import socket, sys, threading
server = socket.create_server((sys.argv[1], int(sys.argv[2])),
                              family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
while True:
    peer, _ = server.accept()
    def drain(peer=peer):
        size = 0
        while data := peer.recv(1 << 20):
            size += len(data)
        peer.sendall(str(size).encode())
        peer.close()
    threading.Thread(target=drain, daemon=True).start()
"""
SEND = """
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
peer.sendall(bytes(int(sys.argv[3])))
peer.shutdown(socket.SHUT_WR)
print(peer.recv(100).decode())
"""
# An echo for each line, a hundred times.
ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    peer, _ = server.accept()
    while data := peer.recv(1000):
        peer.sendall(data)
"""
TALK = """
import socket, sys, time
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
for i in range(100):
    peer.sendall(b'x' * 100)
    size = 0
    while size < 100:
        data = peer.recv(100 - size)
        if not data:
            sys.exit('closed')
        size += len(data)
    if i % 10 == 0:
        print(i, flush=True)
    time.sleep(0.02)
"""


def interface(fleet, host, name, port, *addresses):
    fleet.godwit(host, "port", "add", f"{name}-{host}", "--uplink", "--interface", name, "--address", addresses[0])
    fleet.lab.exec(host, "sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=0")
    for address in addresses[1:]:
        fleet.lab.exec(host, "ip", "address", "add", address, "dev", name, "nodad")
    fleet.godwit(host, "connect", f"{name}-{host}", port)


def routes(fleet, host, gateway4, gateway6, to4, to6):
    fleet.lab.exec(host, "ip", "route", "replace", to4, "via", gateway4)
    fleet.lab.exec(host, "ip", "-6", "route", "replace", to6, "via", gateway6)


def join(fleet, type_="router", *words):
    fleet.godwit("e1", "component", "add", "r1", "--type", type_, *words)
    lan, wan = ("r1-inside", "r1-outside") if type_ == "nat" else ("r1-lan", "r1-wan")
    interface(fleet, "client", "lan", f"e1/{lan}", "10.7.0.9/24", "fd00:7::9/64")
    interface(fleet, "w1", "wan", f"e1/{wan}", "192.0.2.9/24", "2001:db8::9/64")
    routes(fleet, "client", "10.7.0.1", "fd00:7::1", "192.0.2.0/24", "2001:db8::/64")


def ping(fleet, host, *words):
    return fleet.lab.exec(host, "ping", "-c1", "-W1", *words, check=False)


def answers(fleet, host, address):
    wait_until(lambda: ping(fleet, host, address).returncode == 0, 20, f"{address}'s answer to {host}")


def drops(fleet, component, port):
    shown = fleet.json("e1", "component", "show", component)
    return next(each for each in shown["ports"] if each["name"] == port)["drops"]


class Server:
    """A script at an address of a host, until the end of the with."""

    def __init__(self, fleet, host, script, address, port):
        self.process = fleet.popen(host, "/usr/bin/python3", "-c", script, address, str(port))
        wait_until(lambda: fleet.lab.exec(host, "ss", "-Htln", f"sport = {port}").stdout, 20, "the server listens")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def fetch(fleet, host, url):
    """Who the server says has asked."""
    script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
    return fleet.lab.exec(host, "/usr/bin/python3", "-c", script, url, check=False)


def bulk(fleet, host, address, port, size):
    sent = fleet.lab.exec(host, "/usr/bin/python3", "-c", SEND, address, str(port), str(size))
    assert int(sent.stdout) == size


def test_a_router_routes(fleet):
    join(fleet, "router", "--port", LAN, "--port", WAN, "--route", "203.0.113.0/24,drop")
    routes(fleet, "w1", "192.0.2.1", "2001:db8::1", "10.7.0.0/24", "fd00:7::/64")
    for address in ("10.7.0.1", "fd00:7::1", "192.0.2.1", "192.0.2.9", "2001:db8::9"):
        answers(fleet, "client", address)
    # By TCP and in super-frames, both kinds and ways.
    for host, address in (("w1", "192.0.2.9"), ("w1", "2001:db8::9"), ("client", "10.7.0.9")):
        with Server(fleet, host, BULK, address, 5001):
            bulk(fleet, "client" if host == "w1" else "w1", address, 5001, 20 << 20)
    # traceroute sees the router, then the end.
    hops = fleet.lab.exec("client", "busybox", "traceroute", "-n", "-q1", "-w2", "192.0.2.9").stdout.splitlines()[1:]
    assert [line.split()[1] for line in hops] == ["10.7.0.1", "192.0.2.9"], hops
    fleet.lab.exec("client", "ip", "route", "add", "203.0.113.0/24", "via", "10.7.0.1")
    assert "Destination Net Unreachable" in ping(fleet, "client", "203.0.113.9").stdout
    assert "Destination Host Unreachable" in ping(fleet, "client", "192.0.2.77", "-W5").stdout
    known = {each["address"]: each["port"] for each in fleet.json("e1", "component", "neighbours", "r1")}
    assert known["10.7.0.9"] == "lan" and known["192.0.2.9"] == "wan" and known["2001:db8::9"] == "wan"


def test_a_router_with_a_narrow_port_says_so(fleet):
    join(fleet, "router", "--port", LAN, "--port", f"{WAN},mtu=1300")
    routes(fleet, "w1", "192.0.2.1", "2001:db8::1", "10.7.0.0/24", "fd00:7::/64")
    answers(fleet, "client", "192.0.2.9")
    answers(fleet, "client", "2001:db8::9")
    assert "mtu = 1300" in ping(fleet, "client", "-Mdo", "-s1400", "192.0.2.9").stdout
    assert "mtu=1300" in ping(fleet, "client", "-Mdo", "-s1400", "2001:db8::9").stdout
    # What may be cut is; and TCP finds the path's MTU.
    fleet.lab.exec("client", "ip", "route", "flush", "cache")
    assert ping(fleet, "client", "-Mdont", "-s4000", "192.0.2.9").returncode == 0
    with Server(fleet, "w1", BULK, "192.0.2.9", 5001):
        bulk(fleet, "client", "192.0.2.9", 5001, 4 << 20)


def test_a_nat_hides_and_forwards(fleet):
    join(fleet, "nat", "--port", "inside,address=10.7.0.1/24", "--port", "outside,address=192.0.2.1/24",
         "--forward", "192.0.2.1,protocol=tcp,ports=80,to=10.7.0.9,to-port=8080")
    answers(fleet, "client", "192.0.2.9")
    with Server(fleet, "w1", HTTP, "192.0.2.9", 8000):
        assert fetch(fleet, "client", "http://192.0.2.9:8000/").stdout.strip() == "192.0.2.1"
    with Server(fleet, "client", HTTP, "10.7.0.9", 8080):
        assert fetch(fleet, "w1", "http://192.0.2.1/").stdout.strip() == "192.0.2.9"
        # A hairpin: the inside's server by its outside address.
        assert fetch(fleet, "client", "http://192.0.2.1/").stdout.strip() == "10.7.0.1"
    with Server(fleet, "w1", BULK, "192.0.2.9", 5001):
        bulk(fleet, "client", "192.0.2.9", 5001, 20 << 20)
    hops = fleet.lab.exec("client", "busybox", "traceroute", "-n", "-q1", "-w2", "192.0.2.9").stdout.splitlines()[1:]
    assert [line.split()[1] for line in hops] == ["10.7.0.1", "192.0.2.9"], hops
    flows = fleet.json("e1", "component", "flows", "r1")
    assert any(flow["flow"].startswith("tcp 10.7.0.9") and "192.0.2.1:" in flow["becomes"] for flow in flows), flows


def test_connections_through_a_nat_outlive_the_agent(fleet):
    """Its flows are forgotten: the next packet from inside begins them again, with the same port."""
    join(fleet, "nat", "--port", "inside,address=10.7.0.1/24", "--port", "outside,address=192.0.2.1/24")
    answers(fleet, "client", "192.0.2.9")
    with Server(fleet, "w1", ECHO, "192.0.2.9", 5002):
        talk = fleet.popen("client", "/usr/bin/python3", "-c", TALK, "192.0.2.9", "5002")
        assert talk.stdout.readline() == "0\n"
        fleet.kill_agent("e1")
        fleet.restart_agent("e1")
        text, errors = talk.communicate(timeout=60)
        assert talk.returncode == 0 and text.endswith("90\n"), (text, errors)


def test_a_router_s_rules(fleet):
    join(fleet, "router", "--port", LAN, "--port", WAN, "--list", "web,members=80+8000-8099",
         "--rule", "allow,in=lan,out=wan", "--rule", "allow,in=wan,protocol=icmp",
         "--rule", "reject,in=wan,out=lan,protocol=tcp,ports=@web,log", "--default", "drop")
    routes(fleet, "w1", "192.0.2.1", "2001:db8::1", "10.7.0.0/24", "fd00:7::/64")
    answers(fleet, "client", "192.0.2.9")
    answers(fleet, "w1", "10.7.0.9")
    with Server(fleet, "w1", HTTP, "192.0.2.9", 8000):
        assert fetch(fleet, "client", "http://192.0.2.9:8000/").stdout.strip() == "10.7.0.9"
    with Server(fleet, "client", HTTP, "10.7.0.9", 8080):
        assert "refused" in fetch(fleet, "w1", "http://10.7.0.9:8080/").stderr
        assert ping(fleet, "client", "10.7.0.1").returncode != 0, "nothing lets it in"
        fleet.godwit("e1", "component", "set", "r1", "--rule", "allow")
        assert fetch(fleet, "w1", "http://10.7.0.9:8080/").stdout.strip() == "192.0.2.9"
    assert drops(fleet, "r1", "wan")["reject"] > 0 and drops(fleet, "r1", "lan")["policy"] > 0


def test_a_firewall_stands_in_a_wire(fleet):
    """Of one network: 10.7.0.9 and 10.7.0.8 at its two sides."""
    fleet.godwit("e1", "component", "add", "f1", "--type", "firewall", "--rule", "allow,in=inside")
    interface(fleet, "client", "lan", "e1/f1-inside", "10.7.0.9/24")
    interface(fleet, "w1", "lan", "e1/f1-outside", "10.7.0.8/24")
    answers(fleet, "client", "10.7.0.8")
    assert ping(fleet, "w1", "10.7.0.9").returncode != 0
    with Server(fleet, "client", HTTP, "10.7.0.9", 8080):
        fleet.godwit("e1", "component", "set", "f1", "--rule", "allow,in=inside", "--rule",
                     "reject,protocol=tcp,ports=8080")
        assert "refused" in fetch(fleet, "w1", "http://10.7.0.9:8080/").stderr
        fleet.godwit("e1", "component", "set", "f1", "--rule", "allow")
        assert fetch(fleet, "w1", "http://10.7.0.9:8080/").stdout.strip() == "10.7.0.8"
    (rule,) = fleet.json("e1", "component", "rules", "f1")
    assert rule["packets"] > 0
    assert drops(fleet, "f1", "outside").keys() >= {"policy", "reject"}


def test_addresses_come_through_a_router(fleet):
    """IPv4 by DHCP, whose server is behind the router; IPv6 by advertisement."""
    fleet.godwit("e1", "component", "add", "r1", "--type", "router",
                 "--port", "lan,address=10.7.0.1/24+fd00:7::1/64,relay=10.9.0.2,advertise",
                 "--port", "servers,address=10.9.0.1/24")
    fleet.godwit("w1", "component", "add", "d1", "--type", "dhcp", "--set", "address=10.9.0.2/24",
                 "--network", "10.7.0.0/24,range=10.7.0.100-10.7.0.110,router=10.7.0.1")
    fleet.godwit("w1", "connect", "d1-net", "e1/r1-servers")
    fleet.godwit("client", "port", "add", "lan0", "--uplink", "--interface", "lan")
    fleet.lab.exec("client", "sh", "-c", "sysctl -qw net.ipv6.conf.lan.accept_ra=2 net.ipv6.conf.lan.disable_ipv6=0;"
                   "ip link set lan up")
    fleet.godwit("client", "connect", "lan0", "e1/r1-lan")
    fleet.lab.exec("client", "busybox", "udhcpc", "-i", "lan", "-f", "-q", "-n", "-t9", "-T1", "-s", "/bin/true")
    (lease,) = fleet.json("w1", "component", "leases", "d1")
    assert lease["address"].startswith("10.7.0.1") and lease["state"] == "bound"

    def own():
        shown = json.loads(fleet.lab.exec("client", "ip", "-j", "-6", "address", "show", "dev", "lan").stdout)
        return [each["local"] for part in shown for each in part["addr_info"] if each["local"].startswith("fd00:7:")]
    # It asks for a router when it has an address of the link.
    fleet.lab.exec("client", "ip", "address", "add", "fe80::9/64", "dev", "lan")
    wait_until(own, 20, "an address of the prefix that is advertised")
    answers(fleet, "client", "fd00:7::1")


def test_an_uplink_masquerades(fleet):
    """By the host's kernel, here to a network that it reaches by another uplink of its own."""
    add = ("port", "add", "up", "--uplink", "--address", "10.7.0.1/24", "--masquerade")
    fleet.godwit("e1", *add)
    fleet.godwit("e1", *add)  # harmless
    fleet.godwit("e1", "port", "add", "ext", "--uplink", "--address", "192.0.2.1/24")
    interface(fleet, "client", "lan", "e1/up", "10.7.0.9/24")
    interface(fleet, "w1", "wan", "e1/ext", "192.0.2.9/24")
    fleet.lab.exec("client", "ip", "route", "replace", "192.0.2.0/24", "via", "10.7.0.1")
    answers(fleet, "client", "192.0.2.9")
    with Server(fleet, "w1", HTTP, "192.0.2.9", 8000):
        assert fetch(fleet, "client", "http://192.0.2.9:8000/").stdout.strip() == "192.0.2.1"
        fleet.kill_agent("e1")
        fleet.restart_agent("e1")
        answers(fleet, "client", "192.0.2.9")
        assert fetch(fleet, "client", "http://192.0.2.9:8000/").stdout.strip() == "192.0.2.1"

    def tables():
        return fleet.lab.exec("e1", "nft", "list", "tables", "ip").stdout.count("godwit_up_")
    assert tables() == 1
    fleet.godwit("e1", "disconnect", "up", "client/lan-client")
    fleet.godwit("e1", "port", "rm", "up")
    assert tables() == 0
    for wrong in (("--address", "fd00::1/64"), ("--address", "10.7.0.1")):
        assert "can masquerade it" in fleet.godwit("e1", "port", "add", "up", "--uplink", *wrong, "--masquerade",
                                                   expect=1).stderr
    assert "up" not in fleet.ports_at("e1")


def test_a_gateway_stands_at_both_sites(fleet):
    """Of one network that is stretched: each site's host takes its own, by one address and one MAC."""
    for host, other in (("e1", "w1"), ("w1", "e1")):
        fleet.godwit(host, "component", "add", "gw", "--type", "router", "--port", "lan,address=10.7.0.1/24,shared")
        shared = fleet.json(host, "component", "show", "gw")["shared_macs"]["lan"]
        fleet.godwit(host, "component", "add", f"sw-{host}", "--port", "gw", "--port", "lan",
                     "--port", f"{other},stretched", "--mac", f"{shared}@gw")
        fleet.godwit(host, "connect", f"{host}/gw-lan", f"sw-{host}-gw")
    fleet.godwit("e1", "connect", "sw-e1-w1", "w1/sw-w1-e1")
    interface(fleet, "client", "lan", "e1/sw-e1-lan", "10.7.0.9/24")
    interface(fleet, "w1", "lan", "sw-w1-lan", "10.7.0.8/24")
    for host, address in (("client", "10.7.0.8"), ("client", "10.7.0.1"), ("w1", "10.7.0.1")):
        answers(fleet, host, address)

    def taken(host):
        shown = fleet.json(host, "component", "show", "gw")
        return shown["ports"][0]["tx_frames"]
    before = {host: taken(host) for host in ("e1", "w1")}
    fleet.lab.exec("w1", "ping", "-q", "-c20", "-i0.01", "10.7.0.1")
    assert taken("w1") - before["w1"] >= 20 and taken("e1") - before["e1"] < 10
    for host in ("client", "w1"):
        assert shared in fleet.lab.exec(host, "ip", "neigh", "show", "10.7.0.1").stdout


def test_the_readme_s_components_are_taken(fleet):
    text = (ROOT / "README.md").read_text().replace("\\\n", "")
    lines = [line.split("#")[0].split()[1:] for line in text.splitlines()
             if line.startswith("godwit component add ") and "--type" in line]
    assert [line[2] for line in lines] == ["gw", "d1", "fw"]
    for line in lines:
        fleet.godwit("e1", *line)
    fleet.godwit("e1", "component", "flows", "gw")
    rules = fleet.json("e1", "component", "show", "fw")["rules"]
    assert rules[-1]["ports"] == ["80", "443"]


def test_what_makes_no_sense_is_refused(fleet):
    def refusal(*words, type_="router"):
        return fleet.godwit("e1", "component", "add", "r1", "--type", type_, *words, expect=1).stderr

    ports = ("--port", LAN, "--port", WAN)
    assert "is in no port's network" in refusal(*ports, "--route", "0.0.0.0/0,via=10.9.0.1")
    assert "has a router (via) or a port, or drops" in refusal(*ports, "--route", "0.0.0.0/0")
    assert "is at two ports" in refusal(*ports, "--port", "x,address=10.7.0.2/24")
    assert "'3x' is no port or range" in refusal(*ports, "--rule", "allow,ports=3x")
    assert "rule 1: 'dmz' is no port here" in refusal(*ports, "--rule", "allow,in=dmz")
    assert "there is no set '@web'" in refusal(*ports, "--rule", "allow,to=@web")
    assert "'pass' is no action" in refusal(*ports, "--rule", "pass")
    assert "a firewall has two ports" in refusal("--port", "a", "--port", "b", "--port", "c", type_="firewall")
    assert fleet.json("e1", "component", "ls") == [] and fleet.ports_at("e1") == []


@pytest.fixture(autouse=True)
def nothing_is_left(fleet):
    yield
    for host in ("client", "w1"):
        fleet.lab.exec(host, "ip", "route", "flush", "203.0.113.0/24", check=False)
