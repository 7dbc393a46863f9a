#pragma once
// Every bound of the engine, with its reason. Tests shrink some of them.
#include <cstddef>

#include "base/units.hh"

namespace godwit::wire {

struct Limits {
  // Frames kept for a port that is held or paused: 1 Gbit/s for a pause of 300 ms is 37.5 MB.
  std::size_t held_bytes = 64 * 1024 * 1024;
  // Segments of one direction that wait for their turn: each move of either end makes one or two.
  std::size_t segments = 32;
  // Frames that wait for the first key of a channel.
  std::size_t unkeyed_bytes = 4 * 1024 * 1024;
  Nanoseconds unkeyed_age = seconds(5);
  std::size_t channels_per_port = 64;

  // How long a segment may wait for the end of the one before it (design 5): a lost datagram must
  // not stall a guest, a detour must be given the time to deliver.
  Nanoseconds marker_wait = milliseconds(50);
  double marker_wait_rtts = 1.5;

  // How long the old host forwards: sessions come back within 15 s of a dead link, twice that.
  Nanoseconds lease = seconds(30);

  // Clouds forget a UDP flow after 30 s without traffic (AWS, one way).
  Nanoseconds keepalive = seconds(15);
  Nanoseconds first_ping = milliseconds(100);  // repeated until the first answer

  // Ways to a peer that are kept in mind: what it told, what was seen, relays.
  std::size_t paths_per_peer = 16;
  // A path without an answer yet is probed so often, doubling to the second.
  Nanoseconds first_probe = milliseconds(100), idle_probe = seconds(1);
  // While frames go out on it, or an answer is missing. With the next, a dead path is noticed in
  // 0.3 + 1.2 s; four probes are then unanswered, which 10 % loss each way does once in 800 times.
  Nanoseconds busy_probe = milliseconds(300);
  Nanoseconds dead_after = milliseconds(1200);
  double dead_after_rtts = 3;
  Nanoseconds busy_for = seconds(1);      // after the last frame
  Nanoseconds direct_retry = seconds(5);  // direct paths are tried while a relay is in use
  Nanoseconds path_memory = seconds(60);  // what was seen once and never answered again is dropped
  std::size_t relays_tried = 3;           // for one peer, nearest first
  // What this host forwards for others: a link of 1 Gbit/s at most, in bursts of 20 ms.
  bool relays = true;
  std::uint64_t relay_bytes_per_second = 125'000'000;
  // RFC 8899: BASE_PLPMTU; PMTU_RAISE_TIMER. Nothing larger than jumbo frames is tried.
  std::uint16_t mtu_floor = 1200, mtu_floor_ipv6 = 1280, mtu_most = 9000;
  Nanoseconds mtu_raise = seconds(600);

  // WireGuard's 120 s and half of the GCM limit of RFC 9001 app. B. Asking at half of each leaves a
  // minute, or 2^26 datagrams, without a session.
  Nanoseconds rekey_after = seconds(60);
  Nanoseconds key_life = seconds(120);
  std::uint64_t rekey_datagrams = std::uint64_t{1} << 26;
  Nanoseconds key_grace = seconds(10);  // an old generation is accepted for this long
  std::size_t generations = 16;         // of one channel that are accepted at a time

  Nanoseconds want_retry_min = milliseconds(100), want_retry_max = seconds(2);
  int wants_unanswered = 4;  // before the peer counts as unknown there: 1.5 s
  Nanoseconds notice_retry_min = milliseconds(5), notice_retry_max = seconds(1);
  Nanoseconds notice_patience = seconds(60);
};

}  // namespace godwit::wire
