#include "store/store.hh"

#include <utility>

#include "base/check.hh"
#include "store/unknown.hh"

namespace godwit::store {
namespace {

class DiskStore final : public Store {
 public:
  explicit DiskStore(std::shared_ptr<Disk> disk) : disk_(std::move(disk)) {}

  Result<> record(std::string_view kind, std::string_view key,
                  const nlohmann::json& body) override {
    if (grouped_) {
      late_[name(kind, key)] = whole(kind, key, body);
      return {};
    }
    Changes changes = late_;
    changes[name(kind, key)] = whole(kind, key, body);
    return write(changes);
  }
  void put(std::string_view kind, std::string_view key, const nlohmann::json& body) override {
    late_[name(kind, key)] = whole(kind, key, body);
    (void)catch_up();  // asked for by catch_up() again
  }
  void erase(std::string_view kind, std::string_view key) override {
    late_[name(kind, key)] = std::nullopt;
    (void)catch_up();
  }

  std::optional<nlohmann::json> find(std::string_view kind, std::string_view key) override {
    const DocumentName wanted = name(kind, key);
    const auto late = late_.find(wanted);
    return late == late_.end() ? disk_->find(wanted) : late->second;
  }

  std::vector<Document> list(std::string_view kind) override {
    auto on_disk = disk_->list(kind);
    if (late_.empty()) return on_disk;
    std::map<std::string, nlohmann::json> merged;
    for (Document& document : on_disk) merged[document.key] = std::move(document.body);
    for (const auto& [changed, body] : late_) {
      if (changed.first != kind) continue;
      merged.erase(changed.second);
      if (body) merged[changed.second] = *body;
    }
    std::vector<Document> documents;
    for (auto& [key, body] : merged) documents.push_back({key, std::move(body)});
    return documents;
  }

  void begin_group() override {
    CHECK(!grouped_);
    grouped_ = true;
  }
  Result<> end_group() override {
    grouped_ = false;
    return catch_up();
  }

  Result<> catch_up() override { return late_.empty() || grouped_ ? Result<>{} : write(late_); }

 private:
  static DocumentName name(std::string_view kind, std::string_view key) {
    return {std::string(kind), std::string(key)};
  }
  nlohmann::json whole(std::string_view kind, std::string_view key, const nlohmann::json& body) {
    const auto before = find(kind, key);
    return before ? with_unknown(*before, body) : body;
  }
  Result<> write(const Changes& changes) {
    auto done = disk_->write(changes);
    if (done) late_.clear();
    return done;
  }

  std::shared_ptr<Disk> disk_;
  Changes late_;
  bool grouped_ = false;
};

}  // namespace

std::unique_ptr<Store> open_on(std::shared_ptr<Disk> disk) {
  return std::make_unique<DiskStore>(std::move(disk));
}

std::unique_ptr<Store> make_memory_store() { return open_on(std::make_shared<MemoryDisk>()); }

}  // namespace godwit::store
