// Several vms that share pages: in one thread where the order is known, in threads where it is not.
#include "agent/group_pages.hh"

#include <gtest/gtest.h>

#include <thread>

#include "codec/decoder.hh"
#include "codec/encoder.hh"
#include "codec/made_up_guest.hh"

namespace godwit::agent {
namespace {

using codec::Decoder;
using codec::Encoder;
using codec::Encoding;
using codec::MadeUpGuest;
using codec::MemberPage;

constexpr codec::Settings kSettings{.cache = 16 * 4096, .level = 1, .window_bits = 20};

Bytes page(int fill) { return Bytes(4096, static_cast<std::byte>(fill)); }
SharedIndex::Name name(int of) {
  SharedIndex::Name name{};
  name[0] = static_cast<std::byte>(of);
  return name;
}

TEST(SharedIndex, TheFirstOffersTheOthersRefer) {
  SharedIndex index(2);
  EXPECT_FALSE(index.find(name(1), 0, false).offered);
  EXPECT_TRUE(index.find(name(1), 0, true).offered);
  EXPECT_EQ(index.find(name(1), 1, true).page, (MemberPage{.member = 0, .number = 0}));
  EXPECT_TRUE(index.find(name(2), 1, true).offered);
  EXPECT_EQ(index.find(name(2), 0, false).page, (MemberPage{.member = 1, .number = 0}));
  const auto full = index.find(name(3), 0, true);
  EXPECT_FALSE(full.offered || full.page);
}

TEST(SharedPages, WhatIsThereIsReadWhatIsNotIsWaitedFor) {
  const auto pages = std::make_shared<SharedPages>(100);
  SharedReader first(pages, 0), second(pages, 1);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(first.add(page(i)));
  for (const int i : {39, 0, 17}) {
    EXPECT_EQ(to_bytes(second.page({.member = 0, .number = std::uint64_t(i)})), page(i));
  }
  std::jthread later([&] { ASSERT_TRUE(first.add(page(40))); });
  EXPECT_EQ(to_bytes(second.page({.member = 0, .number = 40})), page(40));
}

TEST(SharedPages, NoMoreThanWasAgreed) {
  const auto pages = std::make_shared<SharedPages>(2);
  SharedReader first(pages, 0), second(pages, 1);
  EXPECT_TRUE(first.add(page(1)) && second.add(page(2)));
  EXPECT_FALSE(first.add(page(3)));
}

TEST(SharedPages, NobodyWaitsForOneThatLeft) {
  const auto pages = std::make_shared<SharedPages>(100);
  SharedReader second(pages, 1);
  {
    SharedReader first(pages, 0);
    ASSERT_TRUE(first.add(page(1)));
  }
  EXPECT_EQ(to_bytes(second.page({.member = 0, .number = 0})), page(1));
  EXPECT_TRUE(second.page({.member = 0, .number = 1}).empty());
}

TEST(SharedPages, WhoLeavesWaitsNoMore) {
  SharedReader reader(std::make_shared<SharedPages>(100), 1);
  std::jthread later([&] { reader.leave(); });
  EXPECT_TRUE(reader.page({.member = 0, .number = 0}).empty());
}

// Guests with equal pages, encoded side by side as their streams come. Decoders that get their
// batches in whatever order, each in a thread, wait for one another and come to an end.
TEST(SharedPages, ClonesAreSentOnceAndComeOutAsTheyWere) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    std::mt19937_64 random(seed);
    const auto index = std::make_shared<SharedIndex>(1000);
    const auto pages = std::make_shared<SharedPages>(1000);
    constexpr std::uint32_t kMembers = 4;
    std::vector<Bytes> raw;
    std::vector<std::unique_ptr<Encoder>> encoders;
    std::vector<std::size_t> pushed(kMembers);
    for (std::uint32_t member = 0; member < kMembers; ++member) {
      // They differ in what they change, and two of them do not.
      MadeUpGuest guest(seed, 300);
      raw.push_back(guest.stream(1 + int(member / 2)));
      encoders.push_back(std::make_unique<Encoder>(
          kSettings, codec::GroupOffers{.index = index, .member = member}));
    }
    for (bool more = true; more;) {
      more = false;
      for (std::uint32_t member = 0; member < kMembers; ++member) {
        const std::size_t count =
            std::min<std::size_t>(random() % 60'000, raw[member].size() - pushed[member]);
        encoders[member]->push(BytesView(raw[member]).subspan(pushed[member], count));
        pushed[member] += count;
        more = more || pushed[member] < raw[member].size();
      }
    }
    std::vector<Bytes> coded(kMembers), out(kMembers);
    std::uint64_t shared = 0, sent = 0;
    for (std::uint32_t member = 0; member < kMembers; ++member) {
      encoders[member]->finish();
      coded[member] = encoders[member]->take().bytes;
      const auto stats = encoders[member]->stats().by_encoding;
      shared += stats[std::to_underlying(Encoding::kGroup)].pages;
      sent += stats[std::to_underlying(Encoding::kKept)].pages +
              stats[std::to_underlying(Encoding::kLiteral)].pages;
    }
    EXPECT_GT(shared, 2 * sent);
    std::vector<std::unique_ptr<SharedReader>> readers;
    {
      std::vector<std::jthread> threads;
      for (std::uint32_t member = 0; member < kMembers; ++member) {
        threads.emplace_back([&, member] {
          Decoder decoder(kSettings, {}, std::make_shared<SharedReader>(pages, member));
          decoder.push(coded[member]);
          Result<bool> more = true;
          while (more && *more) {
            more = decoder.step();
            append(out[member], decoder.take());
          }
          EXPECT_TRUE(decoder.verified()) << (more ? "" : more.error().text);
        });
      }
    }
    EXPECT_EQ(out, raw);
    // What never came is missed.
    const auto none = std::make_shared<SharedPages>(1000);
    for (const std::uint32_t member : {0U, 2U, 3U}) SharedReader(none, member).leave();
    Decoder alone(kSettings, {}, std::make_shared<SharedReader>(none, 1));
    alone.push(coded[1]);
    Result<bool> more = true;
    while (more && *more) more = alone.step();
    ASSERT_FALSE(more);
    EXPECT_NE(more.error().text.find("another vm of the group"), std::string::npos);
  }
}

TEST(SharedPages, AnEncoderThatLeftRefersToNobody) {
  const auto index = std::make_shared<SharedIndex>(1000);
  MadeUpGuest guest(1, 100);
  const Bytes raw = guest.stream(1);
  Encoder first(kSettings, {.index = index, .member = 0});
  first.push(raw);
  Encoder second(kSettings, {.index = index, .member = 1});
  second.leave_group();
  second.push(raw);
  second.finish();
  EXPECT_EQ(second.stats().by_encoding[std::to_underlying(Encoding::kGroup)].pages, 0U);
}

}  // namespace
}  // namespace godwit::agent
