#pragma once
// Guests' connections as agents tell each other of them, and their labels
// (docs/protocol/endpoint.md):
//
//   [6, "10.1.1.20", 22, "10.3.1.7", 5000, "peer", 3, 431999, "9f86d081884c7d65"]
//
// protocol, guest and port, peer and port, who began it, TCP's state, the seconds until it is
// forgotten, the label if it has one: less than 200 bytes.
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.hh"
#include "os/connections.hh"

namespace godwit::agent {

// Of one guest; more than that are served by the relay. They fit into one message.
inline constexpr std::size_t kMostConnections = 10000;

// Others do not travel: of protocols that are not followed (SCTP), to groups (mDNS).
bool can_be_told(const os::Connection& connection);

nlohmann::json to_json(const std::vector<os::Connection>& connections);
// Each with its label, by the secret that the guest's host and its correspondent's agreed on.
nlohmann::json to_json(const std::vector<os::Connection>& connections, BytesView secret);
// Input: refused with a reason, also if a label is not by that secret, or there is none.
Result<std::vector<os::Connection>> parse_connections(const nlohmann::json& json);
Result<std::vector<os::Connection>> parse_connections(const nlohmann::json& json, BytesView secret);

// {connections, renamed}: of those in the second, which may be missing, the peer knows the guest by
// an address that it has no more (os::kRenamedMark).
nlohmann::json lists_of(const std::vector<os::Connection>& connections);
Result<std::vector<os::Connection>> parse_lists(const nlohmann::json& json);
// By the mark.
bool is_renamed(const os::Connection& connection);

// 16 hex digits that nobody can say without the secret.
std::string label_of(const os::Connection& connection, BytesView secret);
// As its peer sees it, whose own guest is at the other end.
os::Connection seen_by_peer(os::Connection connection);

// That whoever sends this has the secret: of an update of a guest's places on the way, and of the
// end. 32 hex digits.
std::string proof_of(BytesView secret, const std::string& what, const std::string& guest,
                     std::uint64_t epoch, const std::string& host,
                     const std::map<Ip, Ip>& on_the_way);
// In a time that does not depend on where they differ.
bool is_same_proof(const std::string& a, const std::string& b);

// {"10.1.1.20": "10.2.1.200"}
nlohmann::json to_json(const std::map<Ip, Ip>& addresses);
Result<std::map<Ip, Ip>> parse_addresses(const nlohmann::json& json);
// ["10.1.1.20"]; what is no address is left out.
nlohmann::json to_json(const std::set<Ip>& addresses);
std::set<Ip> addresses_in(const nlohmann::json& list);

}  // namespace godwit::agent
