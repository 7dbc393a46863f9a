// A guest that writes at random while its disks are on their way, over a link that is cut at
// random, to disks that are new or of an earlier time: what is at the target in the end is what the
// guest wrote, and every write that it was told is done synchronously is there at that moment.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <tuple>

#include "disk/inbound.hh"
#include "disk/outbound.hh"

namespace godwit::disk {
namespace {

constexpr std::uint64_t kDiskBytes = 24 * kBlockBytes + 512;
constexpr std::size_t kDisks = 2;

// elsewhere: seeded, and with a catalogue of which not all is true.
enum class Target { empty, seeded, elsewhere };

class Way final : OutboundSink, InboundSink {
 public:
  Way(unsigned seed, Mode mode, Target target) : random_(seed), outbound_(sizes(), mode, *this) {
    const bool is_seeded = target != Target::empty;
    if (is_seeded) outbound_.compare(kKey);
    for (std::uint8_t disk = 0; disk < kDisks; ++disk) {
      source_[disk].resize(kDiskBytes);
      scribble(source_[disk]);
      target_[disk].resize(kDiskBytes);
      if (is_seeded) {
        target_[disk] = source_[disk];
        differ(disk, target == Target::elsewhere ? 1 : 3);
      }
      for_each_block([&](Extent block) {
        if (!is_all_zeros(slice(source_[disk], block))) outbound_.mark(disk, block);
        if (!is_all_zeros(slice(target_[disk], block))) to_tell_.push_back({disk, block});
      });
      if (is_seeded) to_tell_.push_back({disk, {.offset = kDiskBytes}});
    }
    if (target == Target::elsewhere) catalogue();
  }

  void run() {
    for (int step = 0; step < 1000; ++step) {
      if (step == 500) outbound_.keep_in_step();
      do_something();
    }
    cut_ = false;
    outbound_.finish();
    for (int step = 0; step < 20'000 && !outbound_.finished(); ++step) drive();
    ASSERT_TRUE(outbound_.finished());
    EXPECT_TRUE(inbound_.ended());
    EXPECT_EQ(source_[0], target_[0]);
    EXPECT_EQ(source_[1], target_[1]);
  }
  std::uint64_t checked() const { return checked_; }
  std::uint64_t same() const { return outbound_.same_bytes(); }
  std::uint64_t elsewhere() const { return outbound_.elsewhere_bytes(); }
  std::uint64_t passed_over() const { return passed_over_; }

 private:
  static std::vector<ByteCount> sizes() { return {{kDiskBytes}, {kDiskBytes}}; }
  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }

  // Half of the blocks are empty.
  void scribble(Bytes& disk) {
    for_each_block([&](Extent block) {
      if (below(2) == 0) return;
      for (std::uint64_t at = block.offset; at < block.end(); at += 512) {
        if (below(3) != 0) std::memset(disk.data() + at, static_cast<int>(below(256)), 512);
      }
    });
  }

  // Every such block of the target's is of another time, or there is nothing in it, or it is
  // nothing of the source's.
  void differ(std::uint8_t disk, std::uint64_t every) {
    for_each_block([&](Extent block) {
      if (below(every) != 0) return;
      const int with = below(2) == 0 ? 0 : static_cast<int>(below(255) + 1);
      std::memset(target_[disk].data() + block.offset, with, block.length);
    });
  }

  // A library of blocks of the source's, of which each third has changed since it was told of, and
  // one that is another's of the same name.
  void catalogue() {
    std::set<Name> names;
    for (const Bytes& disk : source_) {
      for_each_block([&](Extent extent) {
        Bytes block = slice(disk, extent);
        if (is_all_zeros(block) || below(4) == 0) return;
        const Digest digest = digest_(block);
        names.insert(name_of(digest));
        if (below(3) == 0) block[below(block.size())] ^= std::byte{1};
        library_[digest] = block;
      });
    }
    append(CataloguePart{.names = {names.begin(), names.end()}}, told_);
  }

  template <typename Each>
  static void for_each_block(const Each& each) {
    for (std::uint64_t at = 0; at < kDiskBytes; at += kBlockBytes) {
      each(Extent{.offset = at, .length = std::min(kBlockBytes, kDiskBytes - at)});
    }
  }

