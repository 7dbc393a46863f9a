#!/usr/bin/python3
"""Hosts that do not see each other: a vm and its wire move between sites behind NATs.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import contextlib
import pathlib
import subprocess
import sys
import time

from stage import (WAYS, Client, Godwit, Lab, Load, demo, gaps_ms,
                   wait_until)

CONFIG = pathlib.Path(__file__).with_name("nat.yaml")
DEAD_PATH_S = 2.0
SETTLE_S = 30


def say(text=""):
    print(text, flush=True)


def introduce():
    say("""
    home: client --[NAT]--+
    east: e1 ------[NAT]--+-- hub: r1, r2      each with an agent; 10 to 20 ms one way
    west: w1 ------[NAT]--+

  NATs    home and east keep one outer port per host (port-restricted), west has another for
          each peer (symmetric); none lets anything in unasked
  vm      web, at e1; its wire ends at the client
  job     move it e1 -> w1; kill the agent that relays; move it back
""")


def path_text(wire):
    text = f"to {wire['b']['host']}: {wire['path']}"
    return text + (f", relayed by {wire['via']}" if wire["via"] else ", direct")


class Wires:
    """Which way the client's wire takes, and how that changes."""

    def __init__(self, lab, godwit):
        self.lab, self.godwit = lab, godwit

    def settled(self, what, is_so):
        def found():
            wire = self.godwit.wire()
            return wire if wire["path_state"] == "proven" and is_so(wire) else None
        wire = wait_until(found, SETTLE_S, what)
        say(f"  wire {path_text(wire)}; RTT {wire['rtt_ms']:.0f} ms, MTU {wire['mtu']}")
        return wire


def session_text(lab, host, peer):
    def found():
        sessions = lab.ask(host, "host", "show")["sessions"]
        return next((s for s in sessions if s["peer"] == peer and s["state"] == "up"), None)
    session = wait_until(found, SETTLE_S, f"a session of {host} with {peer}")
    return "session and memory " + (f"relayed by {session['via']}" if session["via"] else "direct")


def move(lab, client, godwit, target, case):
    say(f"\n{case}: {session_text(lab, godwit.host, target)}")
    (migration, text), window = client.watch(case, lambda: godwit.move(target, subprocess.DEVNULL))
    say("  " + text.strip().splitlines()[0])
    say(f"  pause {migration['report']['pause_ms']:.0f} ms; frames lost {lost(window)}")
    return window


def kill_agent(lab, host):
    lab.run(host, "pkill", "-KILL", "-x", "godwitd")  # in the host's own process namespace


def silence_ms(window):
    return max(gaps_ms(window).values())


def relay_dies(lab, client, wires, relay):
    say(f"\nthe agent on {relay} is killed")

    def act():
        kill_agent(lab, relay)
        wires.settled("another relay", lambda wire: wire["via"] not in ("", relay))
        time.sleep(1)  # of traffic by it
    _, window = client.watch("relay-dies", act)
    say(f"  the longest silence was {silence_ms(window):.0f} ms")
    return window


def lost(window):
    return sum(window[way]["lost"] for way in WAYS)


def judge(moves, silence, total):
    promises = [
        ("frames lost by the two moves", sum(map(lost, moves)), 0),
        ("silence when the relay died, in ms", round(silence), DEAD_PATH_S * 1000),
        ("TCP connections reset", total["tcp"]["resets"], 0),
        ("jumps of the counter in the vm's memory", total["counter_jumps"], 0),
    ]
    say("\npromises")
    for text, value, most in promises:
        say(f"  {'kept' if value <= most else 'BROKEN':<7} {text:<42} {value} <= {most:.0f}")
    return all(value <= most for _, value, most in promises)


def show(options):
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(options.lab, config=CONFIG))
        introduce()
        godwit = Godwit(lab, Load(memory="256MiB", dirty="5mbit", working_set="8MiB"))
        godwit.start()
        wires = Wires(lab, godwit)
        say("the vm runs at e1")
        wires.settled("a direct wire through both NATs", lambda wire: wire["via"] == "")
        client = stack.enter_context(Client(lab))
        there = move(lab, client, godwit, "w1", "e1-w1")
        relay = wires.settled("a relayed wire", lambda wire: wire["via"] != "")["via"]
        dead = relay_dies(lab, client, wires, relay)
        back = move(lab, client, godwit, "e1", "w1-e1")
        wires.settled("a direct wire again", lambda wire: wire["via"] == "")
        total = client.stop()
    return judge((there, back), silence_ms(dead), total)


if __name__ == "__main__":
    sys.exit(demo("nat", __doc__, show))
