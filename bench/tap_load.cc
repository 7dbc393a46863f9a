// Two ends of a way from TAP to TAP, as two QEMUs have them, for bench/taps.py: a process that
// writes UDP datagrams of 18 bytes (frames of 64 bytes, with Ethernet's own checksum) to one TAP's
// descriptor, and one that reads and counts them at another's.
//
//   tap_load FROM ADDRESS NEXT-HOP TO ADDRESS
//
// makes the TAPs, says "ready", and waits for who joins them. Then each line on standard input is a
// number of seconds to send for, and a row of JSON comes back. At most kWindow frames are under
// way: the rate is that of the slowest part, and no queue overflows, whatever it is.
//
// A datagram's checksum is left to be finished, as a guest's virtio-net leaves it.
#include <arpa/inet.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/problem.hh"
#include "base/result.hh"
#include "os/tap.hh"

namespace godwit {
namespace {

constexpr std::uint64_t kWindow = 512;  // frames: what two virtio queues have
constexpr Nanoseconds kLossAfter = std::chrono::milliseconds(300);
constexpr int kResolveTries = 50;
constexpr std::size_t kEthernet = os::kVnetHeaderBytes, kIp = kEthernet + 14, kUdp = kIp + 20;
constexpr std::size_t kPayload = kUdp + 8, kFrame = kPayload + 18;
constexpr std::uint64_t kMark = 0x676f647769740001;
constexpr std::uint16_t kArpRequest = 1, kArpReply = 2;

using Address = std::array<std::byte, 4>;
using Mac = std::array<std::byte, 6>;
constexpr Mac kEverybody = {std::byte{255}, std::byte{255}, std::byte{255},
                            std::byte{255}, std::byte{255}, std::byte{255}};

// What both processes see.
struct Shared {
  std::atomic<std::uint64_t> received = 0, misordered = 0;
  std::atomic<std::uint64_t> wanted = 0;  // received: the sender waits for as many; 0: it does not
  std::atomic<std::uint32_t> gate = 0;    // a futex
};

long futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value,
           const timespec* limit = nullptr) {
  return ::syscall(SYS_futex, &word, operation, value, limit, nullptr, 0);
}

Address address_of(const char* text) {
  Address address{};
  if (::inet_pton(AF_INET, text, address.data()) != 1) fail_setup("'{}' is no IPv4 address", text);
  return address;
}

template <std::size_t kSize>
void put(MutableBytes frame, std::size_t at, const std::array<std::byte, kSize>& bytes) {
  std::ranges::copy(bytes, frame.begin() + static_cast<std::ptrdiff_t>(at));
}

std::uint16_t folded_sum(BytesView bytes, std::uint32_t sum) {
  for (std::size_t at = 0; at < bytes.size(); at += 2) {
    sum += from_big_endian<std::uint16_t>(&bytes[at]);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

// A host with one interface, whose frames this program reads and writes.
class Station final {
 public:
  Station(const std::string& name, const char* address, std::uint8_t number)
      : tap_(os::open_uplink({.name = name, .address = {}})), address_(address_of(address)) {
    mac_ = {std::byte{2}, std::byte{0x67}, {}, {}, {}, std::byte{number}};
  }

  // Empty when none comes in time.
  BytesView next(int limit_ms) {
    std::size_t size = tap_.read(buffer_);
    if (size == 0) {
      pollfd poll{.fd = tap_.fd().number(), .events = POLLIN, .revents = 0};
      ::poll(&poll, 1, limit_ms);
      size = tap_.read(buffer_);
    }
    return BytesView(buffer_).first(size);
  }
  void send(BytesView frame) {
    while (tap_.write(frame) == os::FrameDevice::Written::kBusy) ::sched_yield();
  }

  void ask(const Address& who) { send_arp(kArpRequest, kEverybody, who); }
  // Answers, if the frame asks for this station.
  void answer(BytesView frame) {
    if (!is_arp(frame, kArpRequest) || !std::ranges::equal(frame.subspan(kIp + 24, 4), address_)) {
      return;
    }
    Mac asker;
    Address asker_address;
    std::ranges::copy(frame.subspan(kIp + 8, 6), asker.begin());
    std::ranges::copy(frame.subspan(kIp + 14, 4), asker_address.begin());
    send_arp(kArpReply, asker, asker_address);
  }
  static bool is_arp(BytesView frame, std::uint16_t operation) {
    return frame.size() >= kIp + 28 &&
           from_big_endian<std::uint16_t>(&frame[kEthernet + 12]) == 0x0806 &&
           from_big_endian<std::uint16_t>(&frame[kIp + 6]) == operation;
  }

  const Address& address() const { return address_; }
  const Mac& mac() const { return mac_; }

 private:
  void send_arp(std::uint16_t operation, const Mac& to, const Address& target) {
    Bytes frame(kIp + 28, std::byte{0});
    put(frame, kEthernet, to);
    put(frame, kEthernet + 6, mac_);
    const Bytes fixed = from_hex("080600010800060400");
    std::ranges::copy(fixed, frame.begin() + kEthernet + 12);
    to_big_endian(operation, &frame[kIp + 6]);
    put(frame, kIp + 8, mac_);
    put(frame, kIp + 14, address_);
    if (to != kEverybody) put(frame, kIp + 18, to);
    put(frame, kIp + 24, target);
    send(frame);
  }

  os::Tap tap_;
  Address address_;
  Mac mac_;
  Bytes buffer_ = Bytes(os::kMaxFrameBytes);
};

// ---- the receiver's process ----

[[noreturn]] void receive(Station& station, Shared& shared) {
  std::uint64_t expected = 0;
  for (;;) {
    const BytesView frame = station.next(-1);
    if (frame.size() != kFrame || from_big_endian<std::uint64_t>(&frame[kPayload]) != kMark) {
      station.answer(frame);
      continue;
    }
    const auto number = from_big_endian<std::uint64_t>(&frame[kPayload + 8]);
    if (number < expected) ++shared.misordered;
    expected = number + 1;
    const std::uint64_t received = ++shared.received;
    const std::uint64_t wanted = shared.wanted;
    if (wanted == 0 || received < wanted) continue;
    shared.wanted = 0;
    ++shared.gate;
    futex(shared.gate, FUTEX_WAKE, 1);
  }
}

// ---- the sender's ----

Mac resolved(Station& station, const Address& next_hop) {
  for (int i = 0; i < kResolveTries; ++i) {
    station.ask(next_hop);
    while (true) {
      const BytesView frame = station.next(100);
      if (frame.empty()) break;
      if (!Station::is_arp(frame, kArpReply)) continue;
      Mac mac;
      std::ranges::copy(frame.subspan(kIp + 8, 6), mac.begin());
      return mac;
    }
  }
  fail_setup("nobody answers for the next hop");
}

Bytes datagram(const Station& from, const Mac& next_hop, const Address& to) {
  Bytes frame(kFrame, std::byte{0});
  frame[0] = std::byte{1};                              // VIRTIO_NET_HDR_F_NEEDS_CSUM
  frame[6] = static_cast<std::byte>(kUdp - kEthernet);  // csum_start, little-endian
  frame[8] = std::byte{6};                              // csum_offset
  put(frame, kEthernet, next_hop);
  put(frame, kEthernet + 6, from.mac());
  const Bytes fixed = from_hex("08004500002e000040004011");  // 46 bytes, not to be cut, TTL 64
  std::ranges::copy(fixed, frame.begin() + kEthernet + 12);
  put(frame, kIp + 12, from.address());
  put(frame, kIp + 16, to);
  const MutableBytes bytes(frame);
  to_big_endian(static_cast<std::uint16_t>(~folded_sum(bytes.subspan(kIp, 20), 0)),
                &frame[kIp + 10]);
  to_big_endian(std::uint16_t{7000}, &frame[kUdp]);
  to_big_endian(std::uint16_t{7001}, &frame[kUdp + 2]);
  constexpr std::uint16_t kLength = 26;
  to_big_endian(kLength, &frame[kUdp + 4]);
  to_big_endian(folded_sum(bytes.subspan(kIp + 12, 8), 17 + kLength), &frame[kUdp + 6]);
  to_big_endian(kMark, &frame[kPayload]);
  return frame;
}

Nanoseconds now(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return std::chrono::seconds(time.tv_sec) + Nanoseconds(time.tv_nsec);
}

class Sender final {
 public:
  Sender(Station& station, Shared& shared, Bytes frame)
      : station_(station), shared_(shared), frame_(std::move(frame)) {}

  void send_for(Nanoseconds length) {
    const Nanoseconds until = now(CLOCK_MONOTONIC) + length;
    while (now(CLOCK_MONOTONIC) < until) {
      wait_below(kWindow);
      for (int i = 0; i < 64; ++i) {
        to_big_endian(sent_++, &frame_[kPayload + 8]);
        station_.send(frame_);
      }
    }
    wait_below(1);
  }
  std::uint64_t sent() const { return sent_; }
  std::uint64_t lost() const { return lost_; }

 private:
  std::uint64_t under_way() const { return sent_ - lost_ - shared_.received; }

  // Then at least half of the window is free.
  void wait_below(std::uint64_t most) {
    while (under_way() >= most) {
      const std::uint32_t gate = shared_.gate;
      const std::uint64_t before = shared_.received;
      shared_.wanted = sent_ - lost_ - most / 2;
      const timespec limit{.tv_sec = 0, .tv_nsec = kLossAfter.count()};
      if (under_way() >= most) futex(shared_.gate, FUTEX_WAIT, gate, &limit);
      if (shared_.gate == gate && shared_.received == before) lost_ = sent_ - before;
    }
  }

  Station& station_;
  Shared& shared_;
  Bytes frame_;
  std::uint64_t sent_ = 0, lost_ = 0;
};

// Of the agent, if there is one where this runs: all its threads.
Nanoseconds agent_cpu_time() {
  namespace fs = std::filesystem;
  std::uint64_t total = 0;
  std::error_code error;
  for (const auto& process : fs::directory_iterator("/proc", error)) {
    std::string name;
    if (!std::getline(std::ifstream(process.path() / "comm"), name) || name != "godwitd") continue;
    for (const auto& thread : fs::directory_iterator(process.path() / "task", error)) {
      std::uint64_t on_cpu = 0;
      std::ifstream(thread.path() / "schedstat") >> on_cpu;
      total += on_cpu;
    }
  }
  return Nanoseconds(total);
}

int run(char** words) {
  void* memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto& shared = *new (memory) Shared;
  Station from(words[0], words[1], 1), to(words[3], words[4], 2);
  const pid_t receiver = ::fork();
  if (receiver == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    receive(to, shared);
  }
  clockid_t receiver_clock{};
  ::clock_getcpuclockid(receiver, &receiver_clock);
  std::cout << "ready" << std::endl;
  std::optional<Sender> sender;
  const auto used = [&] {
    return std::array{now(CLOCK_PROCESS_CPUTIME_ID), now(receiver_clock), agent_cpu_time()};
  };
  for (double length_s = 0; std::cin >> length_s;) {
    if (!sender)
      sender.emplace(from, shared,
                     datagram(from, resolved(from, address_of(words[2])), to.address()));
    const auto used_before = used();
    const std::uint64_t received = shared.received, lost = sender->lost();
    const std::uint64_t misordered = shared.misordered;
    const Nanoseconds began = now(CLOCK_MONOTONIC);
    sender->send_for(Nanoseconds(static_cast<std::int64_t>(length_s * 1e9)));
    const double took = static_cast<double>((now(CLOCK_MONOTONIC) - began).count()) / 1e9;
    const auto used_after = used();
    nlohmann::json row{{"frames", shared.received - received},
                       {"lost", sender->lost() - lost},
                       {"misordered", shared.misordered - misordered},
                       {"seconds", took}};
    const std::array names{"sender_s", "receiver_s", "agent_s"};
    for (std::size_t i = 0; i < names.size(); ++i) {
      row[names[i]] = static_cast<double>((used_after[i] - used_before[i]).count()) / 1e9;
    }
    std::cout << row.dump() << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace godwit

int main(int count, char** words) {
  if (count != 6) {
    std::fputs("tap_load FROM ADDRESS NEXT-HOP TO ADDRESS\n", stderr);
    return 2;
  }
  try {
    return godwit::run(words + 1);
  } catch (const godwit::SetupError& error) {
    std::fprintf(stderr, "tap_load: %s\n", error.what());
    return 1;
  }
}
