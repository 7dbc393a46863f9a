#!/usr/bin/python3
"""A vm has an address of the network that it goes to before it goes (strategy secondary-nic): a NIC is plugged in and
configured while it runs at home, and once it runs abroad one flip makes that its way out. Its older connections live on;
one of MPTCP takes the new address by itself, with a peer that knows nothing of us, also when its home is cut off.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import signal
import sys

from abroad import ADDRESS, EXAMPLE, GATEWAY, KNOWN, READY_S, STRANGER, Talk
from racks import say, shown
from stage import Lab, all_kept, demo, guest_image, wait_until

MPTCP_PORT, IPPROTO_MPTCP = 7009, 262


class Multipath(Talk):
    """The same by MPTCP, from a host that takes a second path if it is offered one."""

    def __init__(self, lab, host):
        lab.run(host, "ip", "mptcp", "limits", "set", "add_addr_accepted", "4", "subflows", "4")
        super().__init__(lab, host, MPTCP_PORT, IPPROTO_MPTCP)


def show(options):
    with Lab(options.lab, config=EXAMPLE / "lab.yaml") as lab:
        say(f"\n   h1, at home ── world: {KNOWN} with an agent, {STRANGER} without ── f1, abroad\n")
        shown(lab, "h1", "fabric", "set", EXAMPLE / "fabric.yaml", last=1)
        kernel, initrd = guest_image(with_agent=True)
        shown(lab, "h1", "port", "add", "web-net", "--uplink", "--guest", ADDRESS)
        lab.run("h1", "godwit", "vm", "run", "web", "--memory", "128MiB", "--kernel", kernel, "--initrd", initrd, "--append",
                f"console=ttyS0 quiet godwit.ip={ADDRESS}/24 godwit.gw={GATEWAY} godwit.dirty=5mbit godwit.iproute2=1",
                "--nic", "web0", "--guest-agent")
        shown(lab, "h1", "connect", "web0", "web-net")
        wait_until(lambda: lab.start(KNOWN, "ping", "-c1", "-W1", ADDRESS, stdout=-3).wait() == 0, READY_S, "the vm answers")
        for host in ("f1", KNOWN):
            wait_until(lambda h=host: lab.ask(h, "fabric", "show")["file"], READY_S, f"{host} knows the fabric")
        talks = {"TCP with an agent": Talk(lab, KNOWN), "MPTCP without": Multipath(lab, STRANGER)}
        say("\nit goes")
        command = ("migrate", "web", "--to", "f1", "--strategy", "secondary-nic")
        say(f"  h1$ godwit {' '.join(command)}")
        for line in lab.run("h1", "godwit", *command).splitlines():
            if line.split()[:1] in (["second"], ["pause"], ["network"], ["flip"]):
                say(f"      {line.strip()[:112]}")
        migration = lab.ask("h1", "migration", "ls")[-1]
        say("\nwhat it has there")
        shown(lab, "f1", "vm", "show", "web", last=3)
        new = next(nic["network"]["addresses"][0] for nic in lab.ask("f1", "vm", "show", "web")["nics"] if "network" in nic)
        new = new.split("/")[0]
        answers = lab.start(STRANGER, "ping", "-c1", "-W2", new, stdout=-3).wait() == 0
        for name, talk in talks.items():
            say(f"      {name}: {talk.read(2)}")
        say("\nthe site where it was at home is cut off")
        lab.cut("home-world")
        for name, talk in talks.items():
            say(f"      {name}: {talk.read(6)}")
        lived = {name: talk.lives for name, talk in talks.items()}
        for talk in talks.values():
            talk.process.kill()
    return all_kept([
        ("connections that ended", list(lived.values()).count(False), 0),
        ("new addresses that do not answer", int(not answers), 0),
        ("flips that were not done", int(not migration["flip"]["done"]), 0),
    ])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(demo("second-nic", __doc__, show))
