#include "libvirt/connection.hh"

#include <libvirt/virterror.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace godwit::libvirt {

std::unexpected<Error> failed(std::string_view attempt) {
  const char* why = virGetLastErrorMessage();
  return fail("{}: {}", attempt, why != nullptr ? why : "libvirt does not say why");
}

Result<Connection> Connection::open(const std::string& uri) {
  virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});  // it would print them
  virConnectPtr connection = virConnectOpen(uri.c_str());
  if (connection == nullptr) return failed("cannot reach libvirt at " + uri);
  return Connection(connection);
}

namespace {

// 8-4-4-4-12 hex digits.
bool is_uuid(const std::string& text) {
  return text.size() == 36 && text.find_first_not_of("0123456789abcdefABCDEF-") == text.npos;
}

// The last call found nothing because there is none.
bool is_none(virErrorNumber none) { return virGetLastErrorCode() == none; }

}  // namespace

Result<DomainHandle> Connection::find(const std::string& domain) const {
  if (is_uuid(domain)) {
    DomainHandle found(virDomainLookupByUUIDString(connection_.get(), domain.c_str()));
    if (found) return found;
    if (!is_none(VIR_ERR_NO_DOMAIN)) return failed("cannot look for domain " + domain);
  }
  DomainHandle found(virDomainLookupByName(connection_.get(), domain.c_str()));
  if (!found && !is_none(VIR_ERR_NO_DOMAIN)) return failed("cannot look for domain " + domain);
  return found;
}

// Null: none that is active. It may not know yet of what was made or removed without it.
Result<Pool> Connection::pool_of(const std::string& disk) const {
  const std::string directory = std::filesystem::path(disk).parent_path();
  Pool pool(virStoragePoolLookupByTargetPath(connection_.get(), directory.c_str()));
  if (!pool && !is_none(VIR_ERR_NO_STORAGE_POOL)) return failed("cannot look for a storage pool");
  if (!pool || virStoragePoolIsActive(pool.get()) != 1) return Pool();
  if (virStoragePoolRefresh(pool.get(), 0) != 0) return failed("cannot look into " + directory);
  return pool;
}

Result<Place> Connection::place_of(const std::string& disk) const {
  const auto pool = pool_of(disk);
  if (!pool) return std::unexpected(pool.error());
  if (!*pool) return Place::unknown;
  if (Volume(virStorageVolLookupByPath(connection_.get(), disk.c_str()))) return Place::taken;
  if (!is_none(VIR_ERR_NO_STORAGE_VOL)) return failed("cannot look for " + disk);
  return Place::free;
}

Result<> Connection::remove_disk(const std::string& disk) const {
  const auto place = place_of(disk);
  if (!place) return std::unexpected(place.error());
  if (*place == Place::unknown) return fail("there is no active storage pool for {}", disk);
  if (*place == Place::free) return {};
  const Volume volume(virStorageVolLookupByPath(connection_.get(), disk.c_str()));
  if (!volume || virStorageVolDelete(volume.get(), 0) != 0) return failed("cannot remove " + disk);
  return {};
}

namespace {

class Parameters final {
 public:
  void add(const char* name, const std::string& value) {
    virTypedParamsAddString(&all_, &count_, &room_, name, value.c_str());
  }
  ~Parameters() { virTypedParamsFree(all_, count_); }
  virTypedParameterPtr all() const { return all_; }
  unsigned count() const { return static_cast<unsigned>(count_); }

 private:
  virTypedParameterPtr all_ = nullptr;
  int count_ = 0, room_ = 0;
};

unsigned flags_of(const MigrateRequest& request) {
  unsigned flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PAUSED;
  if (request.is_persistent) flags |= VIR_MIGRATE_PERSIST_DEST | VIR_MIGRATE_UNDEFINE_SOURCE;
  // Each write of the guest at once: else a guest that writes all the time never gets ready.
  if (!request.targets.empty()) {
    flags |= VIR_MIGRATE_NON_SHARED_DISK | VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES;
  }
  if (request.throttle) flags |= VIR_MIGRATE_AUTO_CONVERGE;
  return flags;
}

}  // namespace

Result<> Connection::migrate(virDomain& domain, const MigrateRequest& request) const {
  const auto there = open(request.target);
  if (!there) return std::unexpected(there.error());
  Parameters parameters;
  parameters.add(VIR_MIGRATE_PARAM_URI, "unix://" + request.memory);
  if (!request.targets.empty()) {
    parameters.add(VIR_MIGRATE_PARAM_DISKS_URI, "unix://" + request.disks);
  }
  for (const auto& disk : request.targets) {
    parameters.add(VIR_MIGRATE_PARAM_MIGRATE_DISKS, disk);
  }
  const DomainHandle moved(virDomainMigrate3(&domain, there->connection_.get(), parameters.all(),
                                             parameters.count(), flags_of(request)));
  if (!moved) return failed("libvirt could not migrate it");
  return {};
}

Result<DomainState> state_of(virDomain& domain) {
  const int active = virDomainIsActive(&domain);
  int state = 0, reason = 0;
  if (active < 0 || virDomainGetState(&domain, &state, &reason, 0) != 0) {
    return failed("cannot ask what the domain does");
  }
  virDomainJobInfo job{};
  const bool is_idle = virDomainGetJobInfo(&domain, &job) == 0 && job.type == VIR_DOMAIN_JOB_NONE;
  return DomainState{.is_active = active == 1,
                     .is_paused = state == VIR_DOMAIN_PAUSED,
                     .has_job = active == 1 && !is_idle};
}

Result<Domain> describe(virDomain& domain) {
  const std::unique_ptr<char, decltype(&std::free)> xml(virDomainGetXMLDesc(&domain, 0),
                                                        &std::free);
  if (!xml) return failed("cannot read the domain's XML");
  unsigned long qemu = 0;
  if (virConnectGetVersion(virDomainGetConnect(&domain), &qemu) != 0) {
    return failed("cannot ask for QEMU's version");
  }
  auto described = parse_domain(xml.get(), qemu);
  if (!described) return described;
  for (DomainDisk& disk : described->disks) {
    virDomainBlockInfo info{};
    if (virDomainGetBlockInfo(&domain, disk.target.c_str(), &info, 0) != 0) {
      return failed("cannot ask for the size of disk " + disk.target);
    }
    disk.size = {info.capacity};
    disk.used = {info.allocation};
  }
  return described;
}

nlohmann::json job_of(virDomain& domain) {
  int type = 0, count = 0;
  virTypedParameterPtr parameters = nullptr;
  nlohmann::json job = nlohmann::json::object();
  if (virDomainGetJobStats(&domain, &type, &parameters, &count, 0) != 0) return job;
  for (int i = 0; i < count && type != VIR_DOMAIN_JOB_NONE; ++i) {
    const virTypedParameter& each = parameters[i];
    if (each.type == VIR_TYPED_PARAM_ULLONG) job[each.field] = each.value.ul;
  }
  virTypedParamsFree(parameters, count);
  return job;
}

Result<> resume(virDomain& domain) {
  if (virDomainResume(&domain) != 0) return failed("libvirt could not let it run");
  return {};
}

Result<> end_and_forget(virDomain& domain) {
  const bool was_persistent = virDomainIsPersistent(&domain) == 1;
  if (virDomainIsActive(&domain) == 1 && virDomainDestroy(&domain) != 0) {
    return failed("libvirt could not end it");
  }
  if (was_persistent && virDomainUndefineFlags(&domain, VIR_DOMAIN_UNDEFINE_NVRAM) != 0) {
    return failed("libvirt could not forget it");
  }
  return {};
}

}  // namespace godwit::libvirt
