#include "fabric_traffic.hh"

#include <fmt/format.h>

#include <algorithm>

namespace godwit::sim {
namespace {

constexpr std::uint16_t kTypeTest = 0x88b5;  // IEEE 802's for experiments
constexpr std::size_t kMostPayload = 1400;
constexpr Nanoseconds kAskAgain = seconds(1);
constexpr std::uint16_t kAskedPort = 7, kFirstPort = 2000;

}  // namespace

FabricTraffic::FabricTraffic(const FabricPlan& plan, World& world, Dice& dice, Send send, Fail fail)
    : plan_(plan),
      world_(world),
      dice_(dice),
      send_(std::move(send)),
      fail_(std::move(fail)),
      stacks_(plan.guests.size()) {}

// ---- what is said ----

std::uint32_t FabricTraffic::add(Kind kind, std::size_t from, std::size_t segment,
                                 std::uint64_t expected) {
  messages_.push_back(
      {.kind = kind, .from = from, .segment = segment, .expected = expected, .sent = world_.now()});
  return static_cast<std::uint32_t>(messages_.size() - 1);
}

void FabricTraffic::broadcast(std::size_t from) {
  const PlannedGuest& guest = plan_.guests[from];
  const std::size_t members = plan_.segments[guest.segment].guests.size();
  const std::uint64_t all = ~std::uint64_t{0} >> (FabricPlan::kMostMembers - members);
  send_frame(from, net::kBroadcast,
             add(Kind::broadcast, from, guest.segment, all & ~(std::uint64_t{1} << guest.member)));
}

void FabricTraffic::unicast(std::size_t from, std::size_t to) {
  const PlannedGuest& other = plan_.guests[to];
  send_frame(from, other.mac,
             add(Kind::unicast, from, other.segment, std::uint64_t{1} << other.member));
}

void FabricTraffic::ask(std::size_t from, std::size_t to) {
  const PlannedGuest& other = plan_.guests[to];
  const bool may = plan_.may_reach(plan_.guests[from], other);
  const std::uint32_t message =
      add(Kind::ask, from, other.segment, may ? std::uint64_t{1} << other.member : 0);
  send_packet(from, other.ip, static_cast<std::uint16_t>(kFirstPort + from), kAskedPort, message);
}

void FabricTraffic::send_frame(std::size_t from, net::Mac to, std::uint32_t message) {
  Bytes frame;
  net::write_ethernet(to, plan_.guests[from].mac, kTypeTest, frame);
  Writer(frame).u32(message);
  frame.resize(frame.size() + dice_.between(42, dice_.happens(0.1) ? kMostPayload : 100));
  send_(from, std::move(frame));
}

void FabricTraffic::send_packet(std::size_t from, Ip to, std::uint16_t source_port,
                                std::uint16_t port, std::uint32_t message) {
  const PlannedGuest& guest = plan_.guests[from];
  Stack& stack = stacks_[from];
  const Ip hop = plan_.next_hop(guest, to);
  Bytes payload;
  Writer(payload).u32(message);
  payload.resize(dice_.between(4, dice_.happens(0.1) ? kMostPayload : 100));
  const auto known = stack.known.find(hop);
  Bytes frame;
  net::write_udp({.source_mac = guest.mac,
                  .destination_mac = known != stack.known.end() ? known->second : 0,
                  .source = guest.ip,
                  .destination = to},
                 source_port, port, payload, frame);
  if (known != stack.known.end()) return send_(from, std::move(frame));
  const auto [waiting, is_first] = stack.unknown.try_emplace(hop);
  waiting->second.frames.push_back(std::move(frame));
  if (!is_first && world_.now() < waiting->second.asked + kAskAgain) return;
  waiting->second.asked = world_.now();
  Bytes question;
  net::write_arp({.sender_mac = guest.mac, .sender = guest.ip, .target = hop}, net::kBroadcast,
                 guest.mac, question);
  send_(from, std::move(question));
}

// What is said to something that was heard: not from inside the engine.
void FabricTraffic::later(std::size_t from, Bytes frame) {
  world_.after(dice_.between(Nanoseconds{}, milliseconds(2)),
               [this, from, frame = std::move(frame)] { send_(from, frame); });
}

// ---- what is heard ----

void FabricTraffic::arrived(std::size_t guest, BytesView frame) {
  if (frame.size() < net::kPayloadAt + sizeof(std::uint32_t)) return fail_("a frame was cut off");
  const net::Mac to = net::mac_at(&frame[net::kMacsAt]);
  const bool is_mine = to == plan_.guests[guest].mac || net::is_group(to);
  switch (from_big_endian<std::uint16_t>(&frame[net::kTypeAt])) {
    case net::kTypeArp:
      return is_mine ? take_arp(guest, frame) : void(++overheard_);
    case net::kTypeIp4:
      return take_packet(guest, frame, is_mine);
    case kTypeTest:
      take(guest, from_big_endian<std::uint32_t>(&frame[net::kPayloadAt]), is_mine);
      return;
    default:
      return fail_(fmt::format("guest {} got a frame of no type that was sent", guest));
  }
}

void FabricTraffic::take_arp(std::size_t index, BytesView frame) {
  const PlannedGuest& guest = plan_.guests[index];
  const auto arp = net::read_arp(frame);
  if (!arp) return fail_("a damaged ARP packet");
  if (arp->target != guest.ip) return;
  if (arp->is_request) {
    Bytes answer;
    net::write_arp_answer(*arp, guest.mac, guest.mac, answer);
    return later(index, std::move(answer));
  }
  Stack& stack = stacks_[index];
  stack.known[arp->sender] = arp->sender_mac;
  if (auto waiting = stack.unknown.extract(arp->sender)) {
    for (Bytes& each : waiting.mapped().frames) {
      net::write_mac(arp->sender_mac, &each[net::kMacsAt]);
      later(index, std::move(each));
    }
  }
}

void FabricTraffic::take_packet(std::size_t index, BytesView frame, bool is_mine) {
  const PlannedGuest& guest = plan_.guests[index];
  const auto packet = net::read_ip_frame(frame);
  if (!packet) return fail_("a damaged packet");
  if (packet->protocol != net::kUdp) return;  // a router tells that somebody does not answer
  if (!packet->has_l4(frame, net::kUdpBytes + 4)) return fail_("a packet was cut off");
  if (is_mine && packet->destination != guest.ip) return fail_("a packet for another address");
  const auto message = from_big_endian<std::uint32_t>(&frame[packet->l4 + net::kUdpBytes]);
  if (!take(index, message, is_mine) || messages_[message].kind != Kind::ask) return;
  const auto source_port = from_big_endian<std::uint16_t>(&frame[packet->l4]);
  const PlannedGuest& asker = plan_.guests[messages_[message].from];
  const std::uint32_t answer =
      add(Kind::answer, index, asker.segment, std::uint64_t{1} << asker.member);
  world_.after(dice_.between(Nanoseconds{}, milliseconds(2)),
               [this, index, to = packet->source, source_port, answer] {
                 send_packet(index, to, kAskedPort, source_port, answer);
               });
}

// True: it is for this guest, and new.
bool FabricTraffic::take(std::size_t index, std::uint32_t number, bool is_mine) {
  const PlannedGuest& guest = plan_.guests[index];
  if (number >= messages_.size()) return fail_("a frame that nobody sent"), false;
  Message& message = messages_[number];
  const auto wrong = [&](std::string_view what) {
    fail_(fmt::format("{} {}: {}", plan_.residents[guest.resident].name, what, describe(number)));
    return false;
  };
  if (plan_.guests[message.from].tenant != guest.tenant) return wrong("heard another tenant");
  if (!is_mine) return ++overheard_, false;
  const std::uint64_t bit = std::uint64_t{1} << guest.member;
  const bool is_echo = message.sent <= stacks_[index].reconnected;
  if (message.segment != guest.segment || (message.expected & bit) == 0) {
    return is_echo && message.from == index ? false : wrong("heard what is not for it");
  }
  if ((message.heard & bit) != 0) return is_echo ? false : wrong("heard twice");
  message.heard |= bit;
  ++heard_;
  if (keeps_order && message.kind == Kind::unicast) {
    std::size_t& latest = stacks_[index].latest[message.from];
    if (latest > number) return wrong("heard too late");
    latest = number;
  }
  return true;
}

// ---- what is told of it ----

std::string FabricTraffic::unheard(std::size_t first) const {
  std::size_t count = 0, example = 0;
  for (std::size_t i = first; i < messages_.size(); ++i) {
    if (messages_[i].heard != messages_[i].expected && count++ == 0) example = i;
  }
  if (count == 0) return {};
  return fmt::format("{} messages were not heard by all, the first: {}", count, describe(example));
}

std::string FabricTraffic::describe(std::size_t number) const {
  static constexpr const char* kKinds[] = {"broadcast", "unicast", "question", "answer"};
  const Message& message = messages_[number];
  std::string missing;
  const PlannedSegment& segment = plan_.segments[message.segment];
  for (const std::size_t each : segment.guests) {
    const std::uint64_t bit = std::uint64_t{1} << plan_.guests[each].member;
    if ((message.expected & ~message.heard & bit) == 0) continue;
    missing += " " + plan_.residents[plan_.guests[each].resident].name;
  }
  return fmt::format("{} {} of {} at {:.3f} ms to segment {} of tenant {}, not heard by:{}",
                     kKinds[static_cast<std::size_t>(message.kind)], number,
                     plan_.residents[plan_.guests[message.from].resident].name,
                     to_ms(message.sent - World::kBegin), segment.number, segment.tenant,
                     missing.empty() ? " nobody" : missing);
}

}  // namespace godwit::sim
