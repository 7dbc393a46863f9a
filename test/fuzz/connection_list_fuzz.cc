// The connections that agents tell each other of, with their labels, and the addresses on the way:
// bodies of flow.stage, flow.update and endpoint.stage as far as they are read without a host. What
// is understood means the same when it is written and read again; what has not the labels of this
// secret is refused.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/connection_list.hh"
#include "agent/records.hh"
#include "base/check.hh"
#include "crypto/keyed_hash.hh"
#include "qemu/json.hh"
#include "session/json_body.hh"

namespace {

using namespace godwit;
using nlohmann::json;

void connections(const json& list) {
  static const Bytes secret(crypto::KeyedHash::kKeySize, std::byte{0x42});
  const auto parsed = agent::parse_connections(list);
  const auto labelled = agent::parse_connections(list, secret);
  CHECK(parsed || !labelled);
  if (!parsed) return;
  CHECK(parsed->size() <= agent::kMostConnections);
  CHECK(!labelled || *labelled == *parsed);
  CHECK(std::ranges::all_of(*parsed, agent::can_be_told));
  CHECK(agent::parse_connections(agent::to_json(*parsed)).value() == *parsed);
  const json ours = agent::to_json(*parsed, secret);
  CHECK(agent::parse_connections(ours, secret).value() == *parsed);
  for (const json& each : ours) CHECK(each.dump().size() < 200, "{}", each.dump());
  CHECK(labelled.has_value() == std::ranges::equal(list, ours, [](const json& a, const json& b) {
          return a.size() > 8 && a[8] == b[8];
        }));
  for (const auto& each : *parsed) {
    CHECK(agent::seen_by_peer(agent::seen_by_peer(each)) == each);
  }
}

void addresses(const json& object) {
  const auto parsed = agent::parse_addresses(object);
  if (!parsed) return;
  for (const auto& [from, to] : *parsed) CHECK(from.is4() == to.is4());
  CHECK(agent::parse_addresses(agent::to_json(*parsed)).value() == *parsed);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto body = session::parse_json_body(std::as_bytes(std::span(data, size)));
  if (!body) return 0;
  (void)agent::text_field(*body, "guest");
  (void)agent::epoch_field(*body, "epoch", 0);
  (void)agent::array_field(*body, "addresses");
  (void)agent::is_same_proof(agent::text_field_or(*body, "proof", ""), std::string(32, '0'));
  const Bytes secret = from_hex(agent::text_field_or(*body, "secret", ""));
  CHECK(secret.size() <= size / 2);
  connections(qemu::member(*body, "connections"));
  addresses(qemu::member(*body, "on_the_way"));
  return 0;
}
