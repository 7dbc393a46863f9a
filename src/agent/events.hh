#pragma once
// The agent's news: what changed, told to everyone who listens on the API, to the log and to those
// parts of the agent that keep count. The last ones are kept, so that a listener whose connection
// broke goes on where it was.
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/id.hh"
#include "http/responder.hh"

namespace godwit::agent {

class Events final {
 public:
  // How far back a listener may have lost the stream: at a few events for each step of a move,
  // minutes of a busy host.
  static constexpr std::size_t kKept = 1024;

  Events();

  // Control thread only. `name` is "port", "wire", "vm", "image", "replica", "migration", "rule",
  // "session", "path" or "host"; the data of the first six has a "tenant", whose listeners are
  // told, unless it is "public", and those who see every tenant; of the seventh these only.
  void publish(std::string_view name, const nlohmann::json& data);
  // Tells what this tenant may know (empty: all), beginning behind the event `after` (its id;
  // empty: with the next one). If that is not kept any more, the event "missed" comes first.
  void subscribe(std::shared_ptr<http::EventStream> stream, std::string tenant = {},
                 std::string_view after = {});
  // For parts of the agent; called for each event, and with kMigrationOver and the whole migration
  // when one that left here is over.
  static constexpr std::string_view kMigrationOver = "migration over";
  using Observer = std::function<void(std::string_view name, const nlohmann::json& data)>;
  void observe(Observer observer) { observers_.push_back(std::move(observer)); }

  // One migration's progress, told only to those who follow it; `done` after its last change.
  void publish_progress(const MigrationId& id, const nlohmann::json& progress);
  void publish_done(const MigrationId& id, const nlohmann::json& migration);
  // Only for those who follow it.
  void close_followers(const MigrationId& id, const nlohmann::json& migration);
  void follow(const MigrationId& id, std::shared_ptr<http::EventStream> stream);

 private:
  struct Kept {
    std::string name;
    nlohmann::json data;
  };
  struct Listener {
    std::shared_ptr<http::EventStream> stream;
    std::string tenant;
  };

  // "RUN-NUMBER": another run of the agent does not know our numbers.
  std::string id_of(std::uint64_t number) const;
  bool tell(const Listener& listener, std::uint64_t number) const;

  std::string run_;
  std::uint64_t next_ = 1;  // number of the next event
  std::deque<Kept> kept_;   // the last of them is next_ - 1
  std::vector<Listener> listeners_;
  std::vector<Observer> observers_;
  std::multimap<MigrationId, std::shared_ptr<http::EventStream>> followers_;
};

}  // namespace godwit::agent
