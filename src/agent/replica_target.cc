#include "agent/replica_target.hh"

namespace godwit::agent {

ReplicaTarget::ReplicaTarget(os::Loop& loop, Run run, std::vector<qemu::DiskPaths> paths,
                             const std::filesystem::path& directory, Events events)
    : loop_(loop),
      run_(std::move(run)),
      paths_(std::move(paths)),
      events_(std::move(events)),
      directory_(directory),
      link_(loop, run_.id, stream::Role::kTarget, TransferLink::Disks::some, std::nullopt,
            TransferLink::Events{.mark = {},
                                 .lane_lost = {},
                                 .memory_verified = {},
                                 .failed = [this](const std::string& why) { fail_with(why); }}) {
  disks_.emplace(loop, disks_that_come(), paths_,
                 run_.same ? DiskTarget::Seeds::none : DiskTarget::Seeds::all, nullptr, link_,
                 DiskTarget::Events{.ready = [this] { events_.ready(); },
                                    .closed =
                                        [this] {
                                          closed_ = true;
                                          if (run_.snapshots.empty()) events_.closed();
                                        },
                                    .failed = [this](const std::string& why) { fail_with(why); }});
  disks_->start(directory_);
}

qemu::VmSpec ReplicaTarget::disks_that_come() const {
  qemu::VmSpec vm = run_.vm;
  if (!run_.snapshots.empty()) vm.disks = qemu::files_of(run_.snapshots, run_.vm.disks);
  return vm;
}

// What was not adopted is of no use.
ReplicaTarget::~ReplicaTarget() {
  disks_.reset();
  adoption_.reset();
  adopted(fail("another run or move took its place"));
  std::error_code ignored;
  for (std::size_t i = 0; i < run_.snapshots.size(); ++i) {
    std::filesystem::remove(paths_[i].file, ignored);
  }
  std::filesystem::remove_all(directory_, ignored);
}

void ReplicaTarget::adopt(std::vector<qemu::DiskPaths> disks, std::function<void(Result<>)> done) {
  if (!closed_ || adopted_ || run_.snapshots.empty()) {
    return done(fail("nothing has come that could be adopted"));
  }
  adopt_into_ = std::move(disks);
  adopted_ = std::move(done);
  adopt_next();
}

void ReplicaTarget::adopt_next() {
  if (to_adopt_ == run_.snapshots.size()) return adopted({});
  const auto& [disk, file, snapshots] = run_.snapshots[to_adopt_];
  adoption_ = std::make_unique<qemu::SnapshotAdoption>(
      loop_, run_.vm.disks[disk],
      qemu::DiskPaths{.file = paths_[to_adopt_].file, .image = adopt_into_[disk].image}, snapshots,
      [this, disk](const Result<>& done) {
        std::error_code error;
        if (done) std::filesystem::rename(paths_[to_adopt_].file, adopt_into_[disk].file, error);
        if (!done || error) {
          return adopted(fail("snapshots of disk {}: {}", run_.vm.disks[disk].name,
                              done ? error.message() : done.error().text));
        }
        // It is telling us.
        loop_.post([this, alive = std::weak_ptr(alive_)] {
          if (alive.expired()) return;
          ++to_adopt_;
          adopt_next();
        });
      });
}

void ReplicaTarget::adopted(const Result<>& result) {
  if (const auto done = std::exchange(adopted_, nullptr)) done(result);
}

// One of our parts is telling us.
void ReplicaTarget::fail_with(const std::string& why) {
  if (std::exchange(failed_, true)) return;
  loop_.post([this, why, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) events_.failed(why);
  });
}

}  // namespace godwit::agent
