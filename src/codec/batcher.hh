#pragma once
// Makes batches of QEMU's migration stream: what becomes of each page is decided here. Compressed
// (batch_packer.hh) they are what a Decoder at the target makes the same bytes of again.
//
//   push(raw) -> QemuParser -> pages: zero | same | copy | known | group |
//                                     delta | kept | literal         -> operations,
//                              anything else: opaque                                 literals
//             -> a batch, after kBatchBytes or flush() -> take()
//
// What a page is replaced with was compared with it, byte by byte, in a store that the decoder has
// too (page_store.hh). finish() adds the digest of all raw bytes; from the end of a post-copy's
// package on, with which a vm is loaded and may run, each batch comes with the digest of all
// before. Pure; one thread.
#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "codec/batch.hh"
#include "codec/group.hh"
#include "codec/known_pages.hh"
#include "codec/page_store.hh"
#include "stream/qemu_parser.hh"
#include "stream/stream_hash.hh"

namespace godwit::codec {

struct Settings {
  std::size_t cache = std::size_t{64} << 20;  // bytes of pages that each end keeps
  int level = 1;                              // to begin with; 0: nothing is compressed
  std::uint64_t most_known = 0;               // pages that the decoder's host may say it knows
  int window_bits = 26;  // of zstd: 64 MiB at each end; twice that saves 5 % (measured 2026-11)
  int windows = 1;       // batches in turn, so that they are compressed at the same time
};

struct EncodingStats {
  std::uint64_t pages = 0;  // kOpaque: items
  std::uint64_t raw = 0;    // bytes of QEMU's stream
  std::uint64_t plain = 0;  // bytes of operations and literals
};
struct Stats {
  std::array<EncodingStats, kEncodings> by_encoding{};
  std::uint64_t raw = 0, plain = 0, coded = 0;  // bytes; coded: with the headers
};

class Batcher final : private stream::QemuSink {
 public:
  explicit Batcher(const Settings& settings, GroupOffers group = {});

  void push(BytesView raw);
  // Of the catalogue of what the decoder's host knows: for the pages that come from now on.
  void learn(BytesView catalogue) { catalogue_.learn(catalogue); }
  // From now on no page has to wait for one of another vm, nor another's for one of this.
  void leave_group() { group_.index.reset(); }
  // All that came, but for a record that was cut, is in the batches then.
  void flush();
  // No more comes.
  void finish();

  // What was closed since the last call.
  std::vector<PlainBatch> take() { return std::exchange(batches_, {}); }
  // Memory for a batch to come.
  void reuse(Bytes spare) {
    if (spare.capacity() > 0) spare_.push_back(std::move(spare));
  }
  // In order, since the last call.
  std::vector<stream::QemuMark> take_marks() { return std::exchange(marks_, {}); }

  const Stats& stats() const { return stats_; }  // but for `coded`

 private:
  struct Choice {
    Encoding encoding = Encoding::kOpaque;
    bool offered = false;  // to the group
    bool operator==(const Choice&) const = default;
  };
  // Pages in a row that became the same.
  struct Run {
    Choice choice{};
    std::uint64_t pages = 0;  // 0: none is open
    Bytes arguments;
  };

  void opaque(BytesView bytes) override;
  void page(const stream::PageRecord& record) override;
  void mark(const stream::QemuMark& mark) override;

  Choice choose(PageKey key, BytesView contents);
  bool fits_an_operation(const stream::PageRecord& record) const;
  bool keeps_first() const;
  std::vector<bool>::reference sent(PageKey key);
  std::optional<std::uint64_t> known(BytesView contents, Slot slot);
  GroupIndex::Found shared(BytesView contents, Slot slot, bool is_first);
  std::span<Slot> bucket(std::uint64_t hash);
  Slot copy_of(BytesView contents, std::uint64_t hash);
  void keep(PageKey key, BytesView contents, std::uint64_t hash);
  void open_run(const Choice& choice, const stream::PageRecord& record, std::uint64_t number);
  void close_run();
  void close_batch();
  void append_digest(BatchKind kind);
  void count(Encoding encoding, std::uint64_t raw);
  void charge(Encoding encoding);
  std::size_t plain() const {
    return operations_.size() + run_.arguments.size() + literals_.size();
  }

  Settings settings_;
  stream::QemuParser parser_{*this};
  stream::StreamHash hash_;
  std::optional<PageStore> store_;
  std::vector<std::uint64_t> hashes_;  // of what the slots hold
  std::vector<Slot> by_content_;       // in buckets, by hash
  std::vector<bool> sent_before_;      // by a hash of the page's key
  Catalogue catalogue_;
  std::uint64_t next_known_ = 0;  // the place after the last
  GroupOffers group_;
  std::optional<crypto::KeyedHash> group_name_;
  std::uint64_t next_shared_ = 0;  // the number after the last

  Run run_;
  std::size_t last_block_ = SIZE_MAX;  // none yet
  std::uint64_t next_number_ = 0;      // the page after the last
  Bytes operations_, literals_;
  std::vector<PlainBatch> batches_;
  std::vector<Bytes> spare_;
  Bytes arguments_, head_;  // of the page at hand
  bool checkpoints_ = false;
  std::uint64_t batch_raw_ = 0;
  std::uint64_t memory_ = 0;
  std::size_t batch_weight_ = 0;  // of what the target has to do: kZeroPageWeight
  std::size_t charged_ = 0;       // of plain(): counted as some encoding's

  std::vector<stream::QemuMark> marks_;
  Stats stats_;
};

}  // namespace godwit::codec
