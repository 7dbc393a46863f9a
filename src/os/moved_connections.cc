#include "os/moved_connections.hh"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "os/nftables.hh"
#include "os/quoted_rewriting.hh"

namespace godwit::os {
namespace {

constexpr const char* kTable = "godwit_endpoint";
// Bits of a packet's mark, from one chain to the next.
constexpr std::uint32_t kDirect = 0x02000000;
constexpr std::uint32_t kToNewAddress = 0x08000000;
constexpr std::uint32_t kToOldConnection = 0x01000000;

// Of one family: `ip` and 4, or `ip6` and 6.
std::string sets_of(const char* type, int family) {
  std::string text;
  for (const char* map : {"way", "fresh", "quoted_from", "quoted_to"}) {
    text += fmt::format("  map {0}{1} {{ type {2} : {2}; }}\n", map, family, type);
  }
  for (const char* map : {"moved", "coming"}) {
    text += fmt::format("  map {0}{1} {{ type {2} . {2} : {2}; }}\n", map, family, type);
  }
  text += fmt::format("  set direct{0} {{ type {1} . {1}; }}\n", family, type);
  for (const char* set : {"away", "old", "new", "local", "refused", "led"}) {
    text += fmt::format("  set {}{} {{ type {}; }}\n", set, family, type);
  }
  return text;
}

std::string arriving_rules(const char* ip, int family) {
  return fmt::format(R"(
    {0} daddr @new{1} meta mark set meta mark or {2}
    {0} daddr @old{1} meta mark set meta mark or {3}
    {0} saddr set {0} saddr . {0} daddr map @coming{1}
)",
                     ip, family, kToNewAddress, kToOldConnection);
}

std::string to_correspondent_rules(const char* ip, int family) {
  return fmt::format(
      "    ct mark and {2} == {2} {0} daddr set {0} saddr . {0} daddr map @moved{1}\n", ip, family,
      kLabelledMark);
}

std::string choosing_rules(const char* ip, int family) {
  return fmt::format(R"(
    {0} saddr @away{1} ct mark and {5} == {2} {0} daddr != @local{1} {0} saddr . {0} daddr @direct{1} meta mark set meta mark or {3}
    {0} saddr @away{1} ct mark and {5} == {2} {0} daddr != @local{1} meta mark and {3} == 0 meta mark set meta mark or {4}
    {0} saddr @led{1} ct mark and {6} == {6} meta mark set meta mark or {4}
)",
                     ip, family, kInheritedMark, kDirect, kRelayMark, kInheritedMark | kRenamedMark,
                     kRenamedMark);
}

std::string leaving_rules(const char* ip, int family) {
  return fmt::format(R"(
    meta mark and {2} == {2} {0} saddr set {0} saddr map @way{1}
    ct mark and {3} == {3} {0} saddr set {0} saddr map @fresh{1}
    {0} daddr != @local{1} ct mark and {4} == 0 {0} saddr set {0} saddr map @fresh{1}
)",
                     ip, family, kDirect, kNewAddressMark, kInheritedMark);
}

// Who sent to the new address, or is answered from it, knows no other.
std::string explaining_rules(const char* ip, int family) {
  return fmt::format("    {0} daddr @local{1} ct mark and {2} == 0 return\n", ip, family,
                     kNewAddressMark);
}

std::string both(std::string (*rules)(const char*, int)) {
  return rules("ip", 4) + rules("ip6", 6);
}

std::string sets() {
  return sets_of("ipv4_addr", 4) + sets_of("ipv6_addr", 6) +
         "  set relays { type ifname; }\n  set renaming { type ifname; }\n";
}

std::string chains() {
  std::string text = "  chain arriving {\n    type filter hook prerouting priority -460;\n";
  text += both(arriving_rules) + "  }\n";
  text += fmt::format(R"(
  chain choosing {{
    type filter hook prerouting priority -140;
    iif lo return
    icmpv6 type 133-137 return
    meta mark and {0} == {0} ct mark set ct mark or {1}
    meta mark and {2} == {2} ct mark set ct mark or {3}
    iifname @renaming ct state new ct mark set ct mark or {4}
    iifname @relays ct mark set ct mark or {3}
)",
                      kToNewAddress, kNewAddressMark, kToOldConnection, kInheritedMark,
                      kInheritedMark | kRenamedMark);
  text += both(choosing_rules) + both(to_correspondent_rules) + "  }\n";
  text += "  chain sending {\n    type route hook output priority -140;\n";
  text += "    icmpv6 type 133-137 return\n" + both(to_correspondent_rules) + "  }\n";
  text += fmt::format(R"(
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }}
  chain refusing {{
    type filter hook forward priority 0;
    ip daddr @refused4 jump refuse
    ip6 daddr @refused6 jump refuse
    meta mark and {0} != {0} return
    oifname @relays return
    jump refuse
  }}
)",
                      kRelayMark);
  text += "  chain leaving {\n    type filter hook postrouting priority 300;\n";
  text += "    oifname @relays return\n" + both(leaving_rules) + "  }\n";
  text += fmt::format(R"(
  chain explaining {{
    type filter hook postrouting priority 301;
    oifname @relays return
    ct mark and {0} == {1} return
)",
                      kInheritedMark | kNewAddressMark, kInheritedMark);
  text += both(explaining_rules) + "  }\n";
  text += "  chain reporting {\n    type filter hook output priority -450;\n  }\n";
  return text;
}

