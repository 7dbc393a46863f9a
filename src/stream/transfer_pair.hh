#pragma once
// Test double: two transfers joined by in-memory lanes with random chunk sizes, which can die at
// any byte. Time moves only when told. Used by tests and benchmarks.
#include <functional>
#include <random>
#include <string>

#include "stream/transfer.hh"

namespace godwit::stream::test {

// Collects what one side's sink is told; takes at most `appetite` bytes per deliver() call.
class RecordingSink final : public TransferSink {
 public:
  std::size_t deliver(StreamId stream, BytesView bytes) override {
    const std::size_t taken = std::min(bytes.size(), appetite);
    append(taken_bytes[stream], bytes.first(taken));
    return taken;
  }
  void stream_ended(StreamId stream) override { ended.push_back(stream); }
  void end_acknowledged(StreamId stream) override { acknowledged.push_back(stream); }
  void transfer_failed(const Error& why) override { failures.push_back(why.text); }

  std::size_t appetite = SIZE_MAX;
  std::map<StreamId, Bytes> taken_bytes;
  std::vector<StreamId> ended, acknowledged;
  std::vector<std::string> failures;
};

inline Bytes random_bytes(std::size_t count, std::mt19937_64& random) {
  Bytes bytes(count);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

class TransferPair final {
 public:
  explicit TransferPair(std::uint64_t seed = 1, std::vector<StreamSpec> streams = vm_streams(),
                        LaneNumber lane_count = 1)
      : random(seed),
        source({.id = kId, .role = Role::kSource, .streams = streams}, source_sink, now),
        target({.id = kId, .role = Role::kTarget, .streams = streams}, target_sink, now),
        lanes(lane_count) {}

  void connect(LaneNumber lane) {
    lanes.at(lane) = {};
    source.lane_up(lane, now);
    target.lane_up(lane, now);
  }
  void connect() {
    for (LaneNumber lane = 0; lane < lanes.size(); ++lane) connect(lane);
  }
  // The bytes on their way are lost.
  void cut(LaneNumber lane) {
    lanes.at(lane) = {};
    source.lane_down(lane, now);
    target.lane_down(lane, now);
  }
  void cut() {
    for (LaneNumber lane = 0; lane < lanes.size(); ++lane) cut(lane);
  }
  // Moves a random number of bytes, at most `most`, each way on each lane, which starts anywhere;
  // returns whether any moved.
  bool step(std::size_t most = 64 << 10) {
    bool moved = false;
    const std::size_t first = lanes.size() > 1 ? random() % lanes.size() : 0;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      moved = step_lane(static_cast<LaneNumber>((first + i) % lanes.size()), most) || moved;
    }
    return moved;
  }
  // Steps until nothing moves, time standing still but for 1 ms after each quiet step.
  void settle(int quiet_steps = 5) {
    for (int quiet = 0; quiet < quiet_steps;) {
      if (step()) continue;
      advance(milliseconds(1));
      ++quiet;
    }
  }
  void advance(Nanoseconds by) {
    now += by;
    note(source.tick(now));
    note(target.tick(now));
  }

  static inline const TransferId kId = TransferId::from(as_bytes("0123456789abcdef"));
  std::mt19937_64 random;
  Instant now = Instant{} + seconds(1000);
  RecordingSink source_sink, target_sink;
  Transfer source, target;
  struct Lane {
    Bytes to_target, to_source;  // on their way
  };
  std::vector<Lane> lanes;
  std::vector<std::string> lane_faults;
  // Given each chunk before it goes onto the lane.
  std::function<void(MutableBytes)> tamper;

 private:
  std::size_t some(std::size_t most) { return 1 + random() % most; }
  void note(const std::optional<LaneFault>& fault) {
    if (fault) lane_faults.push_back(fault->why.text);
  }
  bool step_lane(LaneNumber number, std::size_t most) {
    Lane& lane = lanes[number];
    const bool out = move(source, number, lane.to_target, most);
    const bool back = move(target, number, lane.to_source, most);
    const bool arrived = arrive(lane.to_target, target, number, most);
    return arrive(lane.to_source, source, number, most) || arrived || out || back;
  }
  bool move(Transfer& from, LaneNumber number, Bytes& lane, std::size_t most) {
    Bytes chunk(some(most));
    chunk.resize(from.take(number, chunk, now));
    if (tamper) tamper(chunk);
    append(lane, chunk);
    return !chunk.empty();
  }
  bool arrive(Bytes& lane, Transfer& to, LaneNumber number, std::size_t most) {
    if (lane.empty()) return false;
    const std::size_t count = std::min(lane.size(), some(most));
    note(to.feed(number, BytesView(lane).first(count), now));
    lane.erase(lane.begin(), lane.begin() + static_cast<std::ptrdiff_t>(count));
    return true;
  }
};

}  // namespace godwit::stream::test
