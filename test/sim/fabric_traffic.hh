#pragma once
// What guests of a fabric say to each other, and who has heard it. Always: nobody hears what is not
// for him, or anything twice, and nothing crosses from one tenant to another. Whether all that
// should have been heard was, is asked for.
//
// Guests have a MAC and an IPv4 address, resolve whom they send packets to by ARP, and answer what
// they are asked.
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "fabric_plan.hh"
#include "net/arp.hh"
#include "net/packet.hh"

namespace godwit::sim {

class FabricTraffic final {
 public:
  // The frame leaves the guest, or waits as long as it stands.
  using Send = std::function<void(std::size_t guest, Bytes frame)>;
  using Fail = std::function<void(std::string)>;
  FabricTraffic(const FabricPlan& plan, World& world, Dice& dice, Send send, Fail fail);

  // A frame to all of the guest's segment, or to one; a UDP datagram to any guest of the tenant,
  // which answers if it may be reached.
  void broadcast(std::size_t from);
  void unicast(std::size_t from, std::size_t to);
  void ask(std::size_t from, std::size_t to);
  // The guest is at another port of its segment from now on: what was sent before may be there,
  // too.
  void reconnected(std::size_t guest) { stacks_[guest].reconnected = world_.now(); }
  // A frame at the guest's NIC.
  void arrived(std::size_t guest, BytesView frame);

  std::size_t messages() const { return messages_.size(); }
  // The first of the messages from `first` on that was not heard by all whom it is for; empty:
  // there is none.
  std::string unheard(std::size_t first) const;
  // Frames to one, not to all, that were at others, too: switches did not know where he was.
  std::uint64_t overheard() const { return overheard_; }
  std::uint64_t heard() const { return heard_; }
  // Frames of one guest to another's address then come in order.
  bool keeps_order = false;

 private:
  enum class Kind : std::uint8_t { broadcast, unicast, ask, answer };
  struct Message {
    Kind kind{};
    std::size_t from = 0;
    std::size_t segment = 0;     // of those whom it is for
    std::uint64_t expected = 0;  // its members
    std::uint64_t heard = 0;
    Instant sent{};
  };
  struct Waiting {  // for an answer to ARP
    Instant asked{};
    std::vector<Bytes> frames{};
  };
  struct Stack {
    std::map<Ip, net::Mac> known{};
    std::map<Ip, Waiting> unknown{};
    std::map<std::size_t, std::size_t> latest{};  // by sender: frames to an address
    Instant reconnected{};
  };

  std::uint32_t add(Kind kind, std::size_t from, std::size_t segment, std::uint64_t expected);
  void send_frame(std::size_t from, net::Mac to, std::uint32_t message);
  void send_packet(std::size_t from, Ip to, std::uint16_t source_port, std::uint16_t port,
                   std::uint32_t message);
  void later(std::size_t from, Bytes frame);
  void take_arp(std::size_t guest, BytesView frame);
  void take_packet(std::size_t guest, BytesView frame, bool is_mine);
  bool take(std::size_t guest, std::uint32_t message, bool is_mine);
  std::string describe(std::size_t message) const;

  const FabricPlan& plan_;
  World& world_;
  Dice& dice_;
  Send send_;
  Fail fail_;
  std::vector<Message> messages_;
  std::vector<Stack> stacks_;  // by guest
  std::uint64_t overheard_ = 0, heard_ = 0;
};

}  // namespace godwit::sim
