"""10,000 connections of one guest move with it, under `./dev bench mobility`; beside the same move with ten, and one with
more than the 10,000 that travel: the rest is for the relay (docs/protocol/endpoint.md).

They are UDP, from x1 to the guest: a socket each, answered once before (udp_flows.py). Figures, of one move each:

  move_s, pause_ms    of the report
  staged_ms           before the guest stands: connections listed, correspondents' hosts agreed with
  held_ms, uplink_ms, flipped_ms   from when it runs again until what is for it waits there, its uplink runs there, and its
                      correspondents' hosts lead to it
  staged_bytes_each, updated_bytes_each   of TCP from h1, and from f1, that x1's agent got while it moved, in IP packets, by
                      those listed: flow.stage lists them, and each flow.update. The session's own and TLS' bytes are in it
  lived_percent       of the connections, each asked LATER_S after it, when a relay that none needs has ended
  listed              connections that travelled
"""

import json
import time

from guest_moves import WORDS
from guest_systems import RoutedGuest
from mobility_moves import SCENE
from mobility_systems import GodwitEndpoint, bytes_by_address, own_address
from stage import Lab, StageError, wait_until
from udp_flows import Flows

TRAVELLING = 10_000
COUNTS = (10, TRAVELLING, TRAVELLING + 100)
CORRESPONDENT = "x1"
SETTLE_LIMIT_S = 60
LATER_S = 12  # two looks of the guest's host at its relay, and more
MOST_BYTES = 200
TABLE = "bench_session"
STEPS = ("staged_ms", "held_ms", "uplink_ms", "flipped_ms")
UNITS = {"move_s": "s", "pause_ms": "ms", **{step: "ms" for step in STEPS}, "staged_bytes_each": "bytes",
         "updated_bytes_each": "bytes", "lived_percent": "%", "listed": "connections"}


def say(text):
    print(text, flush=True)


def measure(options):
    rows = []
    with Lab(options.lab, config=SCENE.lab) as lab:
        SCENE.make(lab, {})
        for count in COUNTS:
            values = moved(lab, count)
            say(f"  {count} connections: " + "  ".join(f"{metric} {value:.4g}" for metric, value in values.items()))
            rows += [{"bench": "mobility", "case": f"many-{count}", "system": "godwit-endpoint", "metric": metric,
                      "value": value, "unit": UNITS[metric]} for metric, value in values.items()]
    return rows


def moved(lab, count):
    name, address = next(SCENE.names)
    guest = RoutedGuest(lab, name, SCENE.home, address, words=WORDS)
    mover = GodwitEndpoint(lab, guest, SCENE.target)
    with Flows(lab, CORRESPONDENT, address, count) as flows:
        if (answered := flows.answered()) < count:
            raise StageError(f"{answered} of {count} connections with {name} were answered before it moved")
        count_session(lab, CORRESPONDENT)
        report = mover.move()
        told = guest.network[0]
        wait_until(lambda: counted(mover) >= told["connections"], SETTLE_LIMIT_S, "f1 knows the connections")
        time.sleep(LATER_S)
        got = session_bytes(lab, CORRESPONDENT)
        lived = flows.ask(count)
    mover.clean()
    lab.run(CORRESPONDENT, "nft", f"delete table inet {TABLE}")
    return {"move_s": report["total_ms"] / 1000, "pause_ms": report["pause_ms"], **{step: told[step] for step in STEPS},
            "staged_bytes_each": got.get(own_address(lab, SCENE.home), 0) / told["connections"],
            "updated_bytes_each": got.get(own_address(lab, SCENE.target), 0) / told["connections"],
            "lived_percent": 100 * lived / count, "listed": told["connections"]}


def counted(mover):
    """Connections that the guest's host knows."""
    return sum(mover.lead().get("alive", {}).values())


def count_session(lab, host):
    """From now on, what this host's agent gets by TCP, by who sent it."""
    lab.run(host, "nft", f"add table inet {TABLE}; "
            f"add set inet {TABLE} got {{ type ipv4_addr; size 256; flags dynamic; }}; "
            f"add chain inet {TABLE} first {{ type filter hook input priority -500; }}; "
            f"add rule inet {TABLE} first meta l4proto tcp update @got {{ ip saddr counter }}")


def session_bytes(lab, host):
    return bytes_by_address(json.loads(lab.run(host, "nft", "-j", "list", "table", "inet", TABLE)))


def judge(rows):
    value = {(row["case"], row["metric"]): row["value"] for row in rows}
    most = f"many-{TRAVELLING}"
    checks = [(value[most, metric] <= MOST_BYTES, f"{metric} {value[most, metric]:.0f}, at most {MOST_BYTES}")
              for metric in ("staged_bytes_each", "updated_bytes_each")]
    checks += [(value[f"many-{count}", "lived_percent"] == 100,
                f"of {count} connections {value[f'many-{count}', 'lived_percent']:.2f} % live") for count in COUNTS]
    for met, text in checks:
        say(f"  {'met' if met else 'MISSED'}: {text}")
    return all(met for met, _ in checks)
