#include "store/disk.hh"

namespace godwit::store {

Result<> MemoryDisk::write(const Changes& changes) {
  if (is_full) return fail("the disk is full");
  for (const auto& [name, body] : changes) {
    if (body) {
      documents_[name] = *body;
    } else {
      documents_.erase(name);
    }
  }
  return {};
}

std::optional<nlohmann::json> MemoryDisk::find(const DocumentName& name) {
  const auto found = documents_.find(name);
  if (found == documents_.end()) return std::nullopt;
  return found->second;
}

std::vector<Document> MemoryDisk::list(std::string_view kind) {
  std::vector<Document> found;
  for (auto at = documents_.lower_bound({std::string(kind), {}});
       at != documents_.end() && at->first.first == kind; ++at) {
    found.push_back({at->first.second, at->second});
  }
  return found;
}

}  // namespace godwit::store
