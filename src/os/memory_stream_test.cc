#include "os/memory_stream.hh"

#include <gtest/gtest.h>

namespace godwit::os {
namespace {

struct Log {
  explicit Log(std::unique_ptr<ByteStream> a_stream) : stream(std::move(a_stream)) {
    stream->start({.readable =
                       [this] {
                         std::array<std::byte, 3> buffer;
                         while (const auto got = stream->read(buffer)) {
                           text += as_text(BytesView(buffer).first(got));
                         }
                       },
                   .writable = [this] { ++writable; },
                   .closed = [this](std::string why) { closed.push_back(std::move(why)); }});
  }
  std::unique_ptr<ByteStream> stream;
  std::string text;
  int writable = 0;
  std::vector<std::string> closed;
};

TEST(MemoryStream, NothingMovesBeforeAStep) {
  MemoryLink link;
  Log a(link.take_a());
  Log b(link.take_b());
  EXPECT_FALSE(link.step());
  EXPECT_EQ(a.stream->write(as_bytes("hello")), 5U);
  EXPECT_EQ(b.text, "");
  link.settle();
  EXPECT_EQ(b.text, "hello");
  a.stream->finish();
  link.settle();
  EXPECT_EQ(b.closed, std::vector<std::string>{""});
  b.stream->write(as_bytes("still here"));
  link.settle();
  EXPECT_EQ(a.text, "still here");
}

TEST(MemoryStream, ThePipeIsBoundedAndSaysWhenThereIsRoom) {
  MemoryLink link(4);
  Log a(link.take_a());
  auto b = link.take_b();
  EXPECT_EQ(a.stream->write(as_bytes("123456")), 4U);
  link.settle();
  EXPECT_EQ(a.writable, 0);
  Log reader(std::move(b));
  link.settle();
  EXPECT_EQ(a.writable, 1);
  EXPECT_EQ(reader.text, "1234");
}

TEST(MemoryStream, ACutLosesWhatIsInThePipeAndTellsBothOnce) {
  MemoryLink link;
  Log a(link.take_a());
  Log b(link.take_b());
  a.stream->write(as_bytes("lost"));
  link.cut("gone");
  link.settle();
  EXPECT_EQ(a.closed, std::vector<std::string>{"gone"});
  EXPECT_EQ(b.closed, std::vector<std::string>{"gone"});
  EXPECT_EQ(b.text, "");
  EXPECT_EQ(a.stream->write(as_bytes("swallowed")), 9U);
}

TEST(MemoryStream, AStallHoldsBytesWithoutLosingThem) {
  MemoryLink link;
  Log a(link.take_a());
  Log b(link.take_b());
  link.stall(true);
  a.stream->write(as_bytes("later"));
  link.settle();
  EXPECT_EQ(b.text, "");
  EXPECT_EQ(link.in_flight_from_a(), 5U);
  link.stall(false);
  link.settle();
  EXPECT_EQ(b.text, "later");
}

TEST(MemoryStream, DestroyingOneEndEndsTheOther) {
  MemoryLink link;
  auto a = std::make_unique<Log>(link.take_a());
  Log b(link.take_b());
  a->stream->write(as_bytes("bye"));
  a = nullptr;
  link.settle();
  EXPECT_EQ(b.text, "bye");
  EXPECT_EQ(b.closed, std::vector<std::string>{""});
}

TEST(MemoryStream, ACallbackMayDestroyItsStream) {
  MemoryLink link;
  auto a = link.take_a();
  Log b(link.take_b());
  a->start({.readable = [&] { a = nullptr; }, .writable = {}, .closed = {}});
  b.stream->write(as_bytes("x"));
  link.settle();
  EXPECT_EQ(a, nullptr);
  EXPECT_EQ(b.closed.size(), 1U);
}

}  // namespace
}  // namespace godwit::os
