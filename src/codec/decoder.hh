#pragma once
// Makes QEMU's bytes again from an Encoder's batches. Takes hostile bytes: an error is final,
// memory is bounded by the settings. Pure; one thread.
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hh"
#include "codec/batcher.hh"
#include "codec/group.hh"
#include "codec/known_pages.hh"
#include "codec/page_store.hh"
#include "codec/zstd.hh"
#include "stream/stream_hash.hh"

namespace godwit::codec {

class Decoder final {
 public:
  // As the encoder's; `level` is not needed. `known`: whose catalogue the encoder has learnt.
  // `group`: for a vm that moves as one of a group; step() waits for what the others' decoders are
  // yet to get.
  explicit Decoder(const Settings& settings, Known known = {},
                   std::shared_ptr<GroupReader> group = nullptr);

  void push(BytesView coded);
  // Decodes a batch; false: there is none that is whole.
  Result<bool> step();
  // What was decoded since the last call; from the first checkpoint on only what the next one has
  // confirmed. `spare`: whose memory is used again.
  Bytes take(Bytes spare = {});
  std::size_t waiting() const { return out_.size(); }
  // A checkpoint came, and what was decoded before it is what QEMU wrote.
  bool checkpointed() const { return checkpointed_; }
  // The last batch came, and its digest is that of all that was decoded.
  bool verified() const { return verified_; }

 private:
  Result<> batch(const BatchHeader& header, BytesView coded);
  Result<> compare(BytesView digest);
  Result<BytesView> plain(const BatchHeader& header, BytesView coded);
  bool operations(Reader operations, Reader literals);
  bool pages(std::uint8_t tag, Reader& operations, Reader& literals);
  void expect_known(Reader& operations);
  bool bring_known();
  BytesView contents(Encoding encoding, PageKey key, Reader& operations, Reader& literals);
  BytesView shared(Reader& operations);
  bool room_for(std::uint64_t more) const { return out_.size() - batch_began_ + more <= kMaxRaw; }
  std::size_t block_of(std::string_view name);

  Settings settings_;
  Bytes held_;               // batches, the last one perhaps not whole
  std::size_t decoded_ = 0;  // of held_
  std::array<std::optional<Decompressor>, kMaxWindows> windows_;
  Bytes plain_;
  std::optional<PageStore> store_;
  KnownReader known_;
  std::uint64_t next_known_ = 0;
  struct Expected {
    std::size_t at = 0;  // of out_
    std::uint64_t place = 0;
  };
  std::vector<Expected> expected_;  // of this batch: they are fetched side by side
  std::shared_ptr<GroupReader> group_;
  std::uint64_t next_shared_ = 0;
  std::size_t page_size_ = 0;
  std::vector<std::string> blocks_;
  std::size_t last_block_ = 0;
  std::uint64_t next_number_ = 0;
  stream::StreamHash hash_;
  std::string lacking_;  // a page that should be here, and is not
  Bytes out_;
  std::size_t batch_began_ = 0;  // in out_
  std::size_t ready_ = 0;        // of out_: may be taken
  bool checkpointed_ = false;
  bool verified_ = false;
};

}  // namespace godwit::codec
