"""Networks as files, and hosts of the fleet through one agent. Topology: fleet.py.

    e1:     vm web --+                      +-- client: shop-lan (10.8.0.1)
                     +-- switch shop at e1 -+
    w1: shop-desk  --+                      +-- shop-audit at e1, which nobody uses
"""

import json
import pathlib

import pytest
from conftest import ROOT, wait_until

SHOP = """
name: shop
components:
  shop:                      # at the first host of the site
    type: switch
    host: e1
    ageing_s: 60
    ports:
      web: {access: 10}
      lan: {access: 10}
      desk: {access: 20}
ports:
  shop-lan: {host: client, kind: uplink, interface: lan, address: 10.8.0.1/24}
  shop-desk: {host: west, kind: uplink, interface: lan, address: 10.8.0.3/24}
  shop-audit: {host: e1}
vms:
  web:
    host: e1
    memory: 96MiB
    kernel: KERNEL
    initrd: INITRD
    append: console=ttyS0 quiet godwit.ip=10.8.0.2/24
    nics: [{port: web-nic}]
wires:
  - [shop-web, web-nic]
  - [shop-lan, shop-lan]
  - [shop-desk, e1/shop-desk]
"""


def shop(fleet, **changes):
    """SHOP with the names of its ports apart, and lines changed."""
    text = SHOP.replace("KERNEL", str(fleet.guest / "vmlinuz")).replace("INITRD", str(fleet.guest / "initrd.img"))
    text = text.replace("[shop-lan, shop-lan]", "[client/shop-lan, e1/shop-lan]")
    text = text.replace("[shop-desk, e1/shop-desk]", "[west/shop-desk, e1/shop-desk]")
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def write(fleet, host, text, name="shop.yaml"):
    path = f"/tmp/{name}"
    fleet.lab.exec(host, "sh", "-c", "printf %s \"$1\" > \"$2\"", "sh", text, path)
    return path


def apply(fleet, text, *options, host="e1", **more):
    return fleet.godwit(host, "apply", write(fleet, host, text), *options, **more)


def things(fleet):
    """All that hosts have, without what changes by itself."""
    def stable(each):
        return {k: v for k, v in each.items() if k in ("name", "host", "tenant", "topology", "kind", "a", "b", "ports")}
    export = json.loads(fleet.godwit("e1", "export", "--json").stdout)
    return {kind: [stable(each) for each in export[kind]] for kind in ("components", "ports", "vms", "wires")}


def pings(fleet, host, address):
    return fleet.lab.exec(host, "ping", "-c1", "-W1", address, check=False).returncode == 0


def test_other_hosts_through_one_agent(fleet):
    fleet.godwit("e1", "--at", "w1", "port", "add", "far")
    assert fleet.ports_at("w1") == ["far"] and fleet.ports_at("e1") == []
    assert [p["host"] for p in fleet.json("e1", "--at", "west", "port", "ls")] == ["w1"]
    entry = fleet.json("w1", "audit", "ls")[-1]
    assert (entry["did"], entry["via"], entry["role"]) == ("POST /v1/ports", "e1", "operator"), entry
    assert fleet.json("e1", "audit", "ls")[-1].get("on", {}).get("name") != "far"

    def refused(*words):
        return fleet.godwit("e1", *words, expect=None).stderr
    assert "no host or site 'nowhere'" in refused("--at", "nowhere", "port", "ls")
    assert "only root does this" in refused("--at", "w1", "host", "invite")
    assert "name one of" in refused("--at", "east", "port", "ls")
    assert "-H" in refused("--at", "w1", "vm", "console", "x")
    fleet.godwit("e1", "--at", "w1", "port", "rm", "far")
    assert fleet.ports_at("w1") == []
    fleet.kill_agent("w1")
    wait_until(lambda: not fleet.sees_all("e1"), 30, "the end of the session")
    assert "no session with host w1" in refused("--at", "w1", "port", "ls")
    fleet.restart_agent("w1")


