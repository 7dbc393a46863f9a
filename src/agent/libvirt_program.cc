#include "agent/libvirt_program.hh"

#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "os/socket.hh"

namespace godwit::agent {
namespace {

const std::filesystem::path kInstalledAt = "/usr/libexec/godwit";
constexpr std::size_t kLongestLine = 1 << 20;

}  // namespace

std::string libvirt_program() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  for (const std::filesystem::path& directory : {self.parent_path(), kInstalledAt}) {
    const auto path = directory / "godwit-libvirt";
    if (::access(path.c_str(), X_OK) == 0) return path.string();
  }
  return {};
}

LibvirtProgram::LibvirtProgram(os::Loop& loop, const Config& config, std::vector<std::string> words,
                               Ended ended, std::function<void(const nlohmann::json&)> progress)
    : loop_(loop), ended_(std::move(ended)), progress_(std::move(progress)) {
  const std::string program = libvirt_program();
  if (program.empty() || config.libvirt == "none") {
    const std::string why = program.empty() ? "its part godwit-libvirt is not installed"
                                            : "its agent was started with --libvirt none";
    end(fail("host {} has no libvirt for Godwit: {}", config.name, why));
    return;
  }
  std::vector<std::string> argv = {program, config.libvirt};
  argv.insert(argv.end(), words.begin(), words.end());
  auto ends = os::make_socket_pair();
  try {
    child_ = os::Child::spawn({.argv = std::move(argv),
                               .stdin_fd = ends.theirs.number(),
                               .stdout_fd = ends.theirs.number(),
                               .cwd = "/",
                               .dies_with_us = true});
  } catch (const SetupError& error) {
    end(fail("{}", error.what()));
    return;
  }
  stream_ = os::adopt_stream(loop, std::move(ends.ours), "godwit-libvirt");
  stream_->start({.readable = [this] { read(); },
                  .writable = [] {},
                  .closed =
                      [this](const std::string&) {
                        read();
                        end(fail("godwit-libvirt ended without a word"));
                      }});
}

void LibvirtProgram::go() {
  if (stream_) stream_->write(as_bytes("\n"));
}

void LibvirtProgram::abort(std::function<void()> safe) {
  safe_ = std::move(safe);
  if (child_) (void)child_.kill(SIGTERM);  // it may have ended
}

void LibvirtProgram::read() {
  Bytes buffer(64 << 10);
  const std::weak_ptr alive(alive_);
  while (const std::size_t count = stream_ ? stream_->read(buffer) : 0) {
    text_ += as_text(BytesView(buffer).first(count));
    for (auto at = text_.find('\n'); at != std::string::npos; at = text_.find('\n')) {
      const std::string line = text_.substr(0, at);
      text_.erase(0, at + 1);
      take(line);
      if (alive.expired()) return;
    }
    if (text_.size() > kLongestLine) return end(fail("godwit-libvirt says too much"));
  }
}

void LibvirtProgram::take(const std::string& line) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) return end(fail("godwit-libvirt says what is no JSON: {}", line));
  if (json.contains("progress")) {
    if (progress_ && ended_) progress_(json["progress"]);
  } else if (json.contains("safe")) {
    if (const auto safe = std::exchange(safe_, {}); safe && json["safe"] == true) safe();
  } else if (json.contains("error")) {
    end(fail("{}", json.value("error", "")));
  } else {
    end(json);
  }
}

// From the loop: who made this may not have it yet, and the stream may be calling.
void LibvirtProgram::end(Result<nlohmann::json> outcome) {
  if (!ended_) return;
  loop_.post([ended = std::exchange(ended_, {}), outcome = std::move(outcome),
              alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) ended(outcome);
  });
}

}  // namespace godwit::agent
