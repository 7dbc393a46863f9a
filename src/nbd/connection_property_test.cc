// Random sequences of requests, cut anywhere, give the same requests; answered in any order and
// taken in parts, they give bytes that a client takes apart again.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "nbd/connection.hh"
#include "nbd/nbd_testing.hh"

namespace godwit::nbd {
namespace {

using test::Sent;

constexpr std::uint32_t kMost = static_cast<std::uint32_t>(kMaxPayload.bytes);

class RandomClient {
 public:
  RandomClient(unsigned seed, bool structured)
      : random_(seed), structured_(structured), parser_(structured) {
    test::go(connection_, "disk0", structured);
  }

  void run() {
    prepare(40);
    BytesView input = input_;
    // Cut anywhere, answered in any order, sent in parts.
    for (int idle = 0; idle < 1000 && parser_.replies().size() < sent_.size(); ++idle) {
      if (read_some(input)) idle = 0;
      while (const auto request = connection_.next()) expect_next(*request), idle = 0;
      ASSERT_FALSE(connection_.failed());
      if (!waiting_.empty() && random_() % 2 == 0) answer_one(), idle = 0;
      write_some();
    }
    ASSERT_EQ(parser_.replies().size(), sent_.size());
    EXPECT_EQ(taken_, good_);
    EXPECT_TRUE(parser_.whole());
    EXPECT_EQ(parser_.replies(), expected_);
  }

 private:
  std::size_t below(std::size_t bound) { return random_() % bound; }
  // Any that differ from each other.
  Bytes data(std::size_t size) {
    Bytes bytes(size + sizeof(std::uint64_t));
    std::uint64_t word = random_();
    for (std::size_t at = 0; at < size; at += sizeof word) {
      word = word * 6364136223846793005u + 1;  // Knuth's MMIX generator
      std::memcpy(bytes.data() + at, &word, sizeof word);
    }
    bytes.resize(size);
    return bytes;
  }

  void prepare(std::size_t count) {
    constexpr std::uint16_t kCommands[] = {0, 1, 1, 1, 3, 4, 6, 5};
    for (std::uint64_t cookie = 0; cookie < count; ++cookie) {
      Sent sent{.command = kCommands[below(8)], .cookie = cookie * 7919};
      if (sent.command != 3) {
        constexpr std::size_t kLengths[] = {1, 512, 4096, 70'000, 300'000, kMost, kMost + 9};
        sent.length = static_cast<std::uint32_t>(kLengths[below(7)]);
        sent.offset = below(20) == 0 ? test::kDiskBytes - 100 : below(1 << 20);
      }
      if (below(4) == 0) sent.flags = kFua;
      if (below(30) == 0) sent.flags = 1 << 9;
      if (sent.command == 1) sent.payload = data(sent.length);
      parser_.sent(sent);
      append(input_, test::encode(sent));
      sent_.push_back(std::move(sent));
      const RequestHeader header{.flags = sent_.back().flags,
                                 .command = Command{sent_.back().command},
                                 .offset = sent_.back().offset,
                                 .length = sent_.back().length};
      const ErrorCode error = judge(header, test::disk(), structured_);
      if (error == ErrorCode::kNone) good_.push_back(sent_.back().cookie);
      if (error != ErrorCode::kNone) {
        expected_[sent_.back().cookie] = {.error = std::to_underlying(error)};
      }
    }
  }
  bool read_some(BytesView& input) {
    if (input.empty()) return false;
    const std::size_t before = input.size();
    constexpr std::size_t kCuts[] = {1, 3, 29, 1000, 65'536, 1 << 20};
    BytesView part = input.first(std::min(input.size(), 1 + below(kCuts[below(6)])));
    const std::size_t offered = part.size();
    test::feed_some(connection_, part);
    input = input.subspan(offered - part.size());
    return input.size() < before;
  }
  void expect_next(const Request& request) {
    const auto sent = std::ranges::find(sent_, good_.at(taken_.size()), &Sent::cookie);
    taken_.push_back(sent->cookie);
    EXPECT_EQ(request.id, RequestId{taken_.size()});
    EXPECT_EQ(std::to_underlying(request.command), sent->command);
    EXPECT_EQ(request.flags, sent->flags);
    EXPECT_EQ(request.offset, sent->offset);
    EXPECT_EQ(request.length, sent->length);
    EXPECT_TRUE(std::ranges::equal(request.payload, sent->payload));
    waiting_.emplace_back(request.id, *sent);
    EXPECT_LE(waiting_.size(), kMaxOutstanding);
  }
  void answer_one() {
    const std::size_t which = below(waiting_.size());
    const auto [id, sent] = std::move(waiting_[which]);
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(which));
    test::Reply& expected = expected_[sent.cookie];
    if (below(5) == 0) {
      expected.error = 5;
      return connection_.reply(id, ErrorCode::kIo);
    }
    if (sent.command != 0) return connection_.reply(id);
    expected.data = data(sent.length);
    connection_.reply_read(id, expected.data);
  }
  void write_some() {
    const BytesView out = connection_.peek();
    const std::size_t count = below(3) == 0 ? out.size() : below(out.size() + 1);
    parser_.feed(out.first(count));
    connection_.advance(count);
  }

  std::mt19937 random_;
  bool structured_;
  test::ReplyParser parser_;
  Connection connection_{{test::disk()}};
  std::vector<Sent> sent_;
  Bytes input_;
  std::vector<std::uint64_t> good_, taken_;  // cookies
  std::vector<std::pair<RequestId, Sent>> waiting_;
  std::map<std::uint64_t, test::Reply> expected_;
};

TEST(NbdProperty, CutAnywhereAndAnsweredInAnyOrder) {
  for (unsigned seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    RandomClient(seed, seed % 2 == 0).run();
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace godwit::nbd
