#include "fabric/rules.hh"

#include <algorithm>
#include <charconv>

namespace godwit::fabric {
namespace {

using nlohmann::json;

constexpr std::size_t kMostFlowsShown = 1000;
constexpr std::string_view kItselfWord = "itself";

template <class Number>
std::optional<Number> number_of(std::string_view text) {
  Number number = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  return parsed.ec == std::errc{} && parsed.ptr == end ? std::optional(number) : std::nullopt;
}

// "80", "1024-65535"
Result<net::PortRange> port_range_of(const std::string& text) {
  const std::size_t dash = text.find('-');
  const auto first = number_of<std::uint16_t>(std::string_view(text).substr(0, dash));
  const auto last = dash == std::string::npos
                        ? first
                        : number_of<std::uint16_t>(std::string_view(text).substr(dash + 1));
  if (!first || !last || *last < *first) {
    return fail("'{}' is no port or range of them, like 80 or 8000-8099", text);
  }
  return net::PortRange{*first, *last};
}

Result<std::optional<std::uint8_t>> protocol_of(const std::string& text) {
  if (text.empty() || text == "any") return std::nullopt;
  for (const auto& [name, number] :
       {std::pair("tcp", net::kTcp), std::pair("udp", net::kUdp), std::pair("icmp", net::kIcmp)}) {
    if (text == name) return number;
  }
  if (const auto number = number_of<std::uint8_t>(text)) return number;
  return fail("'{}' is no protocol: tcp, udp, icmp (ICMPv6, too), any or its number", text);
}

Result<net::Action> action_of(const std::string& text) {
  if (text == "allow") return net::Action::allow;
  if (text == "drop") return net::Action::drop;
  if (text == "reject") return net::Action::reject;
  return fail("'{}' is no action: allow, drop or reject", text);
}

Result<std::uint8_t> states_of(const std::vector<std::string>& names) {
  std::uint8_t states = 0;
  for (const std::string& name : names) {
    if (name == "new") {
      states |= net::kNew;
    } else if (name == "established") {
      states |= net::kEstablished;
    } else if (name == "related") {
      states |= net::kRelated;
    } else {
      return fail("'{}' is no state: new, established or related", name);
    }
  }
  return states;
}

Result<std::optional<net::IpRange>> range_of(const std::string& text) {
  if (text.empty()) return std::nullopt;
  const std::size_t dash = text.find('-');
  const auto first = parse_ip(text.substr(0, dash));
  const auto last = dash == std::string::npos ? first : parse_ip(text.substr(dash + 1));
  if (!first || !last) return fail("'{}' is no address or range of them", text);
  return net::IpRange{*first, *last};
}

// Members that say something.
void put(json& object, const char* key, const std::vector<std::string>& list) {
  if (!list.empty()) object[key] = list;
}
void put(json& object, const char* key, const std::string& text) {
  if (!text.empty()) object[key] = text;
}

template <class Value, class Source>
Result<> take(Value& into, Source&& source) {
  if (!source) return std::unexpected(source.error());
  into = *std::forward<Source>(source);
  return {};
}

}  // namespace

class Rules::Resolver final {
 public:
  Resolver(const PortPlaces& ports, const std::vector<Set>& sets) : ports_(ports) {
    for (const Set& set : sets) sets_[set.name] = &set.members;
  }

  Result<> ports(const std::vector<std::string>& names, std::vector<net::PortIndex>& into) const {
    for (const std::string& name : names) {
      const auto found = ports_.find(name);
      if (found == ports_.end() && name != kItselfWord) {
        return fail("'{}' is no port here, nor {}", name, kItselfWord);
      }
      into.push_back(found != ports_.end() ? found->second.index : net::kItself);
    }
    return {};
  }
  Result<> prefixes(const std::vector<std::string>& words, std::vector<IpPrefix>& into) const {
    return expanded(words, into, [](const std::string& word) { return parse_ip_prefix(word); });
  }
  Result<> port_ranges(const std::vector<std::string>& words,
                       std::vector<net::PortRange>& into) const {
    return expanded(words, into, port_range_of);
  }

 private:
  template <class Value, class Parse>
  Result<> expanded(const std::vector<std::string>& words, std::vector<Value>& into,
                    Parse parse) const {
    for (const std::string& word : words) {
      const auto set = word.starts_with('@') ? sets_.find(word.substr(1)) : sets_.end();
      if (word.starts_with('@') && set == sets_.end()) return fail("there is no set '{}'", word);
      const std::vector<std::string> one{word};
      for (const std::string& member : set != sets_.end() ? *set->second : one) {
        const auto value = parse(member);
        if (!value) return std::unexpected(value.error());
        into.push_back(*value);
      }
    }
    return {};
  }

