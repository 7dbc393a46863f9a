#pragma once
// Rules for packets, in order: the first that fits decides, else `otherwise`.
//
// A rule is asked about packets of the states that it names; one that names none about new ones.
// What is established or related passes, unless a rule that names that state refuses it. Packets of
// no state (invalid) never come here.
#include <optional>
#include <vector>

#include "base/result.hh"
#include "net/flow.hh"

namespace godwit::net {

// Where packets come from or go to that are the router's own.
inline constexpr PortIndex kItself = 0xffff;

// Sets of them. New: of a flow that was not answered yet.
enum PacketState : std::uint8_t { kNew = 1, kEstablished = 2, kRelated = 4 };

enum class Action : std::uint8_t { allow, drop, reject };

struct PortRange {
  std::uint16_t first = 0, last = 65535;
  bool operator==(const PortRange&) const = default;
  bool contains(std::uint16_t port) const { return first <= port && port <= last; }
  std::size_t size() const { return std::size_t{last} - first + 1; }
};

// What is empty fits all.
struct FilterRule {
  Action action = Action::allow;
  bool log = false;
  std::vector<PortIndex> in{}, out{};      // kItself, too
  std::vector<IpPrefix> from{}, to{};      // the destination as forwarded, the source as it came
  std::optional<std::uint8_t> protocol{};  // kIcmp: ICMPv6, too
  std::vector<PortRange> source_ports{}, destination_ports{};  // of TCP and UDP
  std::vector<std::uint8_t> icmp_types{};
  std::uint8_t states = 0;  // of PacketState
  bool operator==(const FilterRule&) const = default;
};

struct FilterConfig {
  std::vector<FilterRule> rules{};
  Action otherwise = Action::allow;
  bool operator==(const FilterConfig&) const = default;
};
Result<> check(const FilterConfig& config);

// Of a rule, since it is there. `logged`: those of rules with `log`.
struct RuleCounters {
  std::uint64_t packets = 0, bytes = 0, logged = 0;
  bool operator==(const RuleCounters&) const = default;
};

struct FilterSubject {
  PortIndex in = 0, out = 0;
  Tuple tuple{};
  std::uint8_t icmp_type = 0;
  PacketState state = kNew;
  std::size_t bytes = 0;  // of IP
};

class Filter final {
 public:
  explicit Filter(FilterConfig config) { configure(std::move(config)); }
  // A rule that stays as it is keeps its counters.
  void configure(FilterConfig config);

  // Whether judge() need be asked at all.
  bool asks_about(PacketState state) const { return (asked_ & state) != 0; }
  // Empty: it passes. "rule", "policy"; "reject": a rule or the policy says so, with an answer.
  std::string_view judge(const FilterSubject& subject);
  bool refuses(const FilterSubject& subject) const;                        // counts nothing
  const std::vector<RuleCounters>& counters() const { return counters_; }  // by rule

 private:
  static constexpr std::size_t kNoRule = ~std::size_t{0};
  std::size_t find(const FilterSubject& subject) const;

  FilterConfig config_;
  std::vector<RuleCounters> counters_;
  std::uint8_t asked_ = kNew;
};

}  // namespace godwit::net
