// Disks on their way. By the first bit of the input either a hostile peer's stream of records,
// whose sink answers in any order, or a script of what a guest, its QEMU, the link and a target,
// which may have disks already, do to the source's side.
#include <algorithm>
#include <cstdlib>
#include <deque>
#include <map>
#include <set>
#include <vector>

#include "disk/inbound.hh"
#include "disk/outbound.hh"

namespace {

using namespace godwit;
using namespace godwit::disk;

// One that is longer than any record, and one whose last block is a part of one.
const std::vector<ByteCount> kDisks = {{3ULL << 30}, {4 * kBlockBytes + 512}};

void require(bool good) {
  if (!good) std::abort();
}

// Hostile bytes into an Inbound.
class Target final : InboundSink {
 public:
  explicit Target(Reader& input) : input_(input), inbound_(kDisks, *this) {}
  void run() {
    while (input_.remaining() > 0) {
      if (!step()) return;  // of no more use
      check();
    }
    while (!work_.empty()) done();
    check();
  }

 private:
  struct Work {
    std::uint8_t disk = 0;
    Extent extent{};
    BytesView data{};
    std::byte sum{};
    bool flush = false;
  };

  bool step() {
    switch (input_.u8() % 8) {
      case 0:
        return push(some_bytes());
      case 1:
        return push_record(RecordKind{static_cast<std::uint8_t>(input_.u8() % 7)}, true);
      case 2:
      case 3:
        return push_record(RecordKind::kWrite, false);
      case 4:
        return push_record(input_.u8() % 2 == 0 ? RecordKind::kZero : RecordKind::kCopy, false);
      case 5:
        return push_record(input_.u8() % 16 == 0 ? RecordKind::kEnd : RecordKind::kFlush, false);
      default:
        if (!work_.empty()) done();
        return true;
    }
  }
  BytesView some_bytes() {
    return input_.bytes(std::min<std::size_t>(input_.u8(), input_.remaining()));
  }
  bool push(BytesView bytes) { return inbound_.push(bytes).has_value(); }
  // Of few places, so that they touch one another.
  bool push_record(RecordKind kind, bool wild) {
    Bytes bytes;
    const bool has_extent = kind != RecordKind::kFlush && kind != RecordKind::kEnd;
    const auto disk = static_cast<std::uint8_t>(input_.u8() % (wild ? 3 : 2));
    const std::uint64_t offset = wild ? input_.u64() : input_.u8() % 64 * 512u;
    const std::uint32_t length = wild ? input_.u32() : 1 + input_.u16() % 4096u;
    Writer(bytes).u8(static_cast<std::uint8_t>(kind)).u8(has_extent || wild ? disk : 0).u16(0);
    Writer(bytes).u32(has_extent || wild ? length : 0).u64(has_extent || wild ? offset : 0);
    if (kind == RecordKind::kWrite) bytes.resize(bytes.size() + std::min(length, 4096u), fill_);
    if (kind == RecordKind::kCopy) bytes.resize(bytes.size() + sizeof(Digest), fill_);
    fill_ = std::byte{input_.u8()};
    const std::size_t cut = input_.u8() % (bytes.size() + 1);
    return push(BytesView(bytes).first(cut)) && push(BytesView(bytes).subspan(cut));
  }

  // InboundSink
  void write(std::uint64_t number, std::uint8_t disk, std::uint64_t offset,
             BytesView data) override {
    begin(number,
          {.disk = disk, .extent = {.offset = offset, .length = data.size()}, .data = data});
  }
  void zero(std::uint64_t number, std::uint8_t disk, Extent extent) override {
    begin(number, {.disk = disk, .extent = extent});
  }
  void copy(std::uint64_t number, std::uint8_t disk, Extent extent, const Digest&) override {
    require(extent.length <= kBlockBytes);
    begin(number, {.disk = disk, .extent = extent});
  }
  void flush(std::uint64_t number) override { begin(number, {.flush = true}); }