def test_a_file_becomes_a_network_and_back(fleet):
    dry = apply(fleet, shop(fleet), "--dry-run").stdout
    assert "+ add component e1/shop\n" in dry and "+ run vm e1/web\n" in dry, dry
    assert things(fleet)["ports"] == []
    assert fleet.godwit("e1", "diff", "/tmp/shop.yaml", expect=6).stdout == dry
    assert "8 steps done" in apply(fleet, shop(fleet)).stdout
    wait_until(lambda: pings(fleet, "client", "10.8.0.2"), 60, "the vm's answer")
    assert not pings(fleet, "w1", "10.8.0.2"), "of another VLAN"

    # Again, and as it is written down: nothing.
    assert apply(fleet, shop(fleet)).stdout == "topology shop is as it shall be\n"
    fleet.godwit("e1", "diff", "/tmp/shop.yaml")
    whole, part = (fleet.godwit("e1", "export", *which).stdout for which in ((), ("--topology", "shop")))
    for text in (whole, part):
        assert apply(fleet, text, "--dry-run", "--prune", host="client").stdout == "nothing to do\n", text
    assert "# up," in part and "name: shop" in part, part
    dot = fleet.godwit("e1", "export", "--format", "dot").stdout
    assert "site west" in dot and '"vm e1/web"' in dot, dot

    # A vm that moves, at the word of a third host, is where it is.
    fleet.godwit("client", "--at", "e1", "migrate", "web", "--to", "w1", *fleet.PATIENT)
    assert pings(fleet, "client", "10.8.0.2")
    assert apply(fleet, shop(fleet), "--prune").stdout == "topology shop is as it shall be\n"
    assert [(vm["name"], vm["host"]) for vm in things(fleet)["vms"]] == [("web", "w1")]

    # What differs is changed, what others made is left, what it made is pruned when that is asked for.
    fleet.godwit("w1", "port", "add", "mine")
    changed = shop(fleet, **{"desk: {access: 20}": "desk: {access: 10}", "  shop-audit: {host: e1}\n": ""})
    assert "1 steps done" in apply(fleet, changed).stdout
    wait_until(lambda: pings(fleet, "w1", "10.8.0.2"), 20, "the vm's answer to the desk")
    assert "shop-audit" in fleet.ports_at("e1")
    apply(fleet, changed, "--prune")
    assert "shop-audit" not in fleet.ports_at("e1")
    apply(fleet, "name: shop", "--prune")
    left = things(fleet)
    assert [port["name"] for port in left["ports"]] == ["mine"], left
    assert not left["components"] and not left["vms"] and not left["wires"], left


TYPES = """
components:
  lan: {host: e1, ports: [gate, dhcp, desk]}
  gate:
    type: nat                      # ports inside and outside
    host: e1
    ports: {inside: {address: 10.8.0.254/24}, outside: {address: 198.51.100.7/24}}
    forward: [{address: 198.51.100.7, protocol: tcp, ports: 80, to: 10.8.0.2}]
  filter: {type: firewall, host: w1, rules: [{action: allow, in: inside}, {action: allow, protocol: icmp}]}
  core: {type: router, host: w1, ports: {a: {address: 10.1.0.1/24}, b: {address: "2001:DB8::1/64"}},
         routes: [{to: 10.9.0.0/16, via: 10.1.0.9}]}
  addresses: {type: dhcp, host: e1, address: 10.8.0.253/24,
              networks: [{prefix: 10.8.0.0/24, range: 10.8.0.100-10.8.0.200, router: 10.8.0.254}]}
wires:
  - [lan-gate, gate-inside]
  - [lan-dhcp, addresses-net]
  - [gate-outside, filter-inside]
  - [filter-outside, core-a]
"""


def test_all_types_of_components(fleet):
    """What hosts show in another form than files say is the same."""
    assert "9 steps done" in apply(fleet, TYPES).stdout
    assert apply(fleet, TYPES).stdout == "topology shop is as it shall be\n"
    exported = fleet.godwit("e1", "export").stdout
    assert apply(fleet, exported, "--dry-run", "--prune").stdout == "nothing to do\n", exported
    assert "~ change component w1/core" in apply(fleet, TYPES.replace("via: 10.1.0.9", "via: 10.1.0.8"), "--dry-run").stdout
    assert "shop.yaml:9: component 'filter': " in apply(
        fleet, TYPES.replace("in: inside}", "in: nowhere}"), expect=2).stderr
    apply(fleet, "name: shop", "--prune")
    assert not things(fleet)["ports"]


