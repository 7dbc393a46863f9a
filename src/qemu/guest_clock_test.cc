#include "qemu/guest_clock.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "os/memory_stream.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// What may pass between two steps here: the time is the real one.
constexpr double kScheduled = 20;  // ms

// A guest whose clock is what the test says, driven by a MemoryLink.
struct GuestClockTest : ::testing::Test {
  void begin(Nanoseconds behind) {
    guest_->start({.readable = [this] { serve(); }, .writable = {}, .closed = {}});
    clock_ = std::make_unique<GuestClock>(loop_, link_.take_a(), behind,
                                          [this](auto result) { result_ = std::move(result); });
    link_.settle();
  }
  Nanoseconds guest_time() { return loop_.now().time_since_epoch() + offset_; }

  void serve() {
    std::array<std::byte, 4096> chunk;
    while (const std::size_t count = guest_->read(chunk))
      input_ += as_text(BytesView(chunk).first(count));
    for (std::size_t end = 0; (end = input_.find('\n')) != std::string::npos;) {
      std::string line = input_.substr(0, end);
      input_.erase(0, end + 1);
      if (line.front() == '\xff') line.erase(0, 1);
      say(answer(json::parse(line)));
    }
  }
  std::string answer(const json& request) {
    const std::string command = request["execute"];
    if (command == "guest-sync-delimited") {
      return noise_ + "\xff" + json({{"return", request["arguments"]["id"]}}).dump() + "\n";
    }
    if (command == "guest-get-time") return json({{"return", guest_time().count()}}).dump() + "\n";
    offset_ = Nanoseconds(request["arguments"]["time"].get<std::int64_t>()) -
              loop_.now().time_since_epoch() - late_;
    ++settings_;
    return R"({"error": {"class": "GenericError", "desc": "hwclock failed"}})"
           "\n";
  }
  void say(const std::string& text) { guest_->write(as_bytes(text)); }

  os::Loop loop_;
  os::MemoryLink link_;
  std::unique_ptr<os::ByteStream> guest_ = link_.take_b();
  std::string input_, noise_;
  Nanoseconds offset_ = seconds(1'700'000'000);
  Nanoseconds late_{};  // it comes to setting its clock
  int settings_ = 0;
  std::unique_ptr<GuestClock> clock_;
  std::optional<Result<GuestClock::Outcome>> result_;
};

TEST_F(GuestClockTest, StepsTheGuestsOwnTimeByThePause) {
  noise_ = "{\"return\": 7}\nleft over";
  begin(milliseconds(250));
  ASSERT_TRUE(result_ && *result_) << result_->error().text;
  const Nanoseconds stepped = offset_ - seconds(1'700'000'000);
  EXPECT_NEAR(to_ms(stepped), 250.0, kScheduled);
  EXPECT_NEAR(to_ms((*result_)->left), 0.0, kScheduled);
}

TEST_F(GuestClockTest, AGuestThatIsLateIsTakenIntoAccount) {
  late_ = milliseconds(40);
  begin(milliseconds(250));
  ASSERT_TRUE(result_ && *result_) << result_->error().text;
  EXPECT_GE(settings_, 2);
  EXPECT_NEAR(to_ms((*result_)->left), 0.0, kScheduled);
}

TEST_F(GuestClockTest, AnswersThatAreNoneAreAFailure) {
  for (const std::string& rubbish :
       {std::string("[1]\n"), std::string("{\"return\": \"late\"}\n"), std::string(1 << 20, 'x'),
        std::string("{\"return\": -1}\n")}) {
    os::MemoryLink link(4 << 20);
    auto guest = link.take_b();
    guest->start({});
    std::optional<Result<GuestClock::Outcome>> result;
    GuestClock clock(loop_, link.take_a(), milliseconds(1),
                     [&](auto outcome) { result = std::move(outcome); });
    guest->write(as_bytes("\xff{\"return\": 4747}\n"));
    link.settle();
    guest->write(as_bytes(rubbish));
    link.settle();
    ASSERT_TRUE(result.has_value()) << rubbish.substr(0, 40);
    EXPECT_FALSE(*result);
  }
}

TEST_F(GuestClockTest, AChannelThatClosesIsSaid) {
  begin(milliseconds(1));
  result_.reset();
  os::MemoryLink link;
  GuestClock clock(loop_, link.take_a(), milliseconds(1),
                   [&](auto outcome) { result_ = std::move(outcome); });
  link.cut();
  link.settle();
  ASSERT_TRUE(result_ && !*result_);
  EXPECT_THAT(result_->error().text, HasSubstr("closed"));
}

}  // namespace
}  // namespace godwit::qemu
