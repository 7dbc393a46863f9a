#include "agent/events.hh"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

namespace godwit::agent {

void Events::publish(std::string_view name, const nlohmann::json& data) {
  spdlog::info("{} {}", name, data.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  std::erase_if(streams_, [&](const auto& stream) { return !stream->push(name, data); });
}

void Events::subscribe(std::shared_ptr<http::EventStream> stream) {
  streams_.push_back(std::move(stream));
}

void Events::publish_progress(const MigrationId& id, const nlohmann::json& progress) {
  auto [at, end] = followers_.equal_range(id);
  while (at != end) {
    const bool heard = at->second->push("progress", progress);
    at = heard ? std::next(at) : followers_.erase(at);
  }
}

void Events::publish_done(const MigrationId& id, const nlohmann::json& migration) {
  const auto [begin, end] = followers_.equal_range(id);
  for (auto at = begin; at != end; ++at) {
    at->second->push("done", migration);
    at->second->close();
  }
  followers_.erase(begin, end);
}

void Events::follow(const MigrationId& id, std::shared_ptr<http::EventStream> stream) {
  followers_.emplace(id, std::move(stream));
}

}  // namespace godwit::agent
