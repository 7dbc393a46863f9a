#pragma once
// A connection to a host's libvirt, and one domain of it. Calls block; what fails is said in
// libvirt's words. libvirt.org/html/libvirt-libvirt-domain.html
#include <libvirt/libvirt.h>

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/result.hh"
#include "libvirt/domain_xml.hh"

namespace godwit::libvirt {

struct Ends {
  void operator()(virConnectPtr connection) const { virConnectClose(connection); }
  void operator()(virDomainPtr domain) const { virDomainFree(domain); }
  void operator()(virStoragePoolPtr pool) const { virStoragePoolFree(pool); }
  void operator()(virStorageVolPtr volume) const { virStorageVolFree(volume); }
};
using Pool = std::unique_ptr<virStoragePool, Ends>;
using Volume = std::unique_ptr<virStorageVol, Ends>;
using DomainHandle = std::unique_ptr<virDomain, Ends>;

// What a domain is doing.
struct DomainState {
  bool is_active = false, is_paused = false;
  // A migration of it, in either direction, is under way; or libvirt does not tell.
  bool has_job = false;
};

struct MigrateRequest {
  std::string target;                // URI of the target's libvirt
  std::string memory, disks;         // sockets that its QEMU listens at, and that ours connects to
  std::vector<std::string> targets;  // the disks that are copied, "vda"
  bool throttle = false;             // the vCPUs, where it would not converge
  bool is_persistent = false;
};

// Of a disk's file, in libvirt's storage pools.
enum class Place { unknown, free, taken };

class Connection final {
 public:
  static Result<Connection> open(const std::string& uri);

  // By its UUID, or its name. Null: there is none, by libvirt's word; an error says nothing of
  // that.
  Result<DomainHandle> find(const std::string& domain) const;
  Result<Place> place_of(const std::string& disk) const;
  // Nothing where there is none.
  Result<> remove_disk(const std::string& disk) const;
  // Blocks until the domain stands at the target, paused, and is here no more; or runs here as
  // before.
  Result<> migrate(virDomain& domain, const MigrateRequest& request) const;

 private:
  Result<Pool> pool_of(const std::string& disk) const;

  explicit Connection(virConnectPtr connection) : connection_(connection) {}
  std::unique_ptr<virConnect, Ends> connection_;
};

Result<DomainState> state_of(virDomain& domain);
// Of one that runs, with the sizes of its disks.
Result<Domain> describe(virDomain& domain);
// Of the job that is under way: {memory_total, memory_remaining, disk_total, disk_remaining, ...},
// as libvirt names and counts them (bytes); empty: there is none.
nlohmann::json job_of(virDomain& domain);
Result<> resume(virDomain& domain);
// It ends at once, and is not defined any more.
Result<> end_and_forget(virDomain& domain);

// In libvirt's words, after a call that failed.
std::unexpected<Error> failed(std::string_view attempt);

}  // namespace godwit::libvirt
