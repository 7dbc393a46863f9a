#pragma once
// Pages that vms moving as a group have in common. Each member has an encoder, a transfer and a
// decoder of its own, in threads of their own.
//
//   encoders: SharedIndex, by strong name     decoders: SharedPages, each member's in order
//   member 0: page -> nowhere: literal, offered -----> its next page is kept
//   member 1: same page -> (member 0, number) -------> read, or waited for if it has not come
//
// Decoders cannot wait for each other in a circle: a page was offered before any reference to it
// was written, and each transfer keeps its order. Names are strong (crypto/keyed_hash.hh), as the
// index keeps no contents; the digest of each member's stream has the last word. Any thread.
#include <condition_variable>
#include <map>
#include <mutex>
#include <unordered_map>

#include "codec/group.hh"
#include "codec/packed_pages.hh"

namespace godwit::agent {

class SharedIndex final : public codec::GroupIndex {
 public:
  // All members together offer at most `most_pages`.
  explicit SharedIndex(std::uint64_t most_pages);

  std::uint64_t most_pages() const { return most_; }
  BytesView key() const override { return key_; }
  Found find(const Name& name, std::uint32_t member, bool offers) override;

 private:
  struct HashOfName {
    std::size_t operator()(const Name& name) const;
  };
  Bytes key_;
  std::uint64_t most_;
  std::mutex mutex_;
  std::unordered_map<Name, codec::MemberPage, HashOfName> pages_;
  std::map<std::uint32_t, std::uint64_t> offered_;  // by member
};

class SharedPages final {
 public:
  explicit SharedPages(std::uint64_t most_pages) : most_(most_pages) {}

 private:
  friend class SharedReader;
  struct Member {
    std::optional<codec::PackedPages> pages;
    bool left = false;  // no more comes of it
  };
  std::uint64_t most_;
  std::mutex mutex_;
  std::condition_variable came_;
  std::map<std::uint32_t, Member> members_;
  std::uint64_t count_ = 0;
};

class SharedReader final : public codec::GroupReader {
 public:
  SharedReader(std::shared_ptr<SharedPages> pages, std::uint32_t member)
      : pages_(std::move(pages)), member_(member) {}
  ~SharedReader() override { leave(); }

  bool add(BytesView page) override;
  BytesView page(const codec::MemberPage& which) override;
  // What was offered stays; who waits for more than that is told, and page() waits no more.
  void leave();

 private:
  std::shared_ptr<SharedPages> pages_;
  std::uint32_t member_;
  std::optional<std::uint32_t> unpacked_of_;  // member
  codec::PackedPages::Unpacked unpacked_;
  Bytes page_;
};

}  // namespace godwit::agent
