#pragma once
// What a move has to know of a libvirt domain, read from its XML (libvirt.org/formatdomain.html).
// Pure.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"
#include "base/units.hh"

namespace godwit::libvirt {

struct DomainDisk {
  std::string target;  // "vda", unique within the domain
  std::string alias;   // "virtio-disk0": libvirt's export of it is called "drive-" and this
  std::string path;
  std::string format;         // "qcow2", "raw"
  bool is_read_only = false;  // a CD, or shared by its nature: it has to be at the target
  // That the guest sees, and that it takes; libvirt says them, not the XML.
  ByteCount size{}, used{};
  bool operator==(const DomainDisk&) const = default;
};

struct Domain {
  std::string name, uuid;
  ByteCount memory{};
  std::vector<DomainDisk> disks{};
  std::vector<std::string> bridges{};    // of the host, that its interfaces are on
  std::vector<std::string> obstacles{};  // why it cannot move with Godwit, if so
  std::vector<std::string> warnings{};   // what may go wrong with it whoever moves it

  std::vector<DomainDisk> moving_disks() const;
};

// `xml`: of a running domain.
// `qemu`: its version as libvirt counts, 1,000,000 * major + 1,000 * minor + release.
Result<Domain> parse_domain(std::string_view xml, unsigned long qemu);

nlohmann::json to_json(const Domain& domain);
Result<Domain> domain_from_json(const nlohmann::json& json);

}  // namespace godwit::libvirt
