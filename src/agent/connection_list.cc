#include "agent/connection_list.hh"

#include <fmt/format.h>
#include <netinet/in.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "crypto/keyed_hash.hh"
#include "os/moved_connections.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr std::size_t kFields = 8;  // and the label
constexpr std::size_t kLabelBytes = 8;
constexpr std::uint8_t kLastTcpState = 9;  // TCP_CONNTRACK_SYN_SENT2
constexpr std::uint32_t kLongest_s = 10 * 86400;

bool is_one_host(const Ip& address) { return !address.is_multicast() && !address.is_unspecified(); }

std::string hash_of(BytesView secret, const std::string& text, std::size_t bytes) {
  const auto digest = crypto::KeyedHash(secret)(as_bytes(text));
  return to_hex(BytesView(digest).first(bytes));
}

nlohmann::json fields_of(const os::Connection& each) {
  return nlohmann::json::array({each.protocol, each.guest.text(), each.guest_port, each.peer.text(),
                                each.peer_port, each.from_guest ? "guest" : "peer", each.state,
                                std::min(each.timeout_s, kLongest_s)});
}

template <class Number>
bool read(const nlohmann::json& field, Number& number, std::uint64_t most) {
  if (!field.is_number_unsigned() || field.get<std::uint64_t>() > most) return false;
  number = static_cast<Number>(field.get<std::uint64_t>());
  return true;
}

bool read(const nlohmann::json& field, Ip& address) {
  const auto parsed = field.is_string() ? parse_ip(field.get_ref<const std::string&>())
                                        : Result<Ip>(fail("no text"));
  if (parsed) address = *parsed;
  return parsed.has_value() && is_one_host(address);
}

Result<os::Connection> parse_connection(const nlohmann::json& fields) {
  os::Connection each{.replied = true, .assured = true};
  const bool is_whole =
      fields.is_array() && fields.size() >= kFields && read(fields[0], each.protocol, 255) &&
      read(fields[1], each.guest) && read(fields[2], each.guest_port, 65535) &&
      read(fields[3], each.peer) && read(fields[4], each.peer_port, 65535) &&
      (fields[5] == "guest" || fields[5] == "peer") && read(fields[6], each.state, kLastTcpState) &&
      read(fields[7], each.timeout_s, kLongest_s);
  if (!is_whole || !can_be_told(each)) {
    return fail("'{}' is no connection", fields.dump());
  }
  each.from_guest = fields[5] == "guest";
  return each;
}

template <class Check>
Result<std::vector<os::Connection>> parse(const nlohmann::json& list, Check&& check) {
  if (!list.is_array() || list.size() > kMostConnections) {
    return fail("connections are a list of at most {}", kMostConnections);
  }
  std::vector<os::Connection> connections;
  for (const auto& each : list) {
    const auto parsed = parse_connection(each);
    if (!parsed) return std::unexpected(parsed.error());
    if (!check(each, *parsed)) return fail("'{}' has not the connection's label", each.dump());
    connections.push_back(*parsed);
  }
  return connections;
}

}  // namespace

bool can_be_told(const os::Connection& each) {
  const bool is4 = each.guest.is4();
  return is4 == each.peer.is4() && is_one_host(each.guest) && is_one_host(each.peer) &&
         (each.protocol == IPPROTO_TCP || each.protocol == IPPROTO_UDP ||
          each.protocol == (is4 ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6})) &&
         each.state <= kLastTcpState;
}

std::string label_of(const os::Connection& each, BytesView secret) {
  return hash_of(secret,
                 fmt::format("label {} {} {} {} {}", each.protocol, each.guest.text(),
                             each.guest_port, each.peer.text(), each.peer_port),
                 kLabelBytes);
}

nlohmann::json to_json(const std::vector<os::Connection>& connections) {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& each : connections) list.push_back(fields_of(each));
  return list;
}