SETTINGS = """
components:
  lan:
    host: e1
    ageing_s: 60
    mirror: tap
    ports: {web: {access: 10, flooded_per_s: 500}, desk: {trunk: [5, 6], native: 5}, tap: {}}
  core:
    type: router
    host: w1
    ports: {a: {address: 10.1.0.1/24, mtu: 1400}}
    routes: [{to: 10.9.0.0/16, via: 10.1.0.9}]
    rules: [{action: drop, in: a, protocol: tcp, ports: 22}]
  mine: {host: e1, ports: {a: {}}}
ports:
  out0: {host: e1, kind: uplink, interface: out, address: 10.4.0.1/24, masquerade: true}
"""
# What is left when all is taken out that can be.
BARE = """
components:
  lan: {host: e1, ports: {web: {}, desk: {}, tap: {}}}
  core: {type: router, host: w1, ports: {a: {address: 10.1.0.1/24}}}
  mine: {host: e1, ports: {a: {}}}
ports:
  out0: {host: e1, kind: uplink}
"""


def test_what_is_no_longer_said_goes_back_to_its_default(fleet):
    """Of what the topology made; a switch, and a port at a switch of its own, that others made stay as they are."""
    fleet.godwit("e1", "component", "add", "mine", "--port", "a,access=7")
    apply(fleet, SETTINGS)
    fleet.godwit("e1", "component", "set", "lan", "--port", "guest,access=30")
    assert apply(fleet, SETTINGS).stdout == "topology shop is as it shall be\n"
    path = write(fleet, "e1", BARE)
    assert fleet.godwit("e1", "diff", path, expect=6).stdout == (
        "- remove port e1/out0\n+ add port e1/out0 anew\n"
        "~ change component w1/core: routes, rules, mtu of a\n"
        "~ change component e1/lan: ageing_s, mirror, native of desk, trunk of desk, access of web, flooded_per_s of web\n")
    apply(fleet, BARE)
    lan, core, mine = (fleet.get(host, f"/components/{name}")
                       for host, name in (("e1", "lan"), ("w1", "core"), ("e1", "mine")))
    ports = {port["name"]: port for port in lan["ports"]}
    assert (lan["ageing_s"], lan["mirror"]) == (300, ""), lan
    for name in ("web", "desk"):
        port = ports[name]
        assert (port.get("access"), port["trunk"], port["native"], port.get("flooded_per_s", 0)) == (None, [], 0, 0), port
    assert ports["guest"]["access"] == 30 and mine["ports"][0]["access"] == 7
    assert (core["routes"], core["rules"], core["ports"][0]["mtu"]) == ([], [], 1500), core
    out0 = next(port for port in fleet.get("e1", "/ports") if port["name"] == "out0")
    assert (out0["interface"], out0["address"], out0["masquerade"]) == ("out0", "", False), out0
    assert apply(fleet, BARE).stdout == "topology shop is as it shall be\n"
    fleet.godwit("e1", "diff", path)
    exported = fleet.godwit("e1", "export", "--topology", "shop").stdout
    assert apply(fleet, exported, "--dry-run", "--prune").stdout == "nothing to do\n", exported
    # The guest's port hangs on nothing: its switch goes with it.
    apply(fleet, "name: shop", "--prune")
    fleet.godwit("e1", "component", "rm", "mine")
    assert not things(fleet)["ports"]