  void begin(std::uint64_t number, Work work) {
    require(number >= inbound_.made() && !work_.contains(number));
    for (const auto& [before, other] : work_) {
      // A flush has nothing before it that is under way; other records nothing that they touch.
      require(!work.flush || other.flush || before > number);
      require(work.flush || other.flush || work.disk != other.disk ||
              !overlaps(work.extent, other.extent));
    }
    if (!work.flush) {
      const std::uint64_t size = kDisks.at(work.disk).bytes;
      require(work.extent.length > 0 && work.extent.offset < size &&
              work.extent.length <= size - work.extent.offset);
    }
    work.sum = sum_of(work.data);
    work_.emplace(number, work);
    require(work_.size() <= Inbound::kMaxAtOnce);
  }
  void done() {
    const auto at = std::next(work_.begin(), input_.u8() % static_cast<int>(work_.size()));
    const auto [number, work] = *at;
    require(sum_of(work.data) == work.sum);  // the sink's until now
    work_.erase(at);
    inbound_.done(number);
  }
  static std::byte sum_of(BytesView data) {
    std::byte sum{};
    for (const std::byte each : data) sum ^= each;
    return sum;
  }
  void check() {
    require(inbound_.made() >= made_);
    made_ = inbound_.made();
    require(!inbound_.ended() || work_.empty());
    for (const auto& [number, work] : work_) require(number >= made_);
  }

  Reader& input_;
  Inbound inbound_;
  std::map<std::uint64_t, Work> work_;  // begun, by number
  std::uint64_t made_ = 0;
  std::byte fill_{1};
};

// A guest and a link at an Outbound. What it sends has to be what a target takes.
class Source final : OutboundSink {
 public:
  explicit Source(Reader& input)
      : input_(input),
        reader_(kDisks),
        outbound_(kDisks, Mode{static_cast<std::uint8_t>(input.u8() % 3)}, *this) {
    if (input.u8() % 2 != 0) return;
    outbound_.compare(kKey);
    compares_ = true;
  }
  void run() {
    while (input_.remaining() > 0) {
      step();
      pump();
    }
    end();
  }

 private:
  static constexpr int kMostTurns = 1000;
  static constexpr std::uint64_t kPlenty = 4 << 20;
  static constexpr std::uint64_t kMostWritten = 2 * kBlockBytes;

