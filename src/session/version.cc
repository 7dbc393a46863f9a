#include "session/version.hh"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "session/json_body.hh"

namespace godwit::session {
namespace {

constexpr std::size_t kMaxSoftware = 32;
constexpr unsigned kFirstProtocol = 1;
constexpr unsigned kMostProtocol = 1'000'000;  // bounds what a peer can say

unsigned protocol_member(const nlohmann::json& hello, const char* name) {
  const auto at = hello.find(name);
  if (at == hello.end() || !at->is_number_unsigned()) return kFirstProtocol;
  const auto value = at->get<std::uint64_t>();
  return value < kFirstProtocol || value > kMostProtocol ? kFirstProtocol
                                                         : static_cast<unsigned>(value);
}

}  // namespace

Versions own_versions() { return {.software = GODWIT_VERSION}; }

void add_versions(const Versions& versions, nlohmann::json& hello) {
  hello["protocol"] = versions.protocol;
  hello["oldest_protocol"] = versions.oldest;
  hello["version"] = versions.software;
}

Versions versions_of(const nlohmann::json& hello) {
  if (!hello.is_object()) return {.protocol = kFirstProtocol, .oldest = kFirstProtocol};
  Versions versions{.protocol = protocol_member(hello, "protocol"),
                    .oldest = protocol_member(hello, "oldest_protocol"),
                    .software = printable(text_member(hello, "version")).substr(0, kMaxSoftware)};
  versions.oldest = std::min(versions.oldest, versions.protocol);
  return versions;
}

Result<unsigned> agree(const Versions& ours, const Versions& theirs, const std::string& peer) {
  const unsigned common = std::min(ours.protocol, theirs.protocol);
  if (common >= ours.oldest && common >= theirs.oldest) return common;
  const bool we_are_older = ours.protocol < theirs.oldest;
  return fail(
      "host {} (godwitd {}) speaks protocols {} to {}, this one (godwitd {}) {} to {}: upgrade "
      "{}, one release at a time",
      peer, theirs.software.empty() ? "?" : theirs.software, theirs.oldest, theirs.protocol,
      ours.software, ours.oldest, ours.protocol, we_are_older ? "this host" : peer);
}

}  // namespace godwit::session