  // As it is at that moment, while records come; what is told may take long to come.
  void tell_a_block() {
    if (to_tell_.empty() || below(2) == 0) return;
    const auto [disk, block] = to_tell_.front();
    to_tell_.pop_front();
    SeedPart part{.disk = disk, .offset = block.offset};
    if (block.length > 0) part.digests.push_back(digest_(slice(target_[disk], block)));
    append(part, told_);
  }
  void hear_of_blocks() {
    const std::size_t count = below(told_.size() + 1);
    heard_.push(BytesView(told_).first(count));
    told_.erase(told_.begin(), told_.begin() + static_cast<std::ptrdiff_t>(count));
    for (auto part = heard_.next(); *part; part = heard_.next())
      ASSERT_TRUE(outbound_.learn(**part));
  }

  void do_something() {
    now_ += milliseconds(below(40));
    if (below(100) == 0) cut_ = !cut_;
    if (below(2) == 0) guest();
    drive();
  }

  void guest() {
    const auto disk = static_cast<std::uint8_t>(below(kDisks));
    const std::uint64_t sectors = kDiskBytes / 512, first = below(sectors);
    const Extent extent{.offset = first * 512,
                        .length = 512 * (1 + below(std::min<std::uint64_t>(sectors - first, 200)))};
    const WriteToken token{.disk = disk, .request = ++requests_};
    const bool sync = outbound_.synchronous();
    Bytes data(extent.length, std::byte(static_cast<unsigned char>(below(255) + 1)));
    const std::uint64_t what = below(6);
    if (what <= 1) std::ranges::fill(data, std::byte{0});
    std::ranges::copy(data, source_[disk].begin() + static_cast<std::ptrdiff_t>(extent.offset));
    std::erase_if(promised_, [&](const auto& each) {
      const auto& [its_disk, its_extent, its_data] = each.second;
      return its_disk == disk && its_extent.offset < extent.end() &&
             extent.offset < its_extent.end();
    });
    if (sync && what != 1) promised_[requests_] = {disk, extent, data};
    if (what == 0) {
      outbound_.zeroed(token, extent, now_);
    } else if (what == 1) {
      outbound_.discarded(token, extent);
    } else {
      outbound_.written(token, extent.offset, data, now_);
    }
    if (below(8) == 0) outbound_.flushed({.disk = disk, .request = ++requests_}, now_);
  }

  void drive() {
    outbound_.pump(below(4) * kBlockBytes + 1, now_);
    finish_a_read();
    tell_a_block();
    if (!cut_ && below(4) == 0) hear_of_blocks();
    if (!cut_) deliver();
    finish_some_work();
    if (cut_ || below(3) != 0) return;
    for (const std::uint64_t number : std::exchange(not_there_, {})) {
      ASSERT_TRUE(outbound_.not_there(number));
      ++passed_over_;
    }
    by_acknowledgement_ = true;
    ASSERT_TRUE(outbound_.acknowledged(inbound_.made()));
    by_acknowledgement_ = false;
  }

  // OutboundSink. What is read is of some moment until it is told.
  void read(std::uint8_t disk, Extent extent) override {
    reads_.push_back({disk, extent, slice(source_[disk], extent)});
  }
  void finish_a_read() {
    if (reads_.empty() || below(2) == 0) return;
    auto& [disk, extent, data] = reads_.front();
    outbound_.read_done(disk, extent, data);
    reads_.pop_front();
  }
  void send(const Record& record) override { append(record, stream_); }
  void answer(WriteToken token) override {
    const auto found = promised_.find(token.request);
    if (found == promised_.end()) return;
    const auto [disk, extent, data] = found->second;
    promised_.erase(found);
    if (!by_acknowledgement_) return;  // a fall-back promises less
    ++checked_;
    EXPECT_EQ(slice(target_[disk], extent), data) << "write " << token.request;
  }

