#pragma once
// What a request says of how a vm is to be moved, checked and put into its record.
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "agent/source_record.hh"

namespace godwit::agent {

// POST /v1/migrations: all but the vm and the destination.
Result<> read_options(const nlohmann::json& request, SourceRecord& record);
// When to begin, in seconds since 1970; 0, which is past, when it does not say.
Result<std::int64_t> start_time(const nlohmann::json& request);

// What can be changed while it moves; nothing where it stays.
struct MoveChanges {
  std::optional<Nanoseconds> max_downtime;
  std::optional<BitRate> bandwidth;
  std::optional<migrate::OnDiverge> on_diverge;
};
Result<MoveChanges> read_changes(const nlohmann::json& request);

}  // namespace godwit::agent
