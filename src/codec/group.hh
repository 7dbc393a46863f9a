#pragma once
// What an encoder and a decoder need of the group that their vm moves in: the first vm to send a
// page offers it, the others refer to it. Who keeps that for all of them: agent/group_pages.hh.
#include <cstdint>
#include <memory>
#include <optional>

#include "base/bytes.hh"
#include "crypto/keyed_hash.hh"

namespace godwit::codec {

struct MemberPage {
  std::uint32_t member = 0;
  std::uint64_t number = 0;  // of those that the member offered
  bool operator==(const MemberPage&) const = default;
};

class GroupIndex {
 public:
  using Name = crypto::KeyedHash::Digest;
  virtual ~GroupIndex() = default;
  // Of the names: KeyedHash::kKeySize bytes.
  virtual BytesView key() const = 0;
  // Where the page is. Where it is nowhere, `offers` makes it the member's next.
  struct Found {
    std::optional<MemberPage> page;
    bool offered = false;
  };
  virtual Found find(const Name& name, std::uint32_t member, bool offers) = 0;
};

// What an encoder has of it.
struct GroupOffers {
  std::shared_ptr<GroupIndex> index;  // null: the vm moves alone
  std::uint32_t member = 0;
};

// A member's decoder at the pages.
class GroupReader {
 public:
  virtual ~GroupReader() = default;
  // The next page that the member offers. False: that is one too many.
  virtual bool add(BytesView page) = 0;
  // Waits for it. Empty: it will not come. Valid until the next call.
  virtual BytesView page(const MemberPage& which) = 0;
};

}  // namespace godwit::codec
