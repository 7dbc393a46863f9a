"""Frames of many senders, that a switch gets to know, or many flows for a NAT.

This file is also the program that sends them, from a place:

    macs TO-MAC COUNT RATE INTERFACE...    one frame of each of COUNT addresses, an equal share from each interface
    flows TO-MAC COUNT RATE INTERFACE SOURCE-PREFIX DESTINATION    one datagram of each of COUNT flows: SOURCE-PREFIX
                                           like 10.7.1 is that of 256 addresses, each with a thousand ports or less
"""

import pathlib
import socket
import struct
import sys
import time

PYTHON = "/usr/bin/python3"
EXPERIMENTAL = 0x88B5  # IEEE 802: for local experiments
AT_ONCE = 20
PORTS, FIRST_PORT = 1000, 10_000
DESTINATION_PORTS = (9001, 9002, 9003, 9004)  # a NAT has one outside port for a source that talks to several


def send_from(place, *words):
    place.run(PYTHON, "-c", pathlib.Path(__file__).read_text(encoding="utf-8"), *map(str, words))


def mac_frames(to, count):
    for number in range(count):
        yield to + struct.pack(">HIH", 0x0200, number, EXPERIMENTAL) + bytes(46)


def checksum(header):
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def flow_frames(to, count, own, prefix, destination):
    destination = socket.inet_aton(destination)
    for number in range(count):
        source, which = divmod(number, len(DESTINATION_PORTS))
        address = socket.inet_aton(f"{prefix}.{source // PORTS}")
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + 18, 0, 0, 64, socket.IPPROTO_UDP, 0, address, destination)
        ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
        udp = struct.pack(">HHHH", FIRST_PORT + source % PORTS, DESTINATION_PORTS[which], 8 + 18, 0)
        yield to + own + b"\x08\x00" + ip + udp + bytes(18)


def send(frames, sockets, rate):
    due = time.monotonic()
    for number, frame in enumerate(frames):
        sockets[number % len(sockets)].send(frame)
        if number % AT_ONCE == 0:
            due += AT_ONCE / rate
            time.sleep(max(0, due - time.monotonic()))


def raw(interface):
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    opened.bind((interface, 0))
    return opened


def main(what, to, count, rate, *words):
    to, count, rate = bytes.fromhex(to.replace(":", "")), int(count), int(rate)
    if what == "macs":
        send(mac_frames(to, count), [raw(interface) for interface in words], rate)
    else:
        out = raw(words[0])
        send(flow_frames(to, count, out.getsockname()[4], *words[1:]), [out], rate)


if __name__ == "__main__":
    main(*sys.argv[1:])
