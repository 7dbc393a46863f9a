#include "agent/replica_target.hh"

namespace godwit::agent {

ReplicaTarget::ReplicaTarget(os::Loop& loop, Run run, std::vector<qemu::DiskPaths> paths,
                             const std::filesystem::path& directory, Events events)
    : loop_(loop),
      run_(std::move(run)),
      events_(std::move(events)),
      directory_(directory),
      link_(loop, run_.id, stream::Role::kTarget, TransferLink::Disks::some, std::nullopt,
            TransferLink::Events{.mark = {},
                                 .lane_lost = {},
                                 .memory_verified = {},
                                 .failed = [this](const std::string& why) { fail_with(why); }}) {
  disks_.emplace(loop, run_.vm, std::move(paths),
                 run_.same ? DiskTarget::Seeds::none : DiskTarget::Seeds::all, nullptr, link_,
                 DiskTarget::Events{.ready = [this] { events_.ready(); },
                                    .closed = [this] { events_.closed(); },
                                    .failed = [this](const std::string& why) { fail_with(why); }});
  disks_->start(directory_);
}

ReplicaTarget::~ReplicaTarget() {
  disks_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

// One of our parts is telling us.
void ReplicaTarget::fail_with(const std::string& why) {
  if (std::exchange(failed_, true)) return;
  loop_.post([this, why, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) events_.failed(why);
  });
}

}  // namespace godwit::agent
