#pragma once
// Makes QEMU's migration stream small, one step after the other: batches, each packed when it is
// closed. With several windows they take turns. finish() adds the digest of all raw bytes. Pure;
// one thread (agent/encode_stage.hh does the same with several).
#include <vector>

#include "codec/batch_packer.hh"
#include "codec/batcher.hh"

namespace godwit::codec {

class Encoder final {
 public:
  explicit Encoder(const Settings& settings, GroupOffers group = {});

  void push(BytesView raw);
  void learn(BytesView catalogue) { batcher_.learn(catalogue); }  // see Batcher
  void leave_group() { batcher_.leave_group(); }
  void flush();
  void finish();

  // Batches, from the front; the caller takes them all. With each the raw bytes up to its end.
  struct Coded {
    Bytes bytes;
    std::uint64_t raw_end = 0;
  };
  Coded take();
  std::vector<stream::QemuMark> take_marks() { return batcher_.take_marks(); }

  Stats stats() const;

 private:
  void pack();

  int level_;
  Batcher batcher_;
  std::vector<BatchPacker> packers_;
  std::size_t next_ = 0;  // of packers_
  Coded out_;
  std::uint64_t coded_ = 0;  // bytes so far
};

}  // namespace godwit::codec
