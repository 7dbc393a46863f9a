#pragma once
// The image library of this host: disk images that vms' disks begin as, each copied in once, named,
// with the SHA-256 of its file. Never written to again: a disk made from one is an overlay on it.
//
//   DISK_DIR/images/NAME.FORMAT     readable by QEMU's user, written by nobody
//
// Copies and sums are made by a worker; what an agent was copying when it ended is removed when it
// starts again.
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "agent/config.hh"
#include "agent/events.hh"
#include "agent/worker.hh"
#include "store/store.hh"

namespace godwit::agent {

// kind "image", by name.
struct ImageRecord {
  std::string name;
  std::string tenant;
  bool is_public = false;  // for disks of every tenant
  std::string format;      // "qcow2" or "raw"
  ByteCount size;          // of the file
  ByteCount virtual_size;  // of the disk in it
  std::string sha256;      // of the file, 64 hex digits; empty while it is copied
  std::int64_t added = 0;  // seconds since 1970
};

class Images final {
 public:
  // `users_of`: names of the vms here with a disk made from this image.
  using UsersOf = std::function<std::vector<std::string>(const std::string& image)>;
  Images(os::Loop& loop, const Config& config, store::Store& store, Events& events);

  void start(UsersOf users_of);
  // POST /v1/images {name, file, format?, sha256?, tenant?, public?}: copying begins.
  Result<> add(const nlohmann::json& request);
  // POST /v1/images/NAME/verify: reads all of it again, `done` with an error if it has changed.
  Result<> verify(const std::string& name);
  // Refused while a vm uses it; ends a copy that is under way.
  Result<> remove(const std::string& name);
  // As the API shows them: the record, "state" (copying, ready, verifying, damaged), "done_bytes".
  std::vector<nlohmann::json> list();
  std::optional<nlohmann::json> show(const std::string& name);

  // One that a vm of this tenant may have a disk from; the error says why not.
  Result<ImageRecord> usable(const std::string& name, const std::string& tenant);
  std::filesystem::path path(const ImageRecord& image) const;
};

}  // namespace godwit::agent
