// Two TransferLinks over in-memory streams: QEMU -- source -- lane -- target -- QEMU.
#include "agent/transfer_link.hh"

#include <gtest/gtest.h>

#include <random>

#include "codec/made_up_guest.hh"
#include "os/memory_stream.hh"
#include "os/test_wait.hh"

namespace godwit::agent {
namespace {

// One end of a stream, as QEMU uses it: writes what it has, keeps what comes.
class Qemu final {
 public:
  explicit Qemu(std::unique_ptr<os::ByteStream> stream) : stream_(std::move(stream)) {
    stream_->start({.readable = [this] { read(); },
                    .writable = [this] { write(); },
                    .closed = [this](const std::string&) { closed = true; }});
  }
  void send(Bytes bytes) {
    out_ = std::move(bytes);
    write();
  }
  Bytes received;
  bool closed = false;

 private:
  void read() {
    Bytes buffer(64 << 10);
    while (const std::size_t count = stream_->read(buffer)) {
      append(received, BytesView(buffer).first(count));
    }
  }
  void write() {
    sent_ += stream_->write(BytesView(out_).subspan(sent_));
    if (sent_ == out_.size() && !out_.empty()) stream_->finish();
  }
  std::unique_ptr<os::ByteStream> stream_;
  Bytes out_;
  std::size_t sent_ = 0;
};

// With and without a codec.
class TransferLinkTest : public testing::TestWithParam<std::optional<codec::Settings>> {
 protected:
  TransferLinkTest() {
    source_.use_qemu(from_.take_b());
    target_.use_qemu(to_.take_a());
  }
  void connect() {
    lane_ = std::make_unique<os::MemoryLink>();
    source_.use_lane(0, lane_->take_a());
    target_.use_lane(0, lane_->take_b());
  }
  bool run_until(const std::function<bool()>& done) {
    return os::run_until(loop_, [&] {
      for (int i = 0; i < 50; ++i) {
        from_.step();
        to_.step();
        if (lane_) lane_->step();
      }
      return done();
    });
  }
  static const stream::TransferId kId;
  static std::optional<TransferLink::Coding> coding() {
    return GetParam().transform(
        [](const auto& settings) { return TransferLink::Coding{.settings = settings}; });
  }

