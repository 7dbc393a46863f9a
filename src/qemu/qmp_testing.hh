#pragma once
// For tests of what speaks QMP: the far end, which plays QEMU by hand.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "os/memory_stream.hh"

namespace godwit::qemu {

inline constexpr std::string_view kGreeting =
    R"({"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}})"
    "\r\n";

struct FakeQemu {
  explicit FakeQemu(os::MemoryLink& link_in) : link(link_in), stream(link_in.take_b()) {
    stream->start({.readable = [this] { read(); }, .writable = {}, .closed = {}});
  }
  void read() {
    std::array<std::byte, 4096> chunk;
    while (const std::size_t count = stream->read(chunk)) {
      input += as_text(BytesView(chunk).first(count));
    }
    for (std::size_t end = 0; (end = input.find('\n')) != std::string::npos;) {
      commands.push_back(nlohmann::json::parse(input.substr(0, end)));
      input.erase(0, end + 1);
    }
  }
  void say(std::string_view text) {
    while (!text.empty()) {
      const std::size_t taken = stream->write(as_bytes(text));
      if (taken == 0) return;  // nobody reads any more
      text.remove_prefix(taken);
      link.settle();
    }
  }
  void answer(const nlohmann::json& value) {
    ASSERT_LT(answered, commands.size());
    say(nlohmann::json({{"return", value}, {"id", commands[answered++]["id"]}}).dump() + "\n");
  }
  os::MemoryLink& link;
  std::unique_ptr<os::ByteStream> stream;
  std::string input;
  std::vector<nlohmann::json> commands;
  std::size_t answered = 0;
};

}  // namespace godwit::qemu
