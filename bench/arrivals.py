"""When UDP datagrams came to a port, by the kernel's clock: the longest silence between two of them.

`godwit lab probe` sees the silences on the way back; on the way there only the receiver does. This file is also the
program that looks there, at a copy of the frames.
"""

import pathlib
import select
import socket
import struct
import subprocess
import sys

PYTHON = "/usr/bin/python3"
ETH_P_IP, SO_TIMESTAMPNS = 0x0800, 35
BUFFER = 8 << 20
IP_PROTOCOL, UDP_PORT = 23, slice(36, 38)  # in a frame whose IP header has no options


class Arrivals:
    """At an interface of a place, for as long as this context lasts."""

    def __init__(self, place, interface, port):
        self._process = place.start(PYTHON, "-c", pathlib.Path(__file__).read_text(encoding="utf-8"), interface,
                                    str(port), stdin=subprocess.PIPE)
        self._process.stdout.readline()  # it looks

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def longest_gap_ms(self, window):
        """`window`: as the probe tells it."""
        start = window["start_unix_ns"]
        self._process.stdin.write(f"{start} {start + int(window['length_ms'] * 1e6)}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def longest_gap_ns(times, start, end):
    """Between two arrivals, one of them within; `times` are in order."""
    gaps = (b - a for a, b in zip(times, times[1:]) if b > start and a < end)
    return max(gaps, default=end - start)


def timestamp(ancillary):
    for _, kind, data in ancillary:
        if kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", data)
            return seconds * 10**9 + nanoseconds
    raise OSError("the kernel gave no time")


def watch(interface, port):
    # Of one EtherType: what is sent from here does not come to it (packet(7)).
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
    frames.bind((interface, ETH_P_IP))
    frames.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    frames.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    times, wanted = [], struct.pack(">H", port)
    print("looking", flush=True)
    while True:
        ready = select.select([frames, sys.stdin], [], [])[0]
        if frames in ready:
            frame, ancillary, _, _ = frames.recvmsg(64, 64)
            if frame[IP_PROTOCOL] == socket.IPPROTO_UDP and frame[UDP_PORT] == wanted:
                times.append(timestamp(ancillary))
        elif line := sys.stdin.readline():
            print(longest_gap_ns(times, *map(int, line.split())) / 1e6, flush=True)
        else:
            return


if __name__ == "__main__":
    watch(sys.argv[1], int(sys.argv[2]))
