"""A place of its own in a host of the lab, for one end of the traffic that a bench sends through something."""

import subprocess


class Place:
    """A network namespace, for as long as its process lives."""

    def __init__(self, lab, host):
        self.lab, self.host = lab, host
        self.process = lab.start(host, "unshare", "-n", "sh", "-c", "echo $$; exec sleep infinity",
                                 stdout=subprocess.PIPE)
        self.pid = self.process.stdout.readline().strip()
        self.within = ("nsenter", "-t", self.pid, "-n")
        self.run("ip", "link", "set", "lo", "up")

    def enter(self, interface, address=None):
        """Takes an interface of the host; an address has its network's length, or 24."""
        self.lab.run(self.host, "ip", "link", "set", interface, "netns", self.pid)
        if address:
            self.run("ip", "address", "add", address if "/" in address else f"{address}/24", "dev", interface)
        self.run("ip", "link", "set", interface, "up")

    def run(self, *words):
        return self.lab.run(self.host, *self.within, *words)

    def start(self, *words, **options):
        return self.lab.start(self.host, *self.within, *words, **{"stdout": subprocess.PIPE} | options)

    def answers(self, address):
        """Once, within a second."""
        return self.start("ping", "-c1", "-W1", address).wait(5) == 0

    def end(self):
        self.process.kill()
        self.process.wait()