  // InboundSink
  void write(std::uint64_t number, std::uint8_t disk, std::uint64_t offset,
             BytesView data) override {
    work_.push_back({number, [this, disk, offset, data] {
                       std::ranges::copy(
                           data, target_[disk].begin() + static_cast<std::ptrdiff_t>(offset));
                     }});
  }
  void zero(std::uint64_t number, std::uint8_t disk, Extent extent) override {
    work_.push_back({number, [this, disk, extent] {
                       std::memset(target_[disk].data() + extent.offset, 0, extent.length);
                     }});
  }
  // Verified when it is used; what is wrong is told before it is acknowledged.
  void copy(std::uint64_t number, std::uint8_t disk, Extent extent, const Digest& digest) override {
    work_.push_back({number, [this, number, disk, extent, digest] {
                       const auto found = library_.find(digest);
                       if (found == library_.end() || digest_(found->second) != digest) {
                         return not_there_.push_back(number);
                       }
                       std::ranges::copy(
                           found->second,
                           target_[disk].begin() + static_cast<std::ptrdiff_t>(extent.offset));
                     }});
  }
  void flush(std::uint64_t number) override {
    work_.push_back({number, [] {}});
  }

  void deliver() {
    const std::size_t count = below(stream_.size() + 1);
    ASSERT_TRUE(inbound_.push(BytesView(stream_).first(count)));
    stream_.erase(stream_.begin(), stream_.begin() + static_cast<std::ptrdiff_t>(count));
  }
  void finish_some_work() {
    while (!work_.empty() && below(4) != 0) {
      const auto at = work_.begin() + static_cast<std::ptrdiff_t>(below(work_.size()));
      const auto [number, work] = *at;
      work_.erase(at);
      work();
      inbound_.done(number);
    }
  }

  static Bytes slice(const Bytes& disk, Extent extent) {
    const auto from = disk.begin() + static_cast<std::ptrdiff_t>(extent.offset);
    return {from, from + static_cast<std::ptrdiff_t>(extent.length)};
  }

  struct Reading {
    std::uint8_t disk;
    Extent extent;
    Bytes data;
  };
  struct Block {
    std::uint8_t disk;
    Extent extent;
  };
  struct Working {
    std::uint64_t number;
    std::function<void()> work;
  };

  static inline const Bytes kKey = Bytes(crypto::KeyedHash::kKeySize, std::byte{5});
  std::mt19937_64 random_;
  Instant now_{};
  std::array<Bytes, kDisks> source_, target_;
  Outbound outbound_;
  Inbound inbound_{sizes(), *this};
  std::deque<Reading> reads_;
  Bytes stream_;
  std::deque<Block> to_tell_;  // what the target had at first
  crypto::KeyedHash digest_{kKey};
  Bytes told_;
  SeedReader heard_{sizes()};
  std::deque<Working> work_;
  // Synchronous writes without an answer, which no later one has touched.
  std::map<std::uint64_t, std::tuple<std::uint8_t, Extent, Bytes>> promised_;
  std::map<Digest, Bytes> library_;
  std::vector<std::uint64_t> not_there_;
  std::uint64_t passed_over_ = 0;
  bool by_acknowledgement_ = false;
  std::uint64_t requests_ = 0, checked_ = 0;
  bool cut_ = false;
};

TEST(DiskWayProperty, TheTargetHasWhatTheGuestWrote) {
  std::uint64_t checked = 0, same = 0, elsewhere = 0, passed_over = 0;
  for (unsigned seed = 0; seed < 2; ++seed) {
    for (const Mode mode : {Mode::async_then_sync, Mode::sync, Mode::async}) {
      for (const Target target : {Target::empty, Target::seeded, Target::elsewhere}) {
        Way way(seed, mode, target);
        way.run();
        if (::testing::Test::HasFailure()) {
          FAIL() << "seed " << seed << " " << to_text(mode) << " target "
                 << static_cast<int>(target);
        }
        checked += way.checked();
        same += way.same();
        elsewhere += way.elsewhere();
        passed_over += way.passed_over();
      }
    }
  }
  EXPECT_GT(checked, 50u) << "writes were answered by their acknowledgement";
  EXPECT_GT(same, 30 * kBlockBytes) << "blocks were there";
  EXPECT_GT(elsewhere, 10 * kBlockBytes) << "blocks were elsewhere";
  EXPECT_GT(passed_over, 5u) << "blocks were not where the catalogue had them";
}

}  // namespace
}  // namespace godwit::disk
