#pragma once
// The image library of this host: disk images that vms' disks begin as, each copied in once, named,
// with the SHA-256 of its file. Never written to again: a disk made from one is an overlay on it.
//
//   DISK_DIR/images/NAME.FORMAT     readable by QEMU's user, written by nobody
//   DISK_DIR/images/NAME.partial    a copy that is being made, or what was removed a moment ago
//
// Copies and sums are made by a worker, one after the other; what an agent was copying when it
// ended is removed when it starts again.
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "agent/config.hh"
#include "agent/events.hh"
#include "agent/image_file.hh"
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

// Copies that are waited for, and those that failed and were not removed yet.
inline constexpr std::size_t kMostUnfinishedImages = 64;

class Images final {
 public:
  // `users_of`: names of the vms here with a disk made from this image.
  using UsersOf = std::function<std::vector<std::string>(const std::string& image)>;
  Images(os::Loop& loop, const Config& config, store::Store& store, Events& events);
  ~Images();
  Images(const Images&) = delete;
  Images& operator=(const Images&) = delete;

  // Tidies up behind an agent that ended, before anything else is asked.
  void start(UsersOf users_of);
  // POST /v1/images {name, file, format?, sha256?, tenant?, public?}: copying begins. What goes
  // wrong from then on is shown until the image is removed, or added again.
  Result<> add(const nlohmann::json& request);
  // POST /v1/images/NAME/verify: reads all of it again; if it has changed it is shown as damaged.
  Result<> verify(const std::string& name);
  // Refused while a vm uses it; ends a copy that is under way.
  Result<> remove(const std::string& name);
  // As the API shows them: the record, "state" (copying, failed, ready, verifying, damaged),
  // "done_bytes", "error", "used_by".
  std::vector<nlohmann::json> list();
  std::optional<nlohmann::json> show(const std::string& name);

  // One that a vm of this tenant may have a disk from; the error says why not.
  Result<ImageRecord> usable(const std::string& name, const std::string& tenant);
  std::filesystem::path path(const ImageRecord& image) const;
  // Those that are whole, of all tenants.
  std::vector<ImageRecord> ready() const;

 private:
  using Work = std::shared_ptr<ImageWork>;
  // Not in the store: an agent that starts again knows nothing of it.
  struct Unfinished {
    ImageRecord record;
    Work work;          // null: it failed
    std::string error;  // why
  };

  Result<> check_is_free(const ImageRecord& image) const;
  void copy(const ImageRecord& image, ImageSource source);
  void copied(const std::string& name, const Work& work, const Result<ImageFacts>& result);
  Result<> keep(const ImageRecord& image);
  void verified(const std::string& name, const Work& work, const Result<std::string>& sum);
  void find_file(const ImageRecord& image);
  std::optional<ImageRecord> find(const std::string& name) const;
  std::filesystem::path partial(const std::string& name) const;
  void publish(const ImageRecord& image, std::string_view state);
  nlohmann::json describe(const ImageRecord& image) const;
  nlohmann::json describe(const Unfinished& unfinished) const;

  os::Loop& loop_;
  const Config& config_;
  store::Store& store_;
  Events& events_;
  UsersOf users_of_;
  std::map<std::string, Unfinished> unfinished_;
  std::map<std::string, Work> verifying_;
  std::map<std::string, std::string> damaged_;  // and what is wrong
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  Worker worker_;  // the last: it ends first
};

}  // namespace godwit::agent
