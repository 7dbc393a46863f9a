#pragma once
// What an agent must still know after a crash: JSON documents by kind and key. All calls come from
// the control thread.
//
// A disk may be full. What a promise depends on is recorded: it is durable, or an error and as it
// was before. All else is put: durable when it returns, or, on a full disk, kept in memory (one
// version of each document) and written together with the next that fits. So what is on disk is
// always what the agent knew at some moment, and a recorded document never overtakes one put
// before.
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"
#include "store/disk.hh"

namespace godwit::store {

// Whether a write took effect is not known, so nobody may go on as if it had or had not: the agent
// ends, and finds out when it reads its store again. (No std::exception, which somebody between
// here and main might take for the failure of one request.)
struct Lost {
  std::string text;
};

class Store {
 public:
  virtual ~Store() = default;
  // Members that a document has and `body` has not stay: they are of a newer version (unknown.hh).
  [[nodiscard]] virtual Result<> record(std::string_view kind, std::string_view key,
                                        const nlohmann::json& body) = 0;
  virtual void put(std::string_view kind, std::string_view key, const nlohmann::json& body) = 0;
  virtual void erase(std::string_view kind, std::string_view key) = 0;
  virtual std::optional<nlohmann::json> find(std::string_view kind, std::string_view key) = 0;
  virtual std::vector<Document> list(std::string_view kind) = 0;  // by key

  // What is written between the two is written together, with one wait for the disk: many records
  // of one request. If it cannot be, that is end_group()'s error, and it waits in memory like what
  // was put. In one call, not across turns of the loop.
  virtual void begin_group() = 0;
  [[nodiscard]] virtual Result<> end_group() = 0;

  // Tries to write what the disk did not take; the error while it still does not.
  virtual Result<> catch_up() = 0;
};

// Throws SetupError when the file cannot be opened, written or is of a newer version.
std::unique_ptr<Store> open_sqlite(const std::string& path);
std::unique_ptr<Store> open_on(std::shared_ptr<Disk> disk);
// The in-memory double.
std::unique_ptr<Store> make_memory_store();

}  // namespace godwit::store
