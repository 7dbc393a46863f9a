#pragma once
// Who did what when: one line of JSON for each request that changes something (or tried to), and
// for each end of a migration. An append-only file that root can read, `audit.log` in the state
// directory; full files are renamed to audit.log.1 and so on, the oldest is deleted. Lines are
// written at once but not synced: a power cut may take the last seconds, nothing else can.
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "http/caller.hh"
#include "os/fd.hh"

namespace godwit::agent {

struct AuditLimits {
  std::size_t file_bytes = 8 << 20;  // some 25,000 lines
  int files = 8;                     // beside the current one
};

class Audit final {
 public:
  // Lines of one answer to `audit ls`; the newest are kept.
  static constexpr std::size_t kMaxListed = 5000;

  // Throws SetupError when the file cannot be opened.
  explicit Audit(std::filesystem::path file, AuditLimits limits = {});

  // Adds "time" (seconds since 1970). The entry has "did" and what fits of: who, role, from,
  // certificate, tenant, on, status, error, outcome. Secrets are for the caller to keep out.
  void record(nlohmann::json entry);
  // Entries from `since` on, oldest first, of one tenant (empty: of all).
  std::vector<nlohmann::json> list(std::int64_t since, const std::string& tenant) const;

 private:
  void open();
  void rotate();

  std::filesystem::path file_;
  AuditLimits limits_;
  os::Fd fd_;
  std::size_t size_ = 0;
};

// The end of a migration, or its arrival here, as Events::observe() tells of it.
void audit_migration(Audit& audit, std::string_view event, const nlohmann::json& data);

// {"who", "role", "from", "certificate"?, "via"?} of an entry.
nlohmann::json to_json(const http::Caller& caller);

}  // namespace godwit::agent
