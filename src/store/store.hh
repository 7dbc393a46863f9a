#pragma once
// What an agent must still know after a crash: JSON documents by kind and key. put() and erase()
// are durable when they return (SQLite: WAL with synchronous=FULL, one fsync), so "journal first,
// effect second" is one call. All calls come from the control thread.
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::store {

struct Document {
  std::string key;
  nlohmann::json body;
};

class Store {
 public:
  virtual ~Store() = default;
  // Members that the document has and `body` has not stay: they are of a newer version
  // (unknown.hh).
  virtual void put(std::string_view kind, std::string_view key, const nlohmann::json& body) = 0;
  virtual void erase(std::string_view kind, std::string_view key) = 0;
  virtual std::optional<nlohmann::json> find(std::string_view kind, std::string_view key) = 0;
  virtual std::vector<Document> list(std::string_view kind) = 0;  // by key
};

// Throws SetupError when the file cannot be opened, written or is of a newer version.
std::unique_ptr<Store> open_sqlite(const std::string& path);
// The in-memory double.
std::unique_ptr<Store> make_memory_store();

}  // namespace godwit::store
