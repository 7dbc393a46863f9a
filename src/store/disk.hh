#pragma once
// What is under a Store: durable documents, changed several at a time, all or none.
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hh"

namespace godwit::store {

struct Document {
  std::string key;
  nlohmann::json body;
};

using DocumentName = std::pair<std::string, std::string>;  // kind, key
// Nothing: erased.
using Changes = std::map<DocumentName, std::optional<nlohmann::json>>;

class Disk {
 public:
  virtual ~Disk() = default;
  // All of them are durable when it returns; or an error, and surely none is. Throws Lost when that
  // is not known.
  [[nodiscard]] virtual Result<> write(const Changes& changes) = 0;
  virtual std::optional<nlohmann::json> find(const DocumentName& name) = 0;
  virtual std::vector<Document> list(std::string_view kind) = 0;  // by key
};

class MemoryDisk final : public Disk {
 public:
  Result<> write(const Changes& changes) override;
  std::optional<nlohmann::json> find(const DocumentName& name) override;
  std::vector<Document> list(std::string_view kind) override;

  bool is_full = false;

 private:
  std::map<DocumentName, nlohmann::json> documents_;
};

}  // namespace godwit::store
