#pragma once
// For tests: a process that is a vm's QEMU as far as it lives, and what it says over QMP.
#include <array>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "os/child.hh"
#include "os/socket.hh"

namespace godwit::agent {

class PlayedQemu final {
 public:
  // What it says to a command, {"return": ...} or {"error": ...}; nothing: not now.
  using Answer =
      std::function<std::optional<nlohmann::json>(const std::string&, const nlohmann::json&)>;

  PlayedQemu(os::Loop& loop, const std::string& socket, Answer answer)
      : loop_(loop),
        answer_(std::move(answer)),
        listener_(os::Listener::unix_(
            loop, socket, 0600, [this](auto stream, const auto&) { serve(std::move(stream)); })) {}

  const os::Child& process() const { return process_; }
  // Its connection breaks; the next is served.
  void hang_up() {
    waiting_.clear();
    loop_.post([gone = std::shared_ptr<os::ByteStream>(std::move(stream_))] {});
  }
  // Says what it did not.
  void wake() {
    for (const auto& request : std::exchange(waiting_, {})) take(request);
  }
  std::vector<std::string> commands{};  // that came

 private:
  void serve(std::unique_ptr<os::ByteStream> stream) {
    stream_ = std::move(stream);
    input_.clear();
    stream_->start({.readable = [this] { read(); }, .writable = [] {}, .closed = [](auto) {}});
    say({{"QMP", nlohmann::json::object()}});
  }
  void read() {
    std::array<std::byte, 4096> chunk;
    while (const std::size_t count = stream_->read(chunk)) {
      input_ += as_text(BytesView(chunk).first(count));
    }
    for (std::size_t end = 0; stream_ && (end = input_.find('\n')) != std::string::npos;) {
      const auto request = nlohmann::json::parse(input_.substr(0, end));
      input_.erase(0, end + 1);
      commands.push_back(request.at("execute"));
      take(request);
    }
  }
  void take(const nlohmann::json& request) {
    auto answer =
        request.at("execute") == "qmp_capabilities"
            ? nlohmann::json{{"return", nlohmann::json::object()}}
            : answer_(request.at("execute"), request.value("arguments", nlohmann::json()));
    if (!stream_) return;
    if (!answer) return waiting_.push_back(request);
    (*answer)["id"] = request.at("id");
    say(*answer);
  }
  void say(const nlohmann::json& object) { stream_->write(as_bytes(object.dump() + "\n")); }

  os::Loop& loop_;
  Answer answer_;
  std::unique_ptr<os::ByteStream> stream_;
  std::string input_;
  std::vector<nlohmann::json> waiting_;
  std::unique_ptr<os::Listener> listener_;
  os::Child process_ = os::Child::spawn({.argv = {"sleep", "1000"}, .dies_with_us = true});
};

}  // namespace godwit::agent
