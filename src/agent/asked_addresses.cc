#include "agent/asked_addresses.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "agent/connection_list.hh"

namespace godwit::agent {
namespace {

constexpr const char* kKind = "guest nics";
constexpr const char* kKey = "vms";  // the only one

}  // namespace

void AskedAddresses::start() {
  kept_ = store_.find(kKind, kKey).value_or(nullptr);
  for (const auto& each : array_field(kept_, "nics")) {
    if (const auto nic = id_field<PortId>(each, "nic")) vms_[*nic] = text_field_or(each, "vm", "");
  }
  if (wanted().empty()) (void)os::set_asked_rules({});  // of a life before
}

void AskedAddresses::know(const std::vector<Network::GuestNic>& nics) {
  std::erase_if(vms_, [&](const auto& known) {
    return std::ranges::find(nics, known.first, &Network::GuestNic::nic) == nics.end();
  });
  for (const auto& each : nics) {
    if (!each.vm.empty()) vms_[each.nic] = each.vm;
  }
}

// At home by one NIC, and here with another. Of several at home the first.
std::vector<os::ManyHomed> AskedAddresses::wanted() {
  const auto nics = network_.guest_nics();
  know(nics);
  std::map<std::tuple<std::string, bool, bool>, os::ManyHomed> found;
  for (const auto& nic : nics) {
    const auto vm = vms_.find(nic.nic);
    if (vm == vms_.end()) continue;
    for (const GuestAddress& each : nic.guest) {
      // Another vm may have its name when it has gone.
      os::ManyHomed& its = found[{vm->second, nic.vm.empty(), each.address.is4()}];
      if (each.locator || each.new_address) {
        its.others.insert(each.address);
      } else if (its.interface.empty()) {
        its.chosen = each.address;
        its.interface = nic.interface;
      }
    }
  }
  std::vector<os::ManyHomed> guests;
  for (auto& [which, its] : found) {
    if (!its.interface.empty() && !its.others.empty()) guests.push_back(std::move(its));
  }
  return guests;
}

void AskedAddresses::look() {
  const auto is_there = os::has_asked_rules();
  if (is_there && !*is_there) written_.clear();
  if (wanted() != written_) update();
}

// Ten thousand take 0.1 s (2026-11): not while packets for a guest wait for its uplink, which comes
// here again when it runs.
void AskedAddresses::update() {
  write();
  if (std::ranges::any_of(network_.guest_nics(), &Network::GuestNic::is_held)) return;
  remembering_ = loop_.after(Nanoseconds(0), [this] {
    keep();
    if (!written_.empty()) remember();
  });
}

void AskedAddresses::write() {
  auto guests = wanted();
  if (guests == written_) return;
  const auto done = os::set_asked_rules(guests);
  tell(done);
  if (done) written_ = std::move(guests);
}

void AskedAddresses::keep() {
  nlohmann::json nics = nlohmann::json::array();
  for (const auto& [nic, vm] : vms_) nics.push_back({{"nic", nic.text()}, {"vm", vm}});
  nlohmann::json all = written_.empty() ? nlohmann::json() : nlohmann::json{{"nics", nics}};
  if (all == kept_) return;
  kept_ = std::move(all);
  kept_.is_null() ? store_.erase(kKind, kKey) : store_.put(kKind, kKey, kept_);
}

void AskedAddresses::remember() try {
  std::set<Ip> addresses;
  for (const auto& each : written_) {
    addresses.insert(each.chosen);
    addresses.insert(each.others.begin(), each.others.end());
  }
  auto connections = os::connections_of(addresses);
  std::erase_if(connections, [](const auto& each) { return !can_be_told(each); });
  tell(os::remember_asked(written_, connections));
} catch (const SetupError& error) {
  tell(fail("{}", error.what()));
}

void AskedAddresses::tell(const Result<>& done) {
  const std::string trouble = done ? std::string() : done.error().text;
  if (!trouble.empty() && trouble != trouble_) {
    spdlog::error("datagrams of guests with addresses of several networks: {}", trouble);
  }
  trouble_ = trouble;
}

}  // namespace godwit::agent
