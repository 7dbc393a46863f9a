#include <map>

#include "store/store.hh"
#include "store/unknown.hh"

namespace godwit::store {
namespace {

class MemoryStore final : public Store {
 public:
  void put(std::string_view kind, std::string_view key, const nlohmann::json& body) override {
    auto& document = documents_[{std::string(kind), std::string(key)}];
    document = with_unknown(document, body);
  }
  void erase(std::string_view kind, std::string_view key) override {
    documents_.erase({std::string(kind), std::string(key)});
  }
  std::optional<nlohmann::json> find(std::string_view kind, std::string_view key) override {
    const auto found = documents_.find({std::string(kind), std::string(key)});
    if (found == documents_.end()) return std::nullopt;
    return found->second;
  }
  std::vector<Document> list(std::string_view kind) override {
    std::vector<Document> found;
    for (const auto& [name, body] : documents_) {
      if (name.first == kind) found.push_back({name.second, body});
    }
    return found;
  }

 private:
  std::map<std::pair<std::string, std::string>, nlohmann::json> documents_;
};

}  // namespace

std::unique_ptr<Store> make_memory_store() { return std::make_unique<MemoryStore>(); }

}  // namespace godwit::store
