#pragma once
// The agent's news: what changed, told to everyone who listens on the API and to the log.
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "base/id.hh"
#include "http/responder.hh"

namespace godwit::agent {

class Events final {
 public:
  // Control thread only. `name` is "port", "wire", "vm", "migration", "session" or "host".
  void publish(std::string_view name, const nlohmann::json& data);
  void subscribe(std::shared_ptr<http::EventStream> stream);

  // One migration's progress, told only to those who follow it; `done` after its last change.
  void publish_progress(const MigrationId& id, const nlohmann::json& progress);
  void publish_done(const MigrationId& id, const nlohmann::json& migration);
  void follow(const MigrationId& id, std::shared_ptr<http::EventStream> stream);

 private:
  std::vector<std::shared_ptr<http::EventStream>> streams_;
  std::multimap<MigrationId, std::shared_ptr<http::EventStream>> followers_;
};

}  // namespace godwit::agent
