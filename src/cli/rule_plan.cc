// godwit rule plan: what a move with the strategy nat would write to which device, and when. Asks
// nobody.
#include <fmt/ranges.h>

#include <algorithm>
#include <ostream>

#include "base/id.hh"
#include "cli/options.hh"
#include "cli/rule_text.hh"
#include "cli/yaml_document.hh"
#include "translate/plan_json.hh"

namespace godwit::cli {
namespace {

using translate::DeviceIndex;
using translate::Fabric;
using translate::GuestMove;

struct RuleWish {
  std::string file, from, to;
  std::vector<std::string> addresses, from_locators, to_locators;
  bool detours = false;
};

Fabric read_fabric(const std::string& file) {
  auto document = read_yaml(file);
  if (!document) throw Failure(ExitStatus::usage, document.error().text);
  auto fabric = translate::parse_fabric(document->value);
  if (!fabric) throw failure_of(ExitStatus::usage, *document, fabric.error());
  return *std::move(fabric);
}

DeviceIndex host_called(const Fabric& fabric, const std::string& name) {
  const auto found = fabric.find(name);
  if (found && fabric.devices[*found].is_host()) return *found;
  std::vector<std::string> hosts;
  for (const auto& each : fabric.devices) {
    if (each.is_host()) hosts.push_back(each.name);
  }
  throw Failure(ExitStatus::usage, fmt::format("the fabric has no host '{}': it has {}", name,
                                               fmt::join(hosts, ", ")));
}

std::vector<Ip> ips(const std::vector<std::string>& texts) {
  std::vector<Ip> ips;
  for (const std::string& text : texts) {
    const auto ip = parse_ip(text);
    if (!ip) throw Failure(ExitStatus::usage, ip.error().text);
    ips.push_back(*ip);
  }
  return ips;
}

// Of the address's family; a host's locators are for either.
std::optional<Ip> take_for(const Ip& address, std::vector<Ip>& locators) {
  const auto found =
      std::ranges::find_if(locators, [&](const Ip& each) { return each.is4() == address.is4(); });
  if (found == locators.end()) return std::nullopt;
  const Ip taken = *found;
  locators.erase(found);
  return taken;
}

// That which was said, or the first that the host's edge has.
Ip new_locator(const Fabric& fabric, DeviceIndex to, const Ip& address, std::vector<Ip>& said) {
  const auto ranges = fabric.locators_of(to, address);
  const std::string& host = fabric.devices[to].name;
  if (ranges.empty()) {
    throw Failure(ExitStatus::refused,
                  fmt::format("{} cannot be at host {}: no device next to it has locators of its "
                              "family; give one some in the fabric's file",
                              address.text(), host));
  }
  const auto locator = take_for(address, said);
  if (!locator) {
    Ip first = ranges.front().address;
    ++first.low;  // the first of a network may be nobody's
    return first;
  }
  if (std::ranges::none_of(ranges, [&](const IpPrefix& each) { return each.contains(*locator); })) {
    throw Failure(ExitStatus::refused,
                  fmt::format("{} is none of the locators at host {}", locator->text(), host));
  }
  return *locator;
}

GuestMove move_of(const Fabric& fabric, const RuleWish& wish) {
  GuestMove move{.from = host_called(fabric, wish.from),
                 .to = host_called(fabric, wish.to),
                 .addresses = {},
                 .detours = wish.detours ? translate::Detours::allowed : translate::Detours::none};
  if (move.from == move.to) {
    throw Failure(ExitStatus::usage, fmt::format("the guest is at host {} already", wish.to));
  }
  auto from_locators = ips(wish.from_locators), to_locators = ips(wish.to_locators);
  for (const Ip& address : ips(wish.addresses)) {
    if (fabric.homes_of(address).empty()) {
      throw Failure(ExitStatus::refused,
                    fmt::format("{} is of no network of the fabric", address.text()));
    }
    const auto from_locator = take_for(address, from_locators);
    if (!from_locator && !fabric.is_home(move.from, address)) {
      throw Failure(ExitStatus::refused,
                    fmt::format("{} is not at home at host {}: say by which locator it is reached "
                                "there, with --from-locator",
                                address.text(), wish.from));
    }
    move.addresses.push_back({.address = address,
                              .from_locator = from_locator,
                              .to_locator = new_locator(fabric, move.to, address, to_locators)});
  }
  return move;
}

void plan(Context& context, const RuleWish& wish) {
  const Fabric fabric = read_fabric(wish.file);
  const GuestMove move = move_of(fabric, wish);
  const json told = plan_json(fabric, move);
  if (context.as_json) return context.print_json(told);
  context.io.out << plan_text(told);
}

}  // namespace

void add_rule_plan(CLI::App& noun, Context& context) {
  auto* verb = noun.add_subcommand(
      "plan",
      "What a move of a guest that keeps its address would write to which device, and when");
  auto wish = std::make_shared<RuleWish>();
  verb->add_option("fabric", wish->file, "The data centre's tiers, devices and networks (YAML)")
      ->required()
      ->check(CLI::ExistingFile)
      ->type_name("FILE");
  verb->add_option("--address", wish->addresses, "The guest's address; again for one more")
      ->required()
      ->type_name("IP");
  add_name(*verb, "--from", wish->from, "Host where it is")->required();
  add_name(*verb, "--to", wish->to, "Host where it goes")->required();
  verb->add_option("--from-locator", wish->from_locators,
                   "By what it is reached where it is, if that is not its home")
      ->type_name("IP");
  verb->add_option("--locator", wish->to_locators,
                   "By what it is to be reached there (default: the first that its edge has)")
      ->type_name("IP");
  verb->add_flag("--detours", wish->detours,
                 "The fewest rules: all packets go by way of the guest's home");
  add_json(*verb, context);
  verb->callback([&context, wish] { plan(context, *wish); });
}

}  // namespace godwit::cli