  const PortPlaces& ports_;
  std::map<std::string, const std::vector<std::string>*> sets_;
};

void Rules::read_filter(Fields& fields) {
  if (fields.has("sets")) sets_.clear();
  fields.each("sets", [this](Fields& each) {
    Set& set = sets_.emplace_back();
    each.text("name", set.name).words("members", set.members);
  });
  if (fields.has("rules")) rules_.clear();
  fields.each("rules", [this](Fields& each) {
    Rule& rule = rules_.emplace_back();
    each.text("action", rule.action)
        .flag("log", rule.log)
        .words("in", rule.in)
        .words("out", rule.out)
        .words("from", rule.from)
        .words("to", rule.to)
        .word("protocol", rule.protocol)
        .words("ports", rule.ports)
        .words("source_ports", rule.source_ports)
        .numbers("icmp_types", rule.icmp_types, 255)
        .words("states", rule.states);
  });
  fields.text("default", otherwise_).number("most_flows", most_flows_, 1U << 22, 1);
}

void Rules::read_nat(Fields& fields) {
  if (fields.has("masquerade")) masquerade_.clear();
  fields.each("masquerade", [this](Fields& each) {
    Masquerade& rule = masquerade_.emplace_back();
    each.words("out", rule.out)
        .words("from", rule.from)
        .word("to", rule.to)
        .word("ports", rule.ports);
  });
  if (fields.has("forward")) forward_.clear();
  fields.each("forward", [this](Fields& each) {
    Forward& rule = forward_.emplace_back();
    each.words("in", rule.in)
        .address("address", rule.address)
        .word("protocol", rule.protocol)
        .word("ports", rule.ports)
        .address("to", rule.to)
        .number("to_port", rule.to_port);
  });
  if (fields.has("one_to_one")) one_to_one_.clear();
  fields.each("one_to_one", [this](Fields& each) {
    OneToOne& rule = one_to_one_.emplace_back();
    each.words("out", rule.out).address("outside", rule.outside).address("inside", rule.inside);
  });
}

json Rules::to_json(const Rule& rule) {
  json object = {{"action", rule.action}};
  if (rule.log) object["log"] = true;
  for (const auto& [key, list] :
       {std::pair("in", &rule.in), std::pair("out", &rule.out), std::pair("from", &rule.from),
        std::pair("to", &rule.to), std::pair("ports", &rule.ports),
        std::pair("source_ports", &rule.source_ports), std::pair("states", &rule.states)}) {
    put(object, key, *list);
  }
  put(object, "protocol", rule.protocol);
  if (!rule.icmp_types.empty()) object["icmp_types"] = rule.icmp_types;
  return object;
}

void Rules::filter_to_json(json& object) const {
  json sets = json::array(), rules = json::array();
  for (const auto& [name, members] : sets_) sets.push_back({{"name", name}, {"members", members}});
  for (const Rule& rule : rules_) rules.push_back(to_json(rule));
  object.update(
      {{"sets", sets}, {"rules", rules}, {"default", otherwise_}, {"most_flows", most_flows_}});
}

void Rules::nat_to_json(json& object) const {
  json masquerade = json::array(), forward = json::array(), one_to_one = json::array();
  for (const Masquerade& rule : masquerade_) {
    json& made = masquerade.emplace_back(json::object());
    put(made, "out", rule.out);
    put(made, "from", rule.from);
    put(made, "to", rule.to);
    put(made, "ports", rule.ports);
  }
  for (const Forward& rule : forward_) {
    json& made =
        forward.emplace_back(json{{"address", rule.address.text()}, {"to", rule.to.text()}});
    put(made, "in", rule.in);
    put(made, "protocol", rule.protocol);
    put(made, "ports", rule.ports);
    if (rule.to_port != 0) made["to_port"] = rule.to_port;
  }
  for (const OneToOne& rule : one_to_one_) {
    json& made = one_to_one.emplace_back(
        json{{"outside", rule.outside.text()}, {"inside", rule.inside.text()}});
    put(made, "out", rule.out);
  }
  object.update({{"masquerade", masquerade}, {"forward", forward}, {"one_to_one", one_to_one}});
}

void Rules::masquerade_by_default(const std::string& out) { masquerade_ = {{.out = {out}}}; }

bool Rules::is_empty() const {
  return rules_.empty() && masquerade_.empty() && forward_.empty() && one_to_one_.empty() &&
         otherwise_ == "allow";
}

Result<> Rules::add_rules(const Resolver& names, net::FilterConfig& config) const {
  for (std::size_t i = 0; i < rules_.size(); ++i) {
    const Rule& words = rules_[i];
    net::FilterRule rule{.log = words.log, .icmp_types = words.icmp_types};
    auto done = take(rule.action, action_of(words.action));
    if (done) done = names.ports(words.in, rule.in);
    if (done) done = names.ports(words.out, rule.out);
    if (done) done = names.prefixes(words.from, rule.from);
    if (done) done = names.prefixes(words.to, rule.to);
    if (done) done = take(rule.protocol, protocol_of(words.protocol));
    if (done) done = names.port_ranges(words.ports, rule.destination_ports);
    if (done) done = names.port_ranges(words.source_ports, rule.source_ports);
    if (done) done = take(rule.states, states_of(words.states));
    if (!done) return fail("rule {}: {}", i + 1, done.error().text);
    config.rules.push_back(std::move(rule));
  }
  return take(config.otherwise, action_of(otherwise_));
}

Result<> Rules::add_nat(const Resolver& names, net::NatConfig& config) const {
  for (const Masquerade& words : masquerade_) {
    net::Masquerade rule;
    auto done = names.ports(words.out, rule.out);
    if (done) done = names.prefixes(words.from, rule.from);
    if (done) done = take(rule.to, range_of(words.to));
    if (done && !words.ports.empty()) done = take(rule.ports, port_range_of(words.ports));
    if (!done) return fail("masquerade: {}", done.error().text);
    config.masquerade.push_back(std::move(rule));
  }
  for (const Forward& words : forward_) {
    net::Forward rule{.address = words.address, .to = words.to, .to_port = words.to_port};
    auto done = names.ports(words.in, rule.in);
    if (done) done = take(rule.protocol, protocol_of(words.protocol));
    if (done && !words.ports.empty()) done = take(rule.ports, port_range_of(words.ports));
    if (!done) return fail("forward {}: {}", words.address.text(), done.error().text);
    config.forward.push_back(std::move(rule));
  }
  for (const OneToOne& words : one_to_one_) {
    net::OneToOne rule{.outside = words.outside, .inside = words.inside};
    if (auto done = names.ports(words.out, rule.out); !done) {
      return fail("one_to_one {}: {}", words.outside.text(), done.error().text);
    }
    config.one_to_one.push_back(std::move(rule));
  }
  return {};
}

Result<net::TrackerConfig> Rules::config(const PortPlaces& ports) const {
  for (const Set& set : sets_) {
    if (!is_valid_name(set.name)) return fail("'{}' is no name of a set: use a-z, 0-9", set.name);
  }
  net::TrackerConfig config{.most_flows = most_flows_};
  const Resolver names(ports, sets_);
  if (auto done = add_rules(names, config.filter); !done) return std::unexpected(done.error());
  if (auto done = add_nat(names, config.nat); !done) return std::unexpected(done.error());
  if (auto good = net::check(config); !good) return std::unexpected(good.error());
  return config;
}

json flows_of(const net::Tracker* tracker, Instant now) {
  json rows = json::array();
  if (tracker == nullptr) return rows;
  for (const auto& [flow, remaining] : tracker->flows(now, kMostFlowsShown)) {
    json& row =
        rows.emplace_back(json{{"flow", flow.tuple(net::Way::original).text()},
                               {"state", to_text(flow.state)},
                               {"remaining_s", std::max<Nanoseconds>(remaining, {}) / seconds(1)},
                               {"packets", flow.sent[0].packets + flow.sent[1].packets},
                               {"bytes", flow.sent[0].bytes + flow.sent[1].bytes}});
    if (flow.is_translated) row["becomes"] = flow.leaving(net::Way::original).text();
  }
  return rows;
}

json rule_counts_of(const net::Tracker* tracker) {
  json rows = json::array();
  if (tracker == nullptr) return rows;
  for (const net::RuleCounters& counted : tracker->rules()) {
    rows.push_back({{"rule", rows.size() + 1},
                    {"packets", counted.packets},
                    {"bytes", counted.bytes},
                    {"logged", counted.logged}});
  }
  return rows;
}

}  // namespace godwit::fabric
