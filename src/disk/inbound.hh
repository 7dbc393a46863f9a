#pragma once
// The disks of one vm as they come in: records are made in order where they touch the same bytes,
// several at a time where they do not, and acknowledged in order. Pure; owned by one thread.
#include <deque>
#include <optional>

#include "disk/record.hh"

namespace godwit::disk {

class InboundSink {
 public:
  virtual ~InboundSink() = default;
  // Each is answered by done(number), later: not from within. `data` is the sink's until then.
  virtual void write(std::uint64_t number, std::uint8_t disk, std::uint64_t offset,
                     BytesView data) = 0;
  virtual void zero(std::uint64_t number, std::uint8_t disk, Extent extent) = 0;
  // What has this digest, from wherever it is, to there; looked for, not guessed.
  virtual void copy(std::uint64_t number, std::uint8_t disk, Extent extent,
                    const Digest& digest) = 0;
  virtual void flush(std::uint64_t number) = 0;  // all disks
};

class Inbound final {
 public:
  static constexpr std::size_t kMaxAtOnce = 16;
  // So far ahead of one that takes long: each is compared with all before it.
  static constexpr std::size_t kMostAhead = 256;

  Inbound(std::vector<ByteCount> disks, InboundSink& sink);

  // Bytes of the stream of records; an error: the stream is of no more use.
  Result<> push(BytesView bytes);
  void done(std::uint64_t number);

  // Records made so far, with all before them.
  std::uint64_t made() const { return made_; }
  bool ended() const { return ended_; }  // kEnd was made
  // More than this waits to be made: no more should come for now.
  bool is_behind() const { return waiting_bytes_ >= kMostWaiting || work_.size() >= kMostRecords; }

 private:
  static constexpr std::uint64_t kMostWaiting = 8 << 20;  // bytes
  static constexpr std::size_t kMostRecords = 4096;
  struct Work {
    RecordKind kind{};
    std::uint8_t disk = 0;
    Extent extent{};
    Bytes data{};
    bool begun = false, done = false;
  };

  void begin();
  bool may_begin(std::size_t index) const;
  void start(std::uint64_t number, const Work& work);

  RecordReader reader_;
  InboundSink& sink_;
  std::deque<Work> work_;  // the first is record made_
  std::size_t at_once_ = 0;
  std::uint64_t made_ = 0;
  std::uint64_t waiting_bytes_ = 0;
  bool ended_ = false;
};

}  // namespace godwit::disk