def test_it_goes_on_where_it_was_broken(fleet):
    """A host that is away is told; what came before it stays, and the next apply does the rest."""
    few = shop(fleet).split("vms:")[0] + "wires:\n  - [client/shop-lan, e1/shop-lan]\n"
    fleet.kill_agent("w1")
    wait_until(lambda: not fleet.sees_all("e1"), 30, "the end of the session")
    before = things(fleet)
    assert "host w1, where 'shop-desk' is to be, does not answer" in apply(fleet, few, expect=3).stderr
    assert things(fleet) == before
    fleet.restart_agent("w1")
    # One step is refused: somebody has the interface. The others are done.
    fleet.lab.exec("w1", "ip", "link", "add", "lan", "type", "veth", "peer", "name", "lan9")
    failed = apply(fleet, few, expect=1)
    assert "add port w1/shop-desk" in failed.stderr and "1 of" in failed.stderr, failed.stderr
    assert len(things(fleet)["wires"]) == 1
    fleet.lab.exec("w1", "ip", "link", "del", "lan")
    assert "1 steps done" in apply(fleet, few).stdout
    assert apply(fleet, few).stdout == "topology shop is as it shall be\n"


def test_an_agent_that_is_killed_in_the_middle(fleet):
    """Of 600 ports, some in the store, some not; none is made twice, or lost."""
    many = ("components:\n" + "".join(f"  sw{i}: {{host: w1, ports: [{', '.join(f'p{j}' for j in range(50))}]}}\n"
                                       for i in range(6)) +
            "ports:\n" + "".join(f"  a{i}-{j}: {{host: e1}}\n" for i in range(6) for j in range(50)) +
            "wires:\n" + "".join(f"  - [a{i}-{j}, sw{i}-p{j}]\n" for i in range(6) for j in range(50)))
    path = write(fleet, "e1", many)
    begun = fleet.popen("e1", fleet.bin / "godwit", "apply", path)
    wait_until(lambda: len(fleet.get("e1", "/wires") or []) > 20, 30, "some wires")
    fleet.kill_agent("w1")
    begun.communicate(timeout=90)
    fleet.restart_agent("w1")
    wait_until(lambda: fleet.godwit("e1", "apply", path, expect=None).returncode == 0, 60, "an apply that is done")
    fleet.godwit("e1", "diff", path)
    made = things(fleet)
    assert (len(made["ports"]), len(made["wires"]), len(made["components"])) == (600, 300, 6)
    fleet.godwit("e1", "apply", "--prune", write(fleet, "e1", "{}"))
    assert not things(fleet)["ports"]


def test_mistakes_have_their_line(fleet):
    def told(text, status=2):
        return apply(fleet, text, expect=status).stderr
    assert "/tmp/shop.yaml:2: 'compnents' is none of" in told("name: x\ncompnents: {}\n")
    assert "/tmp/shop.yaml:4: " in told("ports:\n  a: {host: e1}\n  b: {host: [e1\n")
    assert "shop.yaml:3: 'a' is here twice" in told("ports:\n  a: {host: e1}\n  a: {host: w1}\n")
    assert "shop.yaml:2: component 'sw1': there is no 'aging_s' here" in told(
        "components:\n  sw1: {host: e1, aging_s: 60}\n")
    text = "ports:\n  web:\n    host: eats\n"
    assert "shop.yaml:2: 'web' is at no host or site 'eats': there are client, e1, east, w1, west" in told(text, 3)
    assert "shop.yaml:4: there is no port 'sw1-x'" in told(
        "ports:\n  a: {host: e1}\nwires:\n  - [a, sw1-x]\n", 3)
    assert "cannot read" in fleet.godwit("e1", "apply", "/nowhere.yaml", expect=2).stderr
    assert things(fleet)["ports"] == []


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda file: file.stem)
def test_examples_are_valid(fleet, file):
    """By the schema, and by apply in a fleet that has their hosts under other names."""
    import jsonschema
    import yaml
    text = pathlib.Path(file).read_text()
    schema = json.loads((ROOT / "docs/protocol/topology.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(text))
    for site, host in (("hub", "client"), ("north", "w1"), ("south", "e1")):
        text = text.replace(f"host: {site}", f"host: {host}")
    planned = apply(fleet, text, "--dry-run").stdout
    assert "+ connect" in planned and "- " not in planned, planned


def test_nothing_is_left(fleet):
    fleet.expect_nothing_left()
