#include "agent/digest_key.hh"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "crypto/keyed_hash.hh"
#include "os/random.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

// Kind and key of {digests}: 64 hex digits.
constexpr const char* kSecret = "secret";
constexpr const char* kOfContents = "contents";

}  // namespace

Bytes digest_key(store::Store& store) {
  if (const auto kept = store.find(kSecret, kOfContents)) {
    Bytes key = from_hex(qemu::text_at(*kept, "digests"));
    if (key.size() == crypto::KeyedHash::kKeySize) return key;
  }
  Bytes key(crypto::KeyedHash::kKeySize);
  os::fill_random(key);
  if (!store.record(kSecret, kOfContents, {{"digests", to_hex(key)}})) {
    spdlog::warn("the key of digests cannot be kept: what is indexed will be indexed again");
  }
  return key;
}

}  // namespace godwit::agent
