#pragma once
// One run of godwit-libvirt (src/libvirt/main.cc), which does one thing with this host's libvirt:
// its lines of JSON as they come, and its end. Ended with this. Control thread.
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/config.hh"
#include "os/byte_stream.hh"
#include "os/child.hh"
#include "os/loop.hh"

namespace godwit::agent {

class LibvirtProgram final {
 public:
  using Ended = std::function<void(Result<nlohmann::json>)>;

  // `words`: what to do, with which domain, and more. `ended` is called once, from the loop, with
  // what it found or why it could not; it may destroy this.
  LibvirtProgram(os::Loop& loop, const Config& config, std::vector<std::string> words, Ended ended,
                 std::function<void(const nlohmann::json&)> progress = {});
  LibvirtProgram(const LibvirtProgram&) = delete;
  LibvirtProgram& operator=(const LibvirtProgram&) = delete;

  void go();  // of "resume": now
  // Of "migrate": it ends in its own time. `safe`: no write of the domain's is in flight any
  // more; not called where it could not be made to stand.
  void abort(std::function<void()> safe);

 private:
  void read();
  void take(const std::string& line);
  void end(Result<nlohmann::json> outcome);

  os::Loop& loop_;
  Ended ended_;
  std::function<void(const nlohmann::json&)> progress_;
  std::function<void()> safe_;  // while it aborts
  std::unique_ptr<os::ByteStream> stream_;
  std::string text_;  // of a line that has not ended
  os::Child child_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// Beside the agent's own program, or installed; empty: it is not there.
std::string libvirt_program();

}  // namespace godwit::agent
