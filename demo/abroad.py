#!/usr/bin/python3
"""A vm goes to a subnet where its address means nothing, and its connections live on: one with a host that has an agent,
directly, also after the site that they began at is cut off; one with a host that has none, by a relay, for its time. Then
it comes home, and so does what began abroad.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import signal
import sys
import time
from dataclasses import dataclass

from racks import say, shown
from stage import ROOT, Lab, all_kept, demo, guest_image, wait_until

EXAMPLE = ROOT / "examples" / "abroad"
ADDRESS, GATEWAY = "10.66.1.20", "10.66.1.1"
KNOWN, STRANGER = "x1", "router-world"
READY_S = 60
RELAY_S = 15
# One connection to the guest's echo service: each second line that it is asked for is what came back, and how late.
TALK = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[3]))
s.settimeout(5)
s.connect((sys.argv[1], int(sys.argv[2])))
s.settimeout(0.5)
print('open', flush=True)
longest, lines = 0.0, 0
try:
    while True:
        sent = time.monotonic()
        s.sendall(b'%07d\\n' % lines)
        got = b''
        while len(got) < 8:
            try:
                got += s.recv(8 - len(got))
            except TimeoutError:
                if time.monotonic() - sent > 20: raise
        assert int(got) == lines, got
        longest, lines = max(longest, time.monotonic() - sent), lines + 1
        time.sleep(0.01)
        if lines % 20 == 0: print(f'{lines} lines, the longest wait {1000 * longest:.0f} ms', flush=True)
except (OSError, AssertionError) as error:
    print(f'ended after {lines} lines: {type(error).__name__}', flush=True)
"""


class Talk:
    def __init__(self, lab, host, port=7007, protocol=0, address=ADDRESS):
        self.host, self.address = host, address
        self.process = lab.start(host, sys.executable, "-u", "-c", TALK, address, str(port), str(protocol), stdout=-1)
        self.line = self.process.stdout.readline().strip()

    def read(self, seconds):
        """The newest line of the next so many seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.line.startswith("ended"):
            self.line = self.process.stdout.readline().strip() or self.line
        return self.line

    @property
    def lives(self):
        return not self.line.startswith("ended")

    def longest_ms(self):
        return float(self.line.split()[-2]) if self.line.endswith("ms") else float("inf")


@dataclass
class Back:
    migration: dict
    talks: list

    def excess_ms(self):
        """Of those that began abroad: the others have seen more than this."""
        return max(talk.longest_ms() for talk in self.talks if talk.address != ADDRESS) - \
            self.migration["report"]["pause_ms"]


def come_home(lab, talks):
    say("\nthe site is back; who comes now knows the vm by its address abroad")
    lab.heal("home-world")
    wait_until(lambda: all(host["state"] != "down" for host in lab.ask("f1", "host", "ls")), READY_S, "all sessions")
    new = lab.ask("f1", "fabric", "show")["relocations"][0]["lead"]["addresses"][0]["new_address"]
    talks = talks + [Talk(lab, host, address=new) for host in (KNOWN, STRANGER)]
    shown(lab, "f1", "migrate", "web", "--to", "h1", "--strategy", "endpoint", "--dry-run", last=5)
    say("\nit comes home")
    shown(lab, "f1", "migrate", "web", "--to", "h1", "--strategy", "endpoint", last=1)
    for talk in talks:
        say(f"      {talk.host}, with {talk.address}: {talk.read(2)}")
    shown(lab, "h1", "fabric", "show", last=1)
    return Back(lab.ask("f1", "migration", "ls")[-1], talks)


def show(options):
    with Lab(options.lab, config=EXAMPLE / "lab.yaml") as lab:
        say(f"\n   h1, at home ── world: {KNOWN} with an agent, {STRANGER} without ── f1, abroad\n")
        shown(lab, "h1", "fabric", "set", EXAMPLE / "fabric.yaml", last=1)
        kernel, initrd = guest_image()
        shown(lab, "h1", "port", "add", "web-net", "--uplink", "--guest", ADDRESS)
        lab.run("h1", "godwit", "vm", "run", "web", "--memory", "96MiB", "--kernel", kernel, "--initrd", initrd, "--append",
                f"console=ttyS0 quiet godwit.ip={ADDRESS}/24 godwit.gw={GATEWAY} godwit.dirty=5mbit", "--nic", "web0")
        shown(lab, "h1", "connect", "web0", "web-net")
        wait_until(lambda: lab.start(KNOWN, "ping", "-c1", "-W1", ADDRESS, stdout=-3).wait() == 0, READY_S, "the vm answers")
        for host in ("f1", KNOWN):
            wait_until(lambda h=host: lab.ask(h, "fabric", "show")["file"], READY_S, f"{host} knows the fabric")
        talks = [Talk(lab, KNOWN), Talk(lab, STRANGER)]
        say("\nwhat would become of its connections")
        shown(lab, "h1", "migrate", "web", "--to", "f1", "--strategy", "endpoint", "--dry-run", last=5)
        say("\nit goes")
        shown(lab, "h1", "migrate", "web", "--to", "f1", "--strategy", "endpoint", "--relay-for", f"{RELAY_S}s", last=1)
        migration = lab.ask("h1", "migration", "ls")[-1]
        pause = migration["report"]["pause_ms"]
        for talk in talks:
            say(f"      {talk.host}: {talk.read(2)}")
        excess = max(talk.longest_ms() for talk in talks) - pause
        say(f"      paused for {pause:.0f} ms")
        shown(lab, "f1", "fabric", "show", last=1)
        say(f"\nthe relay's time of {RELAY_S} s ends")
        wait_until(lambda: "relay" not in lab.ask("f1", "fabric", "show")["relocations"][0]["lead"], READY_S, "its end")
        for talk in talks:
            say(f"      {talk.host}: {talk.read(2)}")
        ended = not talks[1].lives
        say("\nthe site where it was at home is cut off")
        lab.cut("home-world")
        say(f"      {KNOWN}: {talks[0].read(4)}")
        lived = talks[0].lives
        back = come_home(lab, [talks[0]])
        for talk in talks + back.talks:
            talk.process.kill()
    return all_kept([
        ("connections of the host with an agent that ended", int(not lived), 0),
        ("connections without agent that outlived the relay", int(not ended), 0),
        ("connections that ended on the way home", sum(not talk.lives for talk in back.talks), 0),
        ("moves that were not by strategy endpoint",
         sum(each["strategy"] != "endpoint" for each in (migration, back.migration)), 0),
        ("longest wait for an answer beyond the pause, in ms", excess, 400),
        ("the same on the way home", back.excess_ms(), 400),
    ])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(demo("abroad", __doc__, show))
