#include "agent/audit.hh"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <deque>
#include <fstream>

#include "agent/events.hh"
#include "base/result.hh"
#include "os/wall_clock.hh"

namespace godwit::agent {
namespace {

std::filesystem::path numbered(const std::filesystem::path& file, int number) {
  return number == 0 ? file : std::filesystem::path(fmt::format("{}.{}", file.string(), number));
}

}  // namespace

nlohmann::json to_json(const http::Caller& caller) {
  nlohmann::json json = {
      {"who", caller.name}, {"role", http::to_text(caller.role)}, {"from", caller.from}};
  if (!caller.serial.empty()) json["certificate"] = caller.serial;
  if (!caller.via.empty()) json["via"] = caller.via;
  return json;
}

void audit_migration(Audit& audit, std::string_view event, const nlohmann::json& data) {
  const bool over = event == Events::kMigrationOver;
  const bool arrived = event == "migration" && data.value("target_state", "") == "owner";
  if (!over && !arrived) return;
  nlohmann::json entry = {{"who", data.value("by", "")}, {"tenant", data.value("tenant", "")}};
  const bool aborted = over && data.value("state", "") == "aborted";
  entry["did"] = arrived ? "migration arrived" : aborted ? "migration aborted" : "migration done";
  for (const char* key : {"id", "vm", "from", "to"}) {
    if (data.contains(key)) entry["on"][key] = data[key];
  }
  if (data.value("reason", "") != "") entry["error"] = data["reason"];
  const auto report = data.find("report");
  if (report != data.end() && report->contains("pause_ms")) {
    entry["pause_ms"] = (*report)["pause_ms"];
  }
  audit.record(std::move(entry));
}

Audit::Audit(std::filesystem::path file, AuditLimits limits)
    : file_(std::move(file)), limits_(limits) {
  open();
  if (!fd_) fail_setup("{}", errno_text("open " + file_.string()));
}

void Audit::open() {
  fd_.reset(::open(file_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
  struct stat status{};
  size_ = fd_ && ::fstat(fd_.number(), &status) == 0 ? static_cast<std::size_t>(status.st_size) : 0;
}

void Audit::rotate() {
  for (int number = limits_.files; number > 0; --number) {
    std::error_code absent;  // not that many yet
    std::filesystem::rename(numbered(file_, number - 1), numbered(file_, number), absent);
  }
  open();
}

void Audit::record(nlohmann::json entry) {
  entry["time"] = os::wall_clock_seconds();
  const std::string line =
      entry.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  if (size_ > 0 && size_ + line.size() > limits_.file_bytes) rotate();
  const auto wrote = ::write(fd_.number(), line.data(), line.size());
  if (wrote != static_cast<ssize_t>(line.size())) {
    // What it tells must not stop what it tells of: a full disk would stop aborts and rescues too.
    spdlog::error("{}; not in the audit log: {}", errno_text("write " + file_.string()), line);
  }
  if (wrote > 0) size_ += static_cast<std::size_t>(wrote);
}

std::vector<nlohmann::json> Audit::list(std::int64_t since, const std::string& tenant) const {
  std::deque<nlohmann::json> found;
  for (int number = limits_.files; number >= 0; --number) {
    std::ifstream lines(numbered(file_, number));
    for (std::string line; std::getline(lines, line);) {
      auto entry = nlohmann::json::parse(line, nullptr, false);
      if (!entry.is_object() || entry.value("time", std::int64_t{0}) < since) continue;
      if (!tenant.empty() && entry.value("tenant", "") != tenant) continue;
      found.push_back(std::move(entry));
      if (found.size() > kMaxListed) found.pop_front();
    }
  }
  return {std::make_move_iterator(found.begin()), std::make_move_iterator(found.end())};
}

}  // namespace godwit::agent
