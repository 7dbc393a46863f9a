#include "os/asked_addresses.hh"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netinet/in.h>

#include <algorithm>
#include <map>
#include <ranges>

#include "os/nftables.hh"
#include "os/relay_route.hh"

namespace godwit::os {
namespace {

constexpr const char* kTable = "godwit_asked";
// As tracking's, for who is silent (os/connection_tracking.cc).
constexpr const char* kForgottenAfter = "10m";

struct Family {
  const char* ip;
  int number;
  const char* type;
  const char* groups;  // addresses that are not one host's
};
constexpr Family kFamily4{"ip", 4, "ipv4_addr", "224.0.0.0/3"};
constexpr Family kFamily6{"ip6", 6, "ipv6_addr", "ff00::/8"};

std::string sets(const Family& its) {
  return fmt::format(R"(
  set chosen{0} {{ type {1}; }}
  set others{0} {{ type {1}; }}
  map next{0} {{ type {1} : {1}; }}
)",
                     its.number, its.type);
}

// By what packets say.
std::string asked_set(const Family& its) {
  return fmt::format(R"(
  set asked{0} {{
    type {1} . {1} . inet_service . inet_service;
    flags dynamic,timeout; timeout {2}; size {3};
  }}
)",
                     its.number, its.type, kForgottenAfter, kMostAsked);
}

// The guest's addresses are a ring: from the chosen one on each is tried, until it is that again.
std::string choosing_rules(const Family& its) {
  std::string text;
  for (std::size_t tried = 0; tried <= kMostOthers; ++tried) {
    text += fmt::format(R"(
    {0} daddr . {0} saddr . udp dport . udp sport @asked{1} return
    {0} saddr set {0} saddr map @next{1}
    {0} saddr @chosen{1} return
)",
                        its.ip, its.number);
  }
  return text;
}

// What has another than the chosen address has that for a reason.
std::string answering_rules(const Family& its) {
  return fmt::format(R"(
    {0} saddr @chosen{1} jump choosing{1}
    {0} saddr @others{1} {0} daddr != {2} update @asked{1} {{ {0} daddr . {0} saddr . udp dport . udp sport }}
)",
                     its.ip, its.number, its.groups);
}

std::string asking_rules(const Family& its) {
  std::string text;
  for (const char* set : {"chosen", "others"}) {
    text += fmt::format(
        "    {0} daddr @{2}{1} update @asked{1} {{ {0} saddr . {0} daddr . udp sport . udp dport "
        "}}\n",
        its.ip, its.number, set);
  }
  return text;
}

std::string both(std::string (*rules)(const Family&)) { return rules(kFamily4) + rules(kFamily6); }

std::string chains() {
  std::string text;
  for (const Family& its : {kFamily4, kFamily6}) {
    text += fmt::format("  chain choosing{} {{{}  }}\n", its.number, choosing_rules(its));
  }
  text += "  chain answering {\n    type filter hook prerouting priority -350;\n";
  text += "    meta l4proto != udp return\n" + both(answering_rules) + "  }\n";
  text += "  chain asking {\n    type filter hook postrouting priority 299;\n";
  text += "    meta l4proto != udp return\n" + both(asking_rules) + "  }\n";
  return text;
}

void add(std::string& text, const char* set, const Ip& of, const std::string& element) {
  text +=
      fmt::format("add element inet {} {}{} {{ {} }}\n", kTable, set, of.is4() ? 4 : 6, element);
}

std::string elements(const ManyHomed& guest) {
  std::string text;
  add(text, "chosen", guest.chosen, guest.chosen.text());
  Ip before = guest.chosen;
  for (const Ip& other : guest.others | std::views::take(kMostOthers)) {
    add(text, "others", other, other.text());
    add(text, "next", other, fmt::format("{} : {}", before.text(), other.text()));
    before = other;
  }
  add(text, "next", before, fmt::format("{} : {}", before.text(), guest.chosen.text()));
  return text;
}

}  // namespace

Result<> set_asked_rules(const std::vector<ManyHomed>& guests) try {
  if (guests.empty()) return remove_inet_table(kTable);
  // What has another's address for its source would be refused.
  for (const ManyHomed& each : guests) accept_detours(each.interface);
  InetTable table{
      .name = kTable, .objects = both(sets), .chains = chains(), .kept = both(asked_set)};
  for (const ManyHomed& each : guests) table.elements += elements(each);
  return write_inet_table(table);
} catch (const SetupError& error) {
  return fail("{}", error.what());
}

Result<> remember_asked(const std::vector<ManyHomed>& guests,
                        const std::vector<Connection>& connections) {
  std::map<int, std::vector<std::string>> asked;
  for (const Connection& each : connections) {
    if (each.protocol != IPPROTO_UDP) continue;
    // Nobody asked for what it has chosen itself.
    const bool is_chosen = std::ranges::any_of(
        guests, [&](const ManyHomed& guest) { return guest.chosen == each.guest; });
    if (is_chosen && each.from_guest) continue;
    asked[each.guest.is4() ? 4 : 6].push_back(fmt::format(
        "{} . {} . {} . {}", each.peer.text(), each.guest.text(), each.peer_port, each.guest_port));
  }
  std::string text;
  for (auto& [family, elements] : asked) {
    elements.resize(std::min(elements.size(), kMostAsked));
    text += fmt::format("add element inet {} asked{} {{ {} }}\n", kTable, family,
                        fmt::join(elements, ", "));
  }
  return text.empty() ? Result<>{} : apply_nftables(text);
}

Result<bool> has_asked_rules() { return has_inet_table(kTable); }

}  // namespace godwit::os
