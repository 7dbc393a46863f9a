#include "agent/device_driver.hh"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "agent/records.hh"
#include "qemu/json.hh"
#include "translate/rule_json.hh"

namespace godwit::agent {
namespace {

using nlohmann::json;
using translate::Rules;
using translate::Version;

constexpr std::string_view kGuestRules = "guest-rules";
constexpr std::size_t kMostAnswer = 512UL * 1024;  // half of what a session's message carries
constexpr std::size_t kMostName = 255;  // vms' are shorter, libvirt's domains' may not be

// As rule.set has it, and a record.
struct NamedRules {
  std::string guest, name;
  translate::GuestRules its{};
};

json to_json(const NamedRules& rules) {
  return {{"guest", rules.guest},
          {"name", rules.name},
          {"epoch", rules.its.version.epoch},
          {"phase", to_text(rules.its.version.phase)},
          {"rules", translate::to_json(rules.its.rules)}};
}

Result<NamedRules> parse_named(const json& object) {
  NamedRules named{.guest = text_field_or(object, "guest", ""),
                   .name = text_field_or(object, "name", "")};
  if (!is_valid_name(named.guest)) return fail("'guest': '{}' is no guest's id", named.guest);
  if (named.name.empty() || named.name.size() > kMostName) {
    return fail("'name': a text of 1 to {} bytes", kMostName);
  }
  const json& epoch = qemu::member(object, "epoch");
  if (!epoch.is_number_integer() || epoch < 0) return fail("'epoch' is a number from 0 on");
  const auto phase = translate::parse_phase(text_field_or(object, "phase", ""));
  if (!phase) return std::unexpected(phase.error());
  auto rules = translate::parse_rules(qemu::member(object, "rules"));
  if (!rules) return std::unexpected(rules.error());
  named.its = {.version = {.epoch = epoch.get<std::uint64_t>(), .phase = *phase},
               .rules = *std::move(rules)};
  return named;
}

json to_json(const DeviceKernel::Difference& difference) {
  return {{"ok", difference.empty()},
          {"missing", translate::to_json(difference.missing)},
          {"claims_missing", translate::to_json(difference.claims_missing)},
          {"foreign", translate::to_json(difference.foreign)},
          {"forwarding_off", difference.forwarding_off}};
}

json written_by(const DeviceKernel::Difference& difference) {
  Rules written = difference.missing;
  written.insert(written.end(), difference.claims_missing.begin(), difference.claims_missing.end());
  return {{"removed", translate::to_json(difference.foreign)},
          {"written", translate::to_json(written)}};
}

}  // namespace

DeviceDriver::DeviceDriver(os::Loop& loop, const Config& config, store::Store& store,
                           Events& events)
    : loop_(loop), config_(config), store_(store), events_(events) {}

void DeviceDriver::start() {
  load();
  const bool is_done = rules_.guests().empty() || mend(true);
  timer_ = loop_.after(is_done ? kLookInterval : kRetryInterval, [this] { look(); });
}

void DeviceDriver::load() {
  for (const auto& [key, body] : store_.list(kGuestRules)) {
    const auto named = parse_named(body);
    const auto taken = named ? rules_.set(named->guest, named->its.version, named->its.rules)
                             : Result<>(std::unexpected(named.error()));
    if (!taken) {
      fail_setup("the agent's store holds damaged rules of guest {}: {}", key, taken.error().text);
    }
    names_[named->guest] = named->name;
  }
}

// ---- one guest's ----

Result<> DeviceDriver::set(const std::string& guest, const std::string& name,
                           const Version& version, const Rules& rules) {
  const auto known = rules_.guests().find(guest);
  if (known != rules_.guests().end() && version <= known->second.version) return {};
  const auto refuse = [&](const Error& error) {
    return fail("give device {} the rules of guest {} ({}, epoch {}): {}; nothing was changed",
                config_.name, name, to_text(version.phase), version.epoch, error.text);
  };
  if (const auto good = DeviceKernel::check(rules); !good) return refuse(good.error());
  translate::DeviceRules next = rules_;
  if (const auto taken = next.set(guest, version, rules); !taken) return refuse(taken.error());
  auto done = write(next, rules);
  if (done) {
    done = store_.record(
        kGuestRules, guest,
        to_json(
            NamedRules{.guest = guest, .name = name, .its = {.version = version, .rules = rules}}));
  }
  if (!done) {
    go_back();
    return refuse(done.error());
  }
  rules_ = std::move(next);
  names_[guest] = name;
  std::erase_if(names_, [&](const auto& each) {  // whose version is not remembered any more
    if (rules_.guests().contains(each.first)) return false;
    store_.erase(kGuestRules, each.first);
    return true;
  });
  events_.publish("rule", {{"guest", guest},
                           {"name", name},
                           {"event", to_text(version.phase)},
                           {"rules", rules.size()}});
  return {};
}

Result<Rules> DeviceDriver::forget(const std::string& guest) {
  const auto known = rules_.guests().find(guest);
  if (known == rules_.guests().end()) return {};
  Rules had = known->second.rules;
  translate::DeviceRules next = rules_;
  next.forget(guest);
  if (const auto done = write(next, {}); !done) {
    go_back();
    return fail("remove the rules of guest {} from device {}: {}; nothing was changed",
                names_[guest], config_.name, done.error().text);
  }
  rules_ = std::move(next);
  store_.erase(kGuestRules, guest);
  events_.publish("rule", {{"guest", guest}, {"name", names_[guest]}, {"event", "forgotten"}});
  names_.erase(guest);
  return had;
}

// Claims of `needed` have to be made; of others they are tried again later.
Result<> DeviceDriver::write(const translate::DeviceRules& next, const Rules& needed) {
  const auto unclaimed = kernel_.write(next.content());
  if (!unclaimed) return std::unexpected(unclaimed.error());
  for (const auto& rule : needed) {
    const auto found = unclaimed->find(rule.match);
    if (found == unclaimed->end() || rewrites(rule.kind) || !rule.is_active) continue;
    return fail("'{}': {}", to_text(rule), found->second);
  }
  return {};
}

void DeviceDriver::go_back() {
  if (has_all(kernel_.write(rules_.content()))) return;
  timer_ = loop_.after(kRetryInterval, [this] { look(); });
}

// ---- all that is there ----

bool DeviceDriver::has_all(const Result<DeviceKernel::Unclaimed>& written) {
  if (!written) {
    tell_trouble(written.error().text);
  } else if (!written->empty()) {
    tell_trouble(written->begin()->second);
  } else {
    tell_trouble({});
    return true;
  }
  return false;
}

void DeviceDriver::tell_trouble(const std::string& trouble) {
  if (trouble == trouble_) return;
  if (trouble.empty()) spdlog::info("device {} has all its rules again", config_.name);
  if (!trouble.empty()) {
    spdlog::error("device {} does not have all its rules: {}; tried again every {}", config_.name,
                  trouble, to_text(kRetryInterval));
  }
  trouble_ = trouble;
}

bool DeviceDriver::mend(bool is_start) {
  const Rules wanted = rules_.content();
  if (is_start) return has_all(kernel_.repair(wanted));
  const auto is_good = kernel_.is_as_wanted(wanted);
  if (is_good && *is_good) return has_all(DeviceKernel::Unclaimed());
  const auto difference = is_good
                              ? kernel_.compare(wanted)
                              : Result<DeviceKernel::Difference>(std::unexpected(is_good.error()));
  if (!difference) return has_all(std::unexpected(difference.error()));
  if (trouble_.empty()) spdlog::warn("device {}: its rules were changed by others", config_.name);
  if (!has_all(kernel_.repair(wanted))) return false;
  json event = written_by(*difference);
  event["event"] = "repaired";
  event["forwarding_off"] = difference->forwarding_off;
  events_.publish("rule", event);
  return true;
}

void DeviceDriver::look() {
  const bool is_done = rules_.guests().empty() || mend(false);
  timer_ = loop_.after(is_done ? kLookInterval : kRetryInterval, [this] { look(); });
}

json DeviceDriver::describe() const {
  const auto packets = os::AddressRewriting::departed();
  json all = json::array();
  for (const auto& [guest, its] : rules_.guests()) {
    const json rules = translate::to_json(its.rules);
    for (std::size_t i = 0; i < its.rules.size(); ++i) {
      const translate::Rule& rule = its.rules[i];
      json one = rules[i];
      one.update({{"guest", guest},
                  {"name", names_.at(guest)},
                  {"epoch", its.version.epoch},
                  {"phase", to_text(its.version.phase)}});
      if (packets && rule.kind == translate::RuleKind::depart && rule.is_active) {
        const auto counted = packets->find(rule.match);
        one["packets"] = counted == packets->end() ? 0 : counted->second;
      }
      all.push_back(std::move(one));
    }
  }
  return all;
}

Result<json> DeviceDriver::verify() {
  const auto difference = kernel_.compare(rules_.content());
  if (!difference) {
    return fail("read the rules of device {}: {}", config_.name, difference.error().text);
  }
  return to_json(*difference);
}

Result<json> DeviceDriver::repair() {
  const Rules wanted = rules_.content();
  const auto difference = kernel_.compare(wanted);
  if (!difference) {
    return fail("read the rules of device {}: {}", config_.name, difference.error().text);
  }
  if (!difference->empty() && !has_all(kernel_.repair(wanted))) {
    return fail("repair the rules of device {}: {}", config_.name, trouble_);
  }
  return written_by(*difference);
}

// ---- requests ----

Result<json> DeviceDriver::set_as_asked(const json& body) {
  const auto named = parse_named(body);
  if (!named) return fail("rule.set: {}", named.error().text);
  const auto done = set(named->guest, named->name, named->its.version, named->its.rules);
  return done ? Result<json>(json::object()) : std::unexpected(done.error());
}

Result<json> DeviceDriver::forget_as_asked(const json& body) {
  const auto had = forget(text_field_or(body, "guest", ""));
  return had ? Result<json>(json{{"removed", translate::to_json(*had)}})
             : std::unexpected(had.error());
}

// Of those addresses that packets depart for.
Result<json> DeviceDriver::departed(const json& body) const {
  const auto packets = os::AddressRewriting::departed();
  if (!packets) return std::unexpected(packets.error());
  json counts = json::object();
  for (const std::string& text : texts_field(body, "addresses")) {
    const auto address = parse_ip(text);
    const auto found = address ? packets->find(*address) : packets->end();
    if (found != packets->end()) counts[text] = found->second;
  }
  return json{{"packets", counts}};
}

Result<json> DeviceDriver::answer_to(const std::string& method, const json& body) {
  if (method == "rule.set") return set_as_asked(body);
  if (method == "rule.departed") return departed(body);
  if (method == "rule.forget") return forget_as_asked(body);
  if (method == "rule.list") return json{{"rules", describe()}};
  if (method == "rule.verify") return verify();
  if (method == "rule.repair") return repair();
  return fail("unknown request '{}'", method);
}

void DeviceDriver::on_request(PeerRequest request, const json& body) {
  const auto answer = answer_to(request.method, body);
  if (answer && answer->dump().size() > kMostAnswer) {
    return request.answer(
        fail("device {} has too many rules for one message: ask it alone, godwit "
             "--at {} rule ls",
             config_.name, config_.name));
  }
  request.answer(answer);
}

}  // namespace godwit::agent
