#include "wire/fleets.hh"

#include "base/host_name.hh"

namespace godwit::wire {

std::optional<Notice> as_heard(const std::string& host, const PortId& theirs, Notice notice) {
  if (!is_foreign(host)) return notice;
  const auto qualify = [&](const PortEpoch& port, std::string& name) {
    if (port.port != theirs || is_foreign(name)) return false;
    if (!name.empty()) name = host_of_fleet(name, fleet_of(host));
    return true;
  };
  if (auto* move = std::get_if<Move>(&notice)) {
    if (!qualify(move->port, move->host)) return std::nullopt;
  } else if (auto* announce = std::get_if<Announce>(&notice)) {
    if (!qualify(announce->port, announce->host)) return std::nullopt;
  } else if (std::holds_alternative<Handover>(notice)) {
    return std::nullopt;  // of hosts between which a port moves
  }
  return notice;
}

Notice as_told(const std::string& host, Notice notice) {
  if (!is_foreign(host)) return notice;
  if (auto* move = std::get_if<Move>(&notice)) move->host = name_in_fleet(move->host);
  if (auto* announce = std::get_if<Announce>(&notice)) {
    announce->host = name_in_fleet(announce->host);
  }
  return notice;
}

}  // namespace godwit::wire