nlohmann::json to_json(const std::vector<os::Connection>& connections, BytesView secret) {
  nlohmann::json list = to_json(connections);
  for (std::size_t i = 0; i < connections.size(); ++i) {
    list[i].push_back(label_of(connections[i], secret));
  }
  return list;
}

Result<std::vector<os::Connection>> parse_connections(const nlohmann::json& json) {
  return parse(json, [](const nlohmann::json&, const os::Connection&) { return true; });
}

Result<std::vector<os::Connection>> parse_connections(const nlohmann::json& json,
                                                      BytesView secret) {
  return parse(json, [&](const nlohmann::json& fields, const os::Connection& each) {
    return fields.size() > kFields && fields[kFields].is_string() &&
           is_same_proof(fields[kFields].get_ref<const std::string&>(), label_of(each, secret));
  });
}

bool is_renamed(const os::Connection& each) { return (each.mark & os::kRenamedMark) != 0; }

nlohmann::json lists_of(const std::vector<os::Connection>& connections) {
  nlohmann::json own = nlohmann::json::array(), renamed = nlohmann::json::array();
  for (const auto& each : connections) {
    (is_renamed(each) ? renamed : own).push_back(fields_of(each));
  }
  return {{"connections", own}, {"renamed", renamed}};
}

Result<std::vector<os::Connection>> parse_lists(const nlohmann::json& json) {
  auto all = parse_connections(qemu::member(json, "connections"));
  if (!all) return all;
  const nlohmann::json& renamed = qemu::member(json, "renamed");
  if (renamed.is_null()) return all;  // of an agent that knows of none
  auto others = parse_connections(renamed);
  if (!others) return others;
  for (auto& each : *others) {
    each.mark = os::kRenamedMark;
    all->push_back(each);
  }
  return all;
}

os::Connection seen_by_peer(os::Connection connection) {
  std::swap(connection.guest, connection.peer);
  std::swap(connection.guest_port, connection.peer_port);
  std::swap(connection.guest_tag, connection.peer_tag);
  connection.from_guest = !connection.from_guest;
  return connection;
}

std::string proof_of(BytesView secret, const std::string& what, const std::string& guest,
                     std::uint64_t epoch, const std::string& host,
                     const std::map<Ip, Ip>& on_the_way) {
  std::string text = fmt::format("{} {} {} {}", what, guest, epoch, host);
  for (const auto& [address, way] : on_the_way) {
    text += fmt::format(" {} {}", address.text(), way.text());
  }
  return hash_of(secret, text, crypto::KeyedHash::kSize);
}

bool is_same_proof(const std::string& a, const std::string& b) {
  return a.size() == b.size() && ::CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

nlohmann::json to_json(const std::map<Ip, Ip>& addresses) {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [from, to] : addresses) json[from.text()] = to.text();
  return json;
}

Result<std::map<Ip, Ip>> parse_addresses(const nlohmann::json& json) {
  std::map<Ip, Ip> addresses;
  if (!json.is_object()) return fail("addresses are an object");
  for (const auto& [key, value] : json.items()) {
    const auto from = parse_ip(key);
    Ip to;
    if (!from || !read(value, to) || to.is4() != from->is4()) {
      return fail("'{}' and '{}' are no two addresses", key, value.dump());
    }
    addresses.emplace(*from, to);
  }
  return addresses;
}

nlohmann::json to_json(const std::set<Ip>& addresses) {
  nlohmann::json texts = nlohmann::json::array();
  for (const Ip& address : addresses) texts.push_back(address.text());
  return texts;
}

std::set<Ip> addresses_in(const nlohmann::json& list) {
  std::set<Ip> addresses;
  for (const auto& text : list) {
    const auto parsed = text.is_string() ? parse_ip(text.get_ref<const std::string&>())
                                         : Result<Ip>(fail("no text"));
    if (parsed) addresses.insert(*parsed);
  }
  return addresses;
}

}  // namespace godwit::agent