  void step() {
    switch (input_.u8() % 16) {
      case 0:
      case 1:
        return write();
      case 2:
        return zero();
      case 3:
        if (const auto extent = some_extent(); !outbound_.end_sent()) {
          outbound_.discarded(token(extent.disk), extent.extent);
        }
        return;
      case 4:
        return outbound_.flushed(token(0), now_);
      case 5:
      case 6:
        return read_some();
      case 7:
        return acknowledge();
      case 8:
        now_ += milliseconds(input_.u8() * 16);
        return;
      case 9:
        room_ = input_.u8() * kBlockBytes;
        return;
      case 10:
        if (!finishing_) outbound_.keep_in_step();
        return;
      case 11:
        return learn();
      case 12:
        return learn_bytes();
      case 13:
        return learn_names();
      case 14:
        return pass_over();
      default:
        if (input_.u8() % 16 == 0) finish();
    }
  }
  struct Place {
    std::uint8_t disk = 0;
    Extent extent{};
  };
  // Close together on the second disk, room for many reads on the first.
  Place some_extent() {
    const auto disk = static_cast<std::uint8_t>(input_.u8() % kDisks.size());
    const std::uint64_t place = input_.u8();
    const std::uint64_t offset =
        disk == 0 ? place * (kBlockBytes / 4) : place % 65 * (kBlockBytes / 16);
    const std::uint64_t length = 1 + input_.u16() % (kMostWritten / 8) * 8;
    return {disk, {offset, std::min(length, kDisks[disk].bytes - offset)}};
  }
  WriteToken token(std::uint8_t disk) {
    asked_.insert(++requests_);
    return {.disk = disk, .request = requests_};
  }
  // While the guest stands nothing is written; QEMU may flush for all that.
  void write() {
    const auto [disk, extent] = some_extent();
    if (outbound_.end_sent()) return;
    const Bytes& data = input_.u8() % 2 == 0 ? kZeroes : kOnes;
    outbound_.written(token(disk), extent.offset, BytesView(data).first(extent.length), now_);
  }
  void zero() {
    auto [disk, extent] = some_extent();
    if (outbound_.end_sent()) return;
    // Not where it would all have to be read.
    const bool is_sent = outbound_.synchronous() && reads_.empty();
    if (disk == 0 && is_sent && input_.u8() % 8 == 0)
      extent.length = kDisks[0].bytes - extent.offset;
    outbound_.zeroed(token(disk), extent, now_);
  }
  void read_some() {
    if (reads_.empty()) return;
    const auto which = reads_.begin() + input_.u8() % static_cast<int>(reads_.size());
    const auto [disk, extent] = *which;
    reads_.erase(which);
    // Blocks of zeroes and others.
    Bytes data(extent.length);
    const std::uint8_t kinds = input_.u8();
    for (std::size_t at = 0; at < data.size(); at += kBlockBytes) {
      data[at] = std::byte{static_cast<std::uint8_t>(kinds >> at / kBlockBytes & 1)};
    }
    outbound_.read_done(disk, extent, data);
  }
  void acknowledge() {
    // More than was sent, too, and less than before.
    const std::uint64_t records = outbound_.acked() + input_.u8() % 32;
    const std::uint64_t back = input_.u8() % 8 == 0 ? 2 : 0;
    const std::uint64_t acked = records - std::min(records, back), before = outbound_.acked();
    require(outbound_.acknowledged(acked) == (acked <= sent_));
    require(outbound_.acked() == (acked <= sent_ ? std::max(acked, before) : before));
    while (!copies_.empty() && copies_.front() < outbound_.acked()) copies_.pop_front();
  }
  // A copy on its way, or another record.
  void pass_over() {
    const std::uint64_t number = outbound_.acked() + input_.u8() % 32;
    const auto copy = std::ranges::find(copies_, number);
    require(outbound_.not_there(number) == (copy != copies_.end()));
    if (copy != copies_.end()) copies_.erase(copy);
  }
  // Of what read_some() may find, of others, in any order.
  void learn() {
    const auto disk = static_cast<std::uint8_t>(input_.u8() % kDisks.size());
    const std::uint64_t blocks = (kDisks[disk].bytes + kBlockBytes - 1) / kBlockBytes;
    const std::uint64_t first = input_.u8() % blocks;
    SeedPart part{.disk = disk, .offset = first * kBlockBytes};
    part.digests.resize(std::min<std::uint64_t>(input_.u8() % 8, blocks - first));
    for (Digest& digest : part.digests) {
      digest = digest_(BytesView(input_.u8() % 2 == 0 ? kZeroes : kOnes).first(kBlockBytes));
    }
    learn(part);
  }
  void learn(const SeedPart& part) {
    std::uint64_t& known_to = known_to_[part.disk];
    const bool is_good = compares_ && part.offset >= known_to;
    require(outbound_.learn(part) == is_good);
    if (!is_good) return;
    known_to = std::min(part.offset + part.digests.size() * kBlockBytes, kDisks[part.disk].bytes);
  }
  // Of what read_some() may find, or of others.
  void learn_names() {
    CataloguePart part{.names = {input_.u32()}};
    if (input_.u8() % 2 == 0) part.names = {name_of(digest_(BytesView(kOnes).first(kBlockBytes)))};
    learn(part);
  }
  void learn(const CataloguePart& part) { (void)outbound_.learn(part); }
  void learn(const KeyPart& part) { (void)outbound_.learn(part); }
  void learn_bytes() {
    const std::size_t count = std::min<std::size_t>(input_.u8(), input_.remaining());
    seed_reader_.push(input_.bytes(count));
    for (auto part = seed_reader_.next(); part && *part; part = seed_reader_.next()) {
      std::visit([this](const auto& each) { learn(each); }, **part);
    }
  }
  void finish() {
    outbound_.finish();
    finishing_ = true;
  }
  void pump() {
    outbound_.pump(room_, now_);
    check();
  }
  // Whatever came before: with a link and a disk that work it comes to its end.
  void end() {
    finish();
    room_ = kPlenty;
    for (std::uint8_t disk = 0; compares_ && disk < kDisks.size(); ++disk) {
      require(outbound_.all_known() == (known_to_[0] == kDisks[0].bytes &&
                                        known_to_[1] == kDisks[1].bytes && copies_.empty()));
      learn(SeedPart{.disk = disk, .offset = kDisks[disk].bytes});
    }
    for (int turn = 0; turn < kMostTurns && !outbound_.finished(); ++turn) {
      pump();
      for (const auto& [disk, extent] : std::exchange(reads_, {})) {
        outbound_.read_done(disk, extent, BytesView(kOnes).first(extent.length));
      }
      require(outbound_.acknowledged(outbound_.sent()));
      copies_.clear();
    }
    require(outbound_.finished() && asked_.empty() && outbound_.remaining_bytes() == 0 && ended_ &&
            reads_.empty());
  }
  void check() {
    require(outbound_.acked() <= outbound_.sent() && outbound_.sent() == sent_);
    require(outbound_.end_sent() == ended_);
    require(!outbound_.in_step() || (outbound_.synchronous() && reads_.empty()));
  }

