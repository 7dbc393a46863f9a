"""Customers of a web shop: connections that stay, on which each asks a hundred bytes fifty times a second.

This file is also the program that does it, in a place: `customers.py ADDRESS CONNECTIONS PORT...`. A line on its
standard input is answered by what was since the line before: {"answers", "resets", "slowest_ms"}.
"""

import json
import pathlib
import socket
import subprocess
import sys
import threading
import time

PYTHON = "/usr/bin/python3"
INTERVAL_S = 0.02
REQUEST = bytes(range(100))
GIVES_UP_S = 30


class Customers:
    """In a place, for as long as this context lasts."""

    def __init__(self, place, address, connections, ports):
        self._process = place.start(PYTHON, "-c", pathlib.Path(__file__).read_text(encoding="utf-8"), address,
                                    str(connections), *map(str, ports), stdin=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def since(self):
        """What was since it was asked before."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Connection:
    def __init__(self, address, port):
        self.answers, self.resets, self.slowest_s = 0, 0, 0.0
        self.peer = socket.create_connection((address, port), GIVES_UP_S)
        self.peer.settimeout(GIVES_UP_S)
        self.asked = None  # when, while there is no answer
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        try:
            while True:
                self.asked = time.monotonic()
                self.peer.sendall(REQUEST)
                answer = b""
                while len(answer) < len(REQUEST):
                    data = self.peer.recv(len(REQUEST) - len(answer))
                    if not data:
                        raise ConnectionError
                    answer += data
                if answer != REQUEST:
                    raise ConnectionError
                self.answers += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - self.asked)
                self.asked = None
                time.sleep(INTERVAL_S)
        except OSError:
            self.resets, self.asked = 1, None

    def since(self):
        asked = self.asked
        waits_s = time.monotonic() - asked if asked else 0.0
        told = self.answers, self.resets, max(self.slowest_s, waits_s)
        self.answers, self.slowest_s = 0, 0.0  # an answer that comes right now may be missed
        return told


def main(address, connections, *ports):
    opened = [Connection(address, int(port)) for port in ports for _ in range(int(connections))]
    while sys.stdin.readline():
        told = [connection.since() for connection in opened]
        print(json.dumps({"answers": sum(answers for answers, _, _ in told),
                          "resets": sum(resets for _, resets, _ in told),
                          "slowest_ms": max(slowest for _, _, slowest in told) * 1000}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
