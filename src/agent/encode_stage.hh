#pragma once
// QEMU's memory on its way into the transfer, over threads of its own. Owned by a TransferLink;
// control thread.
//
//   room()/commit() -> chunk -> [codec::Batcher] -> batches -> [codec::BatchPacker]
//                                                              [codec::BatchPacker] ...
//                                                 -> in their order again -> coded()/took()
//
// There are as many packers as windows, and a batch goes to the first that is idle: while one keeps
// up there is one window, which compresses best. What is on its way in here is bounded: then there
// is no room().
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "agent/worker.hh"
#include "codec/batch_packer.hh"
#include "codec/batcher.hh"
#include "codec/level_control.hh"

namespace godwit::agent {

class EncodeStage final {
 public:
  struct Events {
    std::function<void()> changed;  // there is something coded, or room
    std::function<void(const stream::QemuMark&)> mark;
  };
  EncodeStage(os::Loop& control, const codec::Settings& settings, codec::GroupOffers group,
              Events events);
  ~EncodeStage();

  MutableBytes room();
  void commit(std::size_t count);
  // Of the catalogue of what the target knows; false: it is longer than it can be.
  bool learn(BytesView catalogue);
  // See codec::Batcher.
  void leave_group();
  // No more for now: what came is encoded without waiting for the batch to be full.
  void flush();
  // No more comes.
  void finish();

  BytesView coded() const;
  void took(std::size_t count);
  bool finished() const { return finished_; }
  // It has what came before flush() still to do, or to give.
  bool busy() const { return is_at_work() || !coded_.empty(); }
  // All is coded and taken.
  bool ended() const { return finished_ && !busy(); }
  std::uint64_t raw() const { return raw_; }
  // What has come out so far: of so many of QEMU's bytes so many for the lane.
  struct Encoded {
    std::uint64_t raw = 0, coded = 0;
    std::uint64_t memory = 0;  // of the vm: a page of zeros is a page
  };
  Encoded encoded() const { return encoded_; }
  std::size_t waiting() const { return coded_bytes_; }  // in coded()
  // Of QEMU's bytes, those that the first `position` coded bytes stand for. Positions go up.
  std::uint64_t raw_until(std::uint64_t position);
  std::uint64_t memory_taken() const { return memory_until_; }  // as raw_until() was last asked
  // Call often: the level follows what limits, the encoder or the lane.
  void adapt(bool lane_busy);
  const codec::Stats& stats() const { return stats_; }  // of a moment ago

 private:
  struct Chunk {
    Bytes bytes;
    std::size_t filled = 0;
    bool flush = false, finish = false;
    Bytes spare;  // memory for a batch
  };
  struct Batched {
    std::vector<stream::QemuMark> marks;
    codec::Stats stats;
    Bytes chunk;
    std::vector<codec::PlainBatch> batches;
  };
  struct Packed {
    Bytes coded, plain;
    std::uint64_t raw_end = 0, memory_end = 0;
  };
  struct Packing {
    codec::BatchPacker packer;  // the worker's
    std::size_t batches = 0;    // that it has
    Worker worker;
  };

  bool is_at_work() const { return batching_ > 0 || to_pack_ > 0; }
  void send();
  void batch(Chunk chunk);  // in the batcher's thread
  void batched(Batched result);
  void pack_waiting();
  void packed(std::uint64_t number, Packing& by, Packed result);
  void give_packed();

  os::Loop& control_;
  Events events_;
  codec::Batcher batcher_;        // its thread's
  std::uint64_t most_catalogue_;  // bytes
  Chunk chunk_;
  std::vector<Bytes> spare_chunks_, spare_plain_, spare_coded_;  // to use again: new pages cost
  std::deque<codec::PlainBatch> batches_;                        // no packer has them yet
  std::map<std::uint64_t, Packed> packed_;  // not given yet: what goes before them is not packed
  std::uint64_t next_batch_ = 0, next_packed_ = 0;
  std::deque<Bytes> coded_;
  std::size_t taken_ = 0;        // of the first of coded_
  std::size_t coded_bytes_ = 0;  // in coded_, not taken
  std::size_t batching_ = 0;     // chunks
  std::size_t to_pack_ = 0;      // batches
  std::uint64_t raw_ = 0;
  Encoded encoded_;
  std::deque<Encoded> ends_;
  std::uint64_t raw_until_ = 0, memory_until_ = 0;
  bool open_ = false;  // bytes came that were not flushed
  bool finished_ = false;
  codec::LevelControl level_;
  codec::Stats stats_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::vector<std::unique_ptr<Packing>> packings_;
  Worker worker_;  // the batcher's; the last: it ends first
};

}  // namespace godwit::agent
