#pragma once
// For tests: a guest with an agent, at the far end of a MemoryLink.
#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "os/memory_stream.hh"

namespace godwit::qemu {

class FakeGuest final {
 public:
  // `answer`: what it says to a request, without the end of the line; nothing if it is empty. It
  // synchronizes by itself.
  explicit FakeGuest(std::function<std::string(const nlohmann::json&)> answer,
                     std::size_t capacity = os::MemoryLink::kDefaultCapacity)
      : link(capacity), answer_(std::move(answer)), stream_(link.take_b()) {
    stream_->start({.readable = [this] { serve(); }, .writable = {}, .closed = {}});
  }
  void say(std::string_view text) { stream_->write(as_bytes(text)); }

  os::MemoryLink link;
  std::string noise;  // said before it is synchronized
  std::vector<nlohmann::json> requests;

 private:
  void serve() {
    std::array<std::byte, 4096> chunk;
    while (const std::size_t count = stream_->read(chunk)) {
      input_ += as_text(BytesView(chunk).first(count));
    }
    for (std::size_t end = 0; (end = input_.find('\n')) != std::string::npos;) {
      const std::string line = input_.substr(0, end);
      input_.erase(0, end + 1);
      take(nlohmann::json::parse(line.substr(line.front() == '\xff' ? 1 : 0)));
    }
  }
  void take(const nlohmann::json& request) {
    if (request.at("execute") == "guest-sync-delimited") {
      const nlohmann::json reply = {{"return", request.at("arguments").at("id")}};
      return say(noise + "\xff" + reply.dump() + "\n");
    }
    requests.push_back(request);
    if (const std::string reply = answer_(request); !reply.empty()) say(reply + "\n");
  }

  std::function<std::string(const nlohmann::json&)> answer_;
  std::unique_ptr<os::ByteStream> stream_;
  std::string input_;
};

}  // namespace godwit::qemu
