#include "agent/events.hh"

#include <spdlog/spdlog.h>

#include <array>
#include <charconv>

#include "base/bytes.hh"
#include "os/random.hh"

namespace godwit::agent {
namespace {

bool is_of_a_tenant(std::string_view name) {
  return name == "port" || name == "wire" || name == "vm" || name == "migration" ||
         name == "image" || name == "replica" || name == "rule";
}

// Whether a listener of one tenant may know it.
bool is_for(const std::string& tenant, std::string_view name, const nlohmann::json& data) {
  return !is_of_a_tenant(name) || data.value("tenant", "") == tenant || data.value("public", false);
}

}  // namespace

Events::Events() {
  std::array<std::byte, 4> raw;
  os::fill_random(raw);
  run_ = to_hex(raw);
}

std::string Events::id_of(std::uint64_t number) const { return fmt::format("{}-{}", run_, number); }

// False when the listener is gone.
bool Events::tell(const Listener& listener, std::uint64_t number) const {
  const Kept& event = kept_[kept_.size() - (next_ - number)];
  if (!listener.tenant.empty() && !is_for(listener.tenant, event.name, event.data)) {
    return listener.stream->open();
  }
  return listener.stream->push(event.name, event.data, id_of(number));
}

void Events::publish(std::string_view name, const nlohmann::json& data) {
  spdlog::info("{} {}", name, data.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  kept_.push_back({std::string(name), data});
  if (kept_.size() > kKept) kept_.pop_front();
  const std::uint64_t number = next_++;
  std::erase_if(listeners_, [&](const Listener& listener) { return !tell(listener, number); });
  for (const auto& observer : observers_) observer(name, data);
}

void Events::subscribe(std::shared_ptr<http::EventStream> stream, std::string tenant,
                       std::string_view after) {
  const Listener listener{std::move(stream), std::move(tenant)};
  if (!after.empty()) {
    const std::string prefix = run_ + "-";
    std::uint64_t last = 0;
    const bool known =
        after.starts_with(prefix) &&
        std::from_chars(after.data() + prefix.size(), after.data() + after.size(), last).ec ==
            std::errc{};
    if (!known || last >= next_ || last + 1 < next_ - kept_.size()) {
      listener.stream->push("missed",
                            {{"reason", known ? "events since then are not kept any more"
                                              : "the agent was started again"}},
                            id_of(next_ - 1));
    } else {
      for (std::uint64_t number = last + 1; number < next_; ++number) tell(listener, number);
    }
  }
  listeners_.push_back(listener);
}

void Events::publish_progress(const MigrationId& id, const nlohmann::json& progress) {
  auto [at, end] = followers_.equal_range(id);
  while (at != end) {
    const bool heard = at->second->push("progress", progress);
    at = heard ? std::next(at) : followers_.erase(at);
  }
}

void Events::publish_done(const MigrationId& id, const nlohmann::json& migration) {
  close_followers(id, migration);
  for (const auto& observer : observers_) observer(kMigrationOver, migration);
}

void Events::close_followers(const MigrationId& id, const nlohmann::json& migration) {
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
