#pragma once
// QEMU's memory on its way into the transfer: chunks go to an encoder in a thread of its own and
// come back as batches. Owned by a TransferLink; control thread.
//
//   room()/commit() -> chunk -> [worker: codec::Encoder] -> coded()/took()
//
// What waits in front of the encoder and behind it is bounded: then there is no room().
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "agent/worker.hh"
#include "codec/encoder.hh"
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
  // See codec::Encoder.
  void leave_group();
  // No more for now: what came is encoded without waiting for the batch to be full.
  void flush();
  // No more comes.
  void finish();

  BytesView coded() const;
  void took(std::size_t count);
  bool finished() const { return finished_; }
  // It has what came before flush() still to do, or to give.
  bool busy() const { return in_worker_ > 0 || !coded_.empty(); }
  // All is coded and taken.
  bool ended() const { return finished_ && in_worker_ == 0 && coded_.empty(); }
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
    Bytes spare;  // for what it becomes
  };
  struct Result {
    codec::Encoder::Coded coded;
    std::vector<stream::QemuMark> marks;
    codec::Stats stats;
    Chunk chunk;
  };

  void send();
  void encode(Chunk chunk);  // in the worker
  void came(Result result);

  os::Loop& control_;
  Events events_;
  codec::Encoder encoder_;        // the worker's
  std::uint64_t most_catalogue_;  // bytes
  Chunk chunk_;
  std::vector<Bytes> spare_chunks_, spare_coded_;  // memory to use again: new pages cost
  std::deque<Bytes> coded_;
  std::size_t taken_ = 0;        // of the first of coded_
  std::size_t coded_bytes_ = 0;  // in coded_, not taken
  std::size_t in_worker_ = 0;    // chunks
  std::uint64_t raw_ = 0;
  Encoded encoded_;
  std::deque<Encoded> ends_;
  std::uint64_t raw_until_ = 0, memory_until_ = 0;
  bool open_ = false;  // bytes came that were not flushed
  bool finished_ = false;
  codec::LevelControl level_;
  codec::Stats stats_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  Worker worker_;  // the last: it ends first
};

}  // namespace godwit::agent