  os::Loop loop_;
  os::MemoryLink from_, to_;
  std::unique_ptr<os::MemoryLink> lane_;
  int verified_ = 0, lanes_lost_ = 0;
  std::vector<stream::QemuMark> marks_;
  TransferLink source_{
      loop_,
      kId,
      stream::Role::kSource,
      TransferLink::Disks::none,
      coding(),
      {.mark = [this](const stream::QemuMark& mark) { marks_.push_back(mark); },
       .lane_lost = [this](stream::LaneNumber, const std::string&) { ++lanes_lost_; },
       .memory_verified = [this] { ++verified_; },
       .failed = [](const std::string& why) { ADD_FAILURE() << why; }}};
  TransferLink target_{
      loop_,
      kId,
      stream::Role::kTarget,
      TransferLink::Disks::none,
      coding(),
      {.mark = {},
       .lane_lost = [this](stream::LaneNumber, const std::string&) { ++lanes_lost_; },
       .memory_verified = [this] { ++verified_; },
       .failed = [](const std::string& why) { ADD_FAILURE() << why; }}};
};

const stream::TransferId TransferLinkTest::kId = stream::TransferId::from(Bytes(16, std::byte{7}));

Bytes random_bytes(std::size_t size) {
  std::mt19937 random(1);
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST_P(TransferLinkTest, CarriesAStreamToItsEnd) {
  Qemu out(from_.take_a()), in(to_.take_b());
  const Bytes memory = random_bytes(1 << 20);
  connect();
  out.send(memory);
  ASSERT_TRUE(run_until([&] { return verified_ == 2 && in.closed; }));
  EXPECT_TRUE(in.received == memory);
  ASSERT_FALSE(marks_.empty());
  EXPECT_EQ(marks_.front(), (stream::QemuMark{stream::QemuMark::Kind::kOpaque, 0}));
}

TEST_P(TransferLinkTest, TheLesserOfTwoCapsHoldsUntilItIsLifted) {
  Qemu out(from_.take_a()), in(to_.take_b());
  constexpr std::size_t kPart = 512 << 10;
  const Bytes memory = random_bytes(3 * kPart);
  source_.set_bandwidth(BitRate{200'000'000});
  source_.hold_back(BitRate{20'000'000});
  connect();
  out.send(memory);
  const auto part = [&](std::size_t number) {
    const Instant began = loop_.now();
    EXPECT_TRUE(run_until([&] { return in.received.size() >= number * kPart; }));
    return loop_.now() - began;
  };
  const Nanoseconds held = part(1);
  source_.hold_back(std::nullopt);
  const Nanoseconds lifted = part(2);
  EXPECT_GT(held, 2 * lifted) << "by a tenth of the other cap";
  EXPECT_TRUE(run_until([&] { return verified_ == 2; }));
}

TEST_P(TransferLinkTest, GoesOnOverAnotherLane) {
  Qemu out(from_.take_a()), in(to_.take_b());
  const Bytes memory = random_bytes(16 << 20);
  connect();
  out.send(memory);
  ASSERT_TRUE(run_until([&] { return in.received.size() > 100'000; }));
  ASSERT_LT(in.received.size(), memory.size());
  lane_->cut();
  ASSERT_TRUE(run_until([&] { return lanes_lost_ == 2; }));
  connect();
  ASSERT_TRUE(run_until([&] { return verified_ == 2 && in.closed; }));
  EXPECT_TRUE(in.received == memory);
}

TEST_P(TransferLinkTest, TakesOnlyTheFirstPieceUntilMoreIsAllowed) {
  constexpr std::size_t kPiece = 10'000;
  Qemu out(from_.take_a()), in(to_.take_b());
  const Bytes memory = random_bytes(40'000);  // QEMU has written all of it, and closed
  connect();
  source_.take_only(ByteCount{kPiece});
  out.send(memory);
  ASSERT_TRUE(run_until([&] { return in.received.size() == kPiece; }));
  int rounds = 0;
  ASSERT_TRUE(run_until([&] { return ++rounds == 10; }));
  EXPECT_EQ(in.received.size(), kPiece);
  EXPECT_EQ(verified_, 0);
  source_.take_only(std::nullopt);
  ASSERT_TRUE(run_until([&] { return verified_ == 2 && in.closed; }));
  EXPECT_TRUE(in.received == memory);
}

TEST_P(TransferLinkTest, LeavesInQemuWhatASlowConsumerIsBehindWith) {
  constexpr std::size_t kMost = 1 << 20;
  Qemu out(from_.take_a());
  const auto slow = to_.take_b();  // takes nothing for now
  connect();
  source_.bound_backlog({.most = {kMost}});
  out.send(random_bytes(16 << 20));
  const auto backlog = [&] { return source_.stats().out.at(stream::kMemoryStream).backlog(); };
  ASSERT_TRUE(run_until([&] { return backlog() >= kMost; }));
  int rounds = 0;
  ASSERT_TRUE(run_until([&] { return ++rounds == 10; }));
  const std::size_t encoder_holds = GetParam() ? std::size_t(2 + GetParam()->windows) << 20 : 0;
  EXPECT_LT(backlog(), 2 * kMost + encoder_holds);  // with the last read
  source_.bound_backlog({.most = {}, .beyond = ByteCount{4 * kMost}});
  ASSERT_TRUE(run_until([&] { return backlog() >= 4 * kMost; }));
}

TEST_P(TransferLinkTest, WithoutALaneQemuOnlyWaits) {
  Qemu out(from_.take_a());
  out.send(random_bytes(64 << 10));
  EXPECT_FALSE(source_.has_lane());
  EXPECT_TRUE(run_until([&] { return source_.stats().out.at(stream::kMemoryStream).offered > 0; }));
}

// A target that knows the guest's pages, and a source that is ready to hear of `most` of them.
struct KnowingLinks {
  explicit KnowingLinks(std::uint64_t most) {
    auto pages = std::make_shared<codec::KnownPages>(codec::MadeUpGuest::kPage, SIZE_MAX,
                                                     Bytes(crypto::KeyedHash::kKeySize));
    for (const Bytes& page : guest.memory()) pages->add(page);
    pages->seal();
    codec::Settings settings{.cache = 1 << 20, .most_known = most, .window_bits = 20};
    source = std::make_unique<TransferLink>(
        loop, kId, stream::Role::kSource, disks, TransferLink::Coding{.settings = settings},
        TransferLink::Events{.mark = {},
                             .lane_lost = [](stream::LaneNumber, const std::string&) {},
                             .known_learnt = [this] { learnt = true; },
                             .memory_verified = [this] { ++verified; },
                             .failed = [this](const std::string& why) { failure = why; }});
    target = std::make_unique<TransferLink>(
        loop, kId, stream::Role::kTarget, disks,
        TransferLink::Coding{.settings = settings, .known = {.kept = pages}},
        TransferLink::Events{.mark = {},
                             .lane_lost = [](stream::LaneNumber, const std::string&) {},
                             .memory_verified = [this] { ++verified; },
                             .failed = [](const std::string&) {}});
    source->use_qemu(from.take_b());
    target->use_qemu(to.take_a());
    source->use_lane(0, lane.take_a());
    target->use_lane(0, lane.take_b());
  }
  bool run_until(const std::function<bool()>& done) {
    return os::run_until(loop, [&] {
      for (int i = 0; i < 50; ++i) from.step(), to.step(), lane.step();
      return done();
    });
  }

  const stream::TransferId kId = stream::TransferId::from(Bytes(16, std::byte{7}));
  const TransferLink::Disks disks = TransferLink::Disks::some;
  codec::MadeUpGuest guest{3, 500};
  os::Loop loop;
  os::MemoryLink from, to, lane;
  bool learnt = false;
  int verified = 0;
  std::string failure;
  std::unique_ptr<TransferLink> source, target;
};

TEST(TransferLinkKnown, WhatTheTargetKnowsIsOnlyNamed) {
  KnowingLinks links(500);
  ASSERT_TRUE(links.run_until([&] { return links.learnt; }));
  Qemu out(links.from.take_a()), in(links.to.take_b());
  const Bytes memory = links.guest.stream(1);
  out.send(memory);
  ASSERT_TRUE(links.run_until([&] { return links.verified == 2 && in.closed; }));
  EXPECT_TRUE(in.received == memory);
  const auto& known =
      links.source->encoded()->by_encoding[std::to_underlying(codec::Encoding::kKnown)];
  EXPECT_GT(known.pages, 200U);
  EXPECT_LT(links.source->stats().out.at(stream::kMemoryStream).offered, 20'000U);
}

TEST(TransferLinkDisks, WhatIsNotTakenComesWhenItIsWanted) {
  KnowingLinks links(500);
  std::size_t appetite = 100;
  Bytes came, answered;
  links.target->use_disks({.bytes = [&](BytesView bytes) {
    const std::size_t taken = std::min(bytes.size(), appetite);
    append(came, bytes.first(taken));
    appetite -= taken;
    return taken;
  }});
  bool had_room = false;
  links.source->use_disks({.bytes =
                               [&](BytesView bytes) {
                                 append(answered, bytes);
                                 return bytes.size();
                               },
                           .room = [&] { had_room = true; }});
  const Bytes records(500, std::byte{3});
  EXPECT_EQ(links.source->offer_disks(records), records.size());
  ASSERT_TRUE(links.run_until([&] { return came.size() == 100 && had_room; }));
  appetite = 1000;
  links.target->take_disks();
  EXPECT_EQ(came, records);
  links.target->offer_disks(Bytes(8));
  ASSERT_TRUE(links.run_until([&] { return answered.size() == 8; }));
  links.target->use_disks({});  // whoever had them is gone
  EXPECT_EQ(links.source->offer_disks(records), records.size());
  ASSERT_TRUE(links.run_until(
      [&] { return links.source->stats().out.at(stream::kDiskStream).backlog() == 0; }));
}

TEST(TransferLinkKnown, ATargetThatSaysItKnowsMoreThanThereIsIsLeft) {
  KnowingLinks links(10);
  ASSERT_TRUE(links.run_until([&] { return !links.failure.empty(); }));
  EXPECT_NE(links.failure.find("knows more pages than the vm has"), std::string::npos);
}

// Next to nothing on the lane, 9 bytes each for QEMU, and pages for the kernel that clears them.
TEST(TransferLinkZeros, WhatASlowQemuHasNotTakenIsNotSaidToBeTaken) {
  constexpr std::uint64_t kPages = 60'000, kPage = codec::MadeUpGuest::kPage;
  const Bytes memory = codec::stream_of_zero_pages(kPages);
  KnowingLinks links(500);
  Qemu out(links.from.take_a());
  const auto slow = links.to.take_b();  // takes nothing
  out.send(memory);
  const auto now = [&] { return links.source->memory(); };
  ASSERT_TRUE(links.run_until([&] { return now().encoded.memory > kPages * kPage; }));
  int rounds = 0;
  ASSERT_TRUE(links.run_until([&] { return ++rounds == 50; }));
  // The link to QEMU holds 7,000 pages, the decoder two batches of 2,048.
  EXPECT_LT(now().memory_taken, 20'000 * kPage);
}

INSTANTIATE_TEST_SUITE_P(
    , TransferLinkTest,
    testing::Values(std::nullopt, codec::Settings{.cache = 1 << 20, .window_bits = 20},
                    codec::Settings{.cache = 1 << 20, .window_bits = 20, .windows = 3}));

}  // namespace
}  // namespace godwit::agent