// What sets and maps have, as nft(8) says it: "way4" {"10.1.1.20 : 10.2.1.200"}.
class Elements final {
 public:
  void add(const std::string& set, const Ip& family, std::string element) {
    of_[set + (family.is4() ? '4' : '6')].insert(std::move(element));
  }
  void add(const std::string& set, std::string element) { of_[set].insert(std::move(element)); }
  Elements without(const Elements& others) const {
    Elements left = *this;
    for (auto& [set, elements] : left.of_) {
      const auto theirs = others.of_.find(set);
      if (theirs == others.of_.end()) continue;
      std::erase_if(elements, [&](const auto& each) { return theirs->second.contains(each); });
    }
    return left;
  }
  std::string text(const char* verb) const {
    std::string text;
    for (const auto& [set, elements] : of_) {
      if (elements.empty()) continue;
      text += fmt::format("{} element inet {} {} {{ {} }}\n", verb, kTable, set,
                          fmt::join(elements, ", "));
    }
    return text;
  }

 private:
  std::map<std::string, std::set<std::string>> of_;
};

std::string text_of(const MovedRules::Pair& pair) {
  return fmt::format("{} . {}", pair.first.text(), pair.second.text());
}

Elements elements_of(const MovedRules& rules) {
  Elements elements;
  const auto map = [&](const char* set, const Ip& from, const Ip& to) {
    elements.add(set, from, fmt::format("{} : {}", from.text(), to.text()));
  };
  std::map<Ip, Ip> quoted_from, quoted_to;
  for (const auto& [guest, way] : rules.on_the_way) {
    map("way", guest, way);
    for (const char* set : {"away", "led"}) elements.add(set, guest, guest.text());
    elements.add("old", guest, way.text());
    quoted_from.emplace(way, guest);
  }
  for (const auto& [guest, address] : rules.new_address) {
    map("fresh", guest, address);
    elements.add("new", guest, address.text());
    quoted_from.emplace(address, guest);
  }
  for (const auto& pair : rules.direct) elements.add("direct", pair.first, text_of(pair));
  for (const auto& [pair, way] : rules.moved) {
    elements.add("moved", way, fmt::format("{} : {}", text_of(pair), way.text()));
    quoted_to.emplace(way, pair.second);
  }
  for (const auto& [pair, guest] : rules.coming) {
    elements.add("coming", guest, fmt::format("{} : {}", text_of(pair), guest.text()));
  }
  for (const auto& [from, to] : quoted_from) map("quoted_from", from, to);
  for (const auto& [from, to] : quoted_to) map("quoted_to", from, to);
  for (const Ip& guest : rules.at_home) elements.add("led", guest, guest.text());
  for (const Ip& guest : rules.refused) elements.add("refused", guest, guest.text());
  for (const Ip& guest : rules.local) elements.add("local", guest, guest.text());
  for (const std::string& relay : rules.relays) elements.add("relays", '"' + relay + '"');
  for (const std::string& relay : rules.renaming) elements.add("renaming", '"' + relay + '"');
  return elements;
}

Result<> add_quoted(const char* chain, const std::string& map, bool of_source) {
  return add_quoted_rules({.table = kTable,
                           .chain = chain,
                           .map4 = map + '4',
                           .map6 = map + '6',
                           .of_source = of_source});
}

Result<> add_quoted() {
  for (const char* chain : {"arriving", "reporting"}) {
    auto done = add_quoted(chain, "quoted_from", true);
    if (done) done = add_quoted(chain, "quoted_to", false);
    if (!done) return done;
  }
  return add_quoted("explaining", "fresh", false);
}

}  // namespace

Result<> set_moved_rules(const MovedRules& rules) {
  if (rules.empty()) return remove_inet_table(kTable);
  auto done = write_inet_table({.name = kTable,
                                .objects = sets(),
                                .chains = chains(),
                                .elements = elements_of(rules).text("add")});
  return done ? add_quoted() : done;
}

// A table takes milliseconds to be written, its elements a tenth of that.
Result<> change_moved_rules(const MovedRules& before, const MovedRules& after) {
  if (before.empty() || after.empty()) return set_moved_rules(after);
  const Elements were = elements_of(before), are = elements_of(after);
  return apply_nftables(were.without(are).text("delete") + are.without(were).text("add"));
}

Result<bool> has_moved_rules() { return has_inet_table(kTable); }

}  // namespace godwit::os
