#include "http/sse.hh"

#include <gtest/gtest.h>

#include <vector>

namespace godwit::http {
namespace {

std::vector<Event> read_in_pieces(std::string_view text, std::size_t piece) {
  EventParser parser;
  std::vector<Event> events;
  while (!text.empty()) {
    const auto part = text.substr(0, piece);
    parser.feed(as_bytes(part), [&](const Event& event) { return events.push_back(event), true; });
    text.remove_prefix(part.size());
  }
  EXPECT_TRUE(parser.ok());
  return events;
}

TEST(Sse, WhatIsWrittenIsReadHoweverItIsCut) {
  const std::string text = write_event("progress", R"({"round":3})") + std::string(kHeartbeat) +
                           write_event("done", "two\nlines", "a-7");
  for (std::size_t piece = 1; piece <= text.size(); ++piece) {
    const auto events = read_in_pieces(text, piece);
    ASSERT_EQ(events.size(), 2u) << "pieces of " << piece;
    EXPECT_EQ(events[0].name, "progress");
    EXPECT_EQ(events[0].data, R"({"round":3})");
    EXPECT_EQ(events[1].name, "done");
    EXPECT_EQ(events[1].data, "two\nlines");
    EXPECT_EQ(events[0].id, "");
    EXPECT_EQ(events[1].id, "a-7");
  }
}

TEST(Sse, CarriageReturnsUnknownFieldsAndMissingNamesAreUnderstood) {
  const auto events = read_in_pieces("id: 7\r\nretry: 10\r\ndata:x\r\n\r\nevent: empty\n\n", 100);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].name, "message");
  EXPECT_EQ(events[0].data, "x");
}

TEST(Sse, TheSinkCanStopInTheMiddle) {
  EventParser parser;
  int seen = 0;
  const std::string text = write_event("a", "1") + write_event("b", "2");
  parser.feed(as_bytes(text), [&](const Event&) { return ++seen, false; });
  EXPECT_EQ(seen, 1);
  EXPECT_TRUE(parser.stopped());
}

TEST(Sse, AnEndlessEventIsRefused) {
  EventParser parser;
  const std::string chunk(64 * 1024, 'x');
  std::size_t fed = 0;
  while (parser.ok() && fed < 2 * EventParser::kMaxEventBytes) {
    parser.feed(as_bytes(chunk), [](const Event&) { return true; });
    fed += chunk.size();
  }
  EXPECT_FALSE(parser.ok());
  EXPECT_LE(fed, EventParser::kMaxEventBytes + chunk.size());
}

}  // namespace
}  // namespace godwit::http