  // OutboundSink
  void read(std::uint8_t disk, Extent extent) override {
    require(!compares_ || extent.end() <= known_to_[disk]);
    for (const auto& [other, its] : reads_) require(other != disk || !overlaps(its, extent));
    reads_.push_back({disk, extent});
    require(reads_.size() <= Outbound::kMaxReads && extent.length <= Outbound::kReadBytes);
    require(extent.length > 0 && extent.end() <= kDisks.at(disk).bytes);
  }
  void send(const Record& record) override {
    if (record.kind == RecordKind::kCopy) copies_.push_back(sent_);
    ++sent_;
    Bytes bytes;
    append(record, bytes);
    reader_.push(bytes);
    const auto read = reader_.next();
    require(read && *read && (*read)->kind == record.kind && (*read)->extent == record.extent);
    ended_ = record.kind == RecordKind::kEnd;
  }
  void answer(WriteToken token) override { require(asked_.erase(token.request) == 1); }

  static inline const Bytes kKey = Bytes(crypto::KeyedHash::kKeySize);
  static inline const Bytes kZeroes = Bytes(kMostWritten);
  static inline const Bytes kOnes = Bytes(Outbound::kReadBytes, std::byte{1});
  Reader& input_;
  Instant now_{};
  std::uint64_t room_ = kPlenty;
  std::vector<Place> reads_;
  std::set<std::uint64_t> asked_;  // without an answer
  std::uint64_t requests_ = 0, sent_ = 0;
  std::deque<std::uint64_t> copies_;  // on their way
  bool finishing_ = false, ended_ = false;
  RecordReader reader_;
  SeedReader seed_reader_{kDisks};
  crypto::KeyedHash digest_{kKey};
  std::vector<std::uint64_t> known_to_ = std::vector<std::uint64_t>(kDisks.size());
  bool compares_ = false;
  Outbound outbound_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Reader input(std::as_bytes(std::span(data, size)));
  if (input.u8() % 2 == 0) {
    Target(input).run();
  } else {
    Source(input).run();
  }
  return 0;
}
