"""Reads a packet capture of the lab's client: just enough of pcap (1), Ethernet, IPv4 and UDP.

(1) draft-ietf-opsawg-pcap: a 24-byte file header, then 16 bytes before each packet.
"""

import struct

NANOSECONDS, MICROSECONDS = 0xA1B23C4D, 0xA1B2C3D4
GUEST_PORT = 7007
PROBE, ECHO, STREAM = 1, 2, 3  # src/lab/guest/protocol.hh


def packets(data):
    """(time in ns since 1970, frame) of a capture's bytes; a last packet cut short is left out."""
    magic = struct.unpack_from("<I", data)[0]
    unit = {NANOSECONDS: 1, MICROSECONDS: 1000}[magic]
    at = 24
    while at + 16 <= len(data):
        seconds, fraction, captured, _ = struct.unpack_from("<IIII", data, at)
        at += 16
        if at + captured > len(data):
            return
        yield seconds * 10**9 + fraction * unit, data[at:at + captured]
        at += captured


def client_packets(data):
    """(time in ns, kind, sequence, index, left) of the datagrams between the client and the vm."""
    for time_ns, frame in packets(data):
        if len(frame) < 34 or frame[12:14] != b"\x08\x00" or frame[23] != 17:
            continue
        udp = 14 + (frame[14] & 15) * 4
        ports = struct.unpack_from(">HH", frame, udp)
        payload = frame[udp + 8:]
        if GUEST_PORT not in ports or len(payload) < 48 or payload[:4] != b"GWLT":
            continue
        sequence, _, left, index = struct.unpack_from(">QQQQ", payload, 16)
        yield time_ns, payload[5], sequence, index, left


def gap_at(seen, moment_ns):
    """(gap, the vm's part of it) in ms, of the packets of one kind around the moment."""
    i = next(i for i, packet in enumerate(seen) if packet[0] > moment_ns)
    had_left = next(left for *_, left in seen[i:] if left > seen[i][-1])  # the next batch tells it
    return (seen[i][0] - seen[i - 1][0]) / 1e6, (had_left - seen[i - 1][-1]) / 1e6


def vm_clock_behind_ms(seen, start_ns, end_ns):
    """How far the vm's clock is behind the client's, to a constant, by the packets between both times.

    By the one that was least late: a loaded machine delays packets, and hastens none.
    """
    return min(at - left for at, *_, left in seen if start_ns <= at < end_ns) / 1e6


def longest_gap_ms(times, start_ns, end_ns):
    """Between neighbours of which the window holds a part; after the last one up to its end."""
    longest, last = 0, start_ns
    for time in times:
        if time > start_ns and last < end_ns:
            longest = max(longest, time - last)
        last = time
        if time >= end_ns:
            break
    else:
        longest = max(longest, end_ns - last)
    return longest / 1e6
