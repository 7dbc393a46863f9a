#include "agent/disks.hh"

#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "agent/records.hh"
#include "qemu/firmware.hh"
#include "qemu/json.hh"
#include "qemu/launch.hh"
#include "qemu/make_disk.hh"

namespace godwit::agent {
namespace {

namespace fs = std::filesystem;

// Kind, by the vm's id: {spec, to} of one that moved to that host, or was removed; {spec, from} of
// one that has not come whole from that host, or, with {replica, synced}, of which that host keeps
// a replica here.
constexpr const char* kLeft = "left-disks";
constexpr ByteCount kNothing{1 << 20};  // what a new file takes at most
constexpr blkcnt_t kBlock = 512;        // of st_blocks, inode(7)

// The other of the two is null, or not there.
bool is_unfinished(const nlohmann::json& left) { return !qemu::text_at(left, "from").empty(); }

// Zero for what is not there.
std::uint64_t allocated(const fs::path& file) {
  struct stat status{};
  return ::stat(file.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks * kBlock)
                                            : 0;
}

Result<> fill_variables(const qemu::VmSpec& spec, const qemu::DiskPaths& paths) {
  const auto firmware = qemu::find_uefi(spec.machine);
  if (!firmware) return fail("there is no UEFI firmware here any more");
  std::ifstream from(firmware->variables, std::ios::binary);
  std::ofstream to(paths.file, std::ios::binary | std::ios::in);
  to << from.rdbuf();
  if (from && to.flush()) return {};
  return fail("cannot copy {} to {}", firmware->variables.string(), paths.file.string());
}

Result<qemu::DiskSpec> parse(const nlohmann::json& asked) {
  qemu::DiskSpec disk;
  disk.name = qemu::text_at(asked, "name");
  const auto format = qemu::parse_disk_format(text_field_or(asked, "format", "qcow2"));
  if (!format) return std::unexpected(format.error());
  const auto bus = qemu::parse_disk_bus(text_field_or(asked, "bus", "virtio"));
  if (!bus) return std::unexpected(bus.error());
  if (*bus == qemu::DiskBus::pflash) {
    return fail("disk {}: UEFI variables come with the firmware (--firmware uefi)", disk.name);
  }
  disk.format = *format;
  disk.bus = *bus;
  if (!asked.contains("size")) return disk;
  const auto size = parse_byte_count(text_field_or(asked, "size", ""));
  if (!size) return fail("disk {}: {}", disk.name, size.error().text);
  disk.size = *size;
  return disk;
}

}  // namespace

Disks::Disks(const Config& config, store::Store& store, Images& images)
    : config_(config), store_(store), images_(images) {}

fs::path Disks::directory(const VmId& id) const { return config_.vm_disks() / id.text(); }

fs::path Disks::file_of(const VmId& id, const qemu::DiskSpec& disk) const {
  return directory(id) / fmt::format("{}.{}", disk.name, qemu::to_text(disk.format));
}

Result<std::vector<qemu::DiskSpec>> Disks::specs_of(const nlohmann::json& disks,
                                                    const std::string& tenant) {
  std::vector<qemu::DiskSpec> specs;
  for (const nlohmann::json& asked : disks) {
    auto disk = parse(asked);
    if (!disk) return std::unexpected(disk.error());
    if (const std::string image = text_field_or(asked, "image", ""); !image.empty()) {
      const auto found = images_.usable(image, tenant);
      if (!found) return fail("disk {}: {}", disk->name, found.error().text);
      disk->image = {.name = image,
                     .format = *qemu::parse_disk_format(found->format),
                     .sha256 = found->sha256};
      if (disk->size.bytes == 0) disk->size = found->virtual_size;
      if (disk->size < found->virtual_size) {
        return fail("disk {}: a size of {} is less than the {} of image {}", disk->name,
                    to_text(disk->size), to_text(found->virtual_size), image);
      }
    } else if (disk->size.bytes == 0) {
      return fail("disk {}: give a size, like size=8GiB, or an image", disk->name);
    }
    specs.push_back(*std::move(disk));
  }
  if (auto ok = qemu::check(specs); !ok) return std::unexpected(ok.error());
  return specs;
}

std::vector<std::string> Disks::refusals(const qemu::VmSpec& spec) {
  std::vector<std::string> reasons;
  for (const qemu::DiskSpec& disk : spec.disks) {
    if (disk.image.name.empty()) continue;
    const auto image = images_.usable(disk.image.name, spec.tenant);
    if (!image) {
      reasons.push_back(
          fmt::format("disk {} is on the image {}, which host {} has not: {}; add it "
                      "there (godwit image add)",
                      disk.name, disk.image.name, config_.name, image.error().text));
    } else if (image->sha256 != disk.image.sha256) {
      reasons.push_back(
          fmt::format("disk {} is on an image {} with the SHA-256 {}, that of host "
                      "{} is another: {}",
                      disk.name, disk.image.name, disk.image.sha256, config_.name, image->sha256));
    }
  }
  return reasons;
}

std::shared_ptr<const StorageMarker> Disks::mark(const qemu::VmSpec& spec) const {
  if (spec.disks.empty()) return nullptr;
  try {
    return std::make_shared<const StorageMarker>(directory(spec.id));
  } catch (const SetupError& error) {
    spdlog::warn("vm {}: {}", spec.name, error.what());
    return nullptr;
  }
}

bool Disks::sees(const VmId& id, const StorageMarkerId& marker) const {
  return StorageMarker::is_in(directory(id), marker);
}

std::string Disks::obstacle_to_sharing(const qemu::VmSpec& spec) const {
  std::vector<std::string> notices;
  const auto user = qemu::qemu_user(notices);
  for (const qemu::DiskSpec& disk : spec.disks) {
    struct stat status{};
    const fs::path file = file_of(spec.id, disk);
    if (::stat(file.c_str(), &status) != 0) return errno_text("look at " + file.string());
    if (user && status.st_uid != user->uid) {
      return fmt::format(
          "{} belongs to the user {}, and QEMU of host {} runs as {}: give the user "
          "{} the same number at all hosts that share storage",
          file.string(), status.st_uid, config_.name, user->uid, qemu::kQemuUsers[0]);
    }
  }
  return {};
}

std::string Disks::obstacle_to_receiving(const VmId& id) {
  std::error_code error;
  if (store_.find(kLeft, id.text()) || !fs::exists(directory(id), error)) return {};
  return fmt::format(
      "host {} has no record of what is in {}, so that it is another's that sees the same storage: "
      "there godwit disk ls tells of it",
      config_.name, directory(id).string());
}

Result<> Disks::make_directory(const VmId& id) const {
  std::error_code error;
  fs::create_directories(directory(id), error);
  if (!error) fs::permissions(directory(id), fs::perms{0711}, error);
  if (error) return fail("cannot make {}: {}", directory(id).string(), error.message());
  return {};
}

Result<> Disks::make(const qemu::VmSpec& spec) {
  if (spec.disks.empty()) return {};
  if (const auto reasons = refusals(spec); !reasons.empty()) return fail("{}", reasons.front());
  remove(spec.id);
  if (auto made = make_directory(spec.id); !made) return made;
  const auto paths = this->paths(spec);
  for (std::size_t i = 0; i < paths.size(); ++i) {
    auto made = qemu::make_disk(spec.disks[i], paths[i]);
    if (made && spec.disks[i].bus == qemu::DiskBus::pflash) made = fill_variables(spec, paths[i]);
    if (!made) {
      remove(spec.id);
      return made;
    }
  }
  return {};
}

bool Disks::is_here(const VmId& id) {
  return std::ranges::any_of(store_.list("vm"), [&](const auto& document) {
    return vm_record(document.body).spec.id == id;
  });
}

std::vector<bool> Disks::there(const qemu::VmSpec& spec) {
  std::vector<bool> there(spec.disks.size());
  const auto document = store_.find(kLeft, spec.id.text());
  const auto left =
      document ? qemu::vm_spec_from_json(qemu::member(*document, "spec")) : fail("none");
  if (!left || left->tenant != spec.tenant) return there;
  for (std::size_t i = 0; i < there.size(); ++i) {
    const qemu::DiskSpec& disk = spec.disks[i];
    const auto found = std::ranges::find(left->disks, disk.name, &qemu::DiskSpec::name);
    there[i] = found != left->disks.end() && found->format == disk.format &&
               found->size == disk.size && found->image.name == disk.image.name &&
               found->image.sha256 == disk.image.sha256 && fs::exists(file_of(spec.id, disk));
  }
  return there;
}

ByteCount Disks::there_already(const qemu::VmSpec& spec) {
  ByteCount sum;
  const std::vector<bool> there = this->there(spec);
  for (std::size_t i = 0; i < there.size(); ++i) {
    if (there[i]) sum.bytes += allocated(file_of(spec.id, spec.disks[i]));
  }
  return sum;
}

Result<> Disks::receive(const qemu::VmSpec& spec, const std::string& from) {
  if (spec.disks.empty()) return {};
  if (const auto reasons = refusals(spec); !reasons.empty()) return fail("{}", reasons.front());
  if (const auto why = obstacle_to_receiving(spec.id); !why.empty()) return fail("{}", why);
  const std::vector<bool> there = this->there(spec);
  if (std::ranges::none_of(there, std::identity{})) remove(spec.id);
  // Whoever finds files knows of what they are.
  store_.put(kLeft, spec.id.text(),
             {{"spec", qemu::to_json(spec)},
              {"from", from},
              {"to", nullptr},
              {"replica", nullptr},
              {"synced", nullptr}});
  return receive_into(spec, there);
}

Result<bool> Disks::receive_replica(const qemu::VmSpec& spec, const std::string& from,
                                    const std::string& synced) {
  const auto before = store_.find(kLeft, spec.id.text());
  const bool whole = std::ranges::all_of(there(spec), std::identity{});
  const bool same =
      !synced.empty() && whole && before && qemu::text_at(*before, "synced") == synced;
  if (auto done = receive(spec, from); !done) return std::unexpected(done.error());
  store_.put(kLeft, spec.id.text(), {{"replica", true}, {"synced", same ? synced : ""}});
  return same;
}

void Disks::replica_synced(const VmId& id, const std::string& word) {
  store_.put(kLeft, id.text(), {{"synced", word}});
}

bool Disks::has_snapshots(const qemu::VmSpec& spec,
                          const std::vector<qemu::DiskSnapshots>& snapshots) {
  const std::vector<bool> there = this->there(spec);
  return std::ranges::all_of(snapshots, [&](const qemu::DiskSnapshots& each) {
    if (!there[each.disk]) return false;
    const auto found = qemu::read_snapshots(file_of(spec.id, spec.disks[each.disk]));
    return found && *found == each.snapshots;
  });
}

Result<std::vector<qemu::DiskPaths>> Disks::receive_snapshots(
    const qemu::VmSpec& spec, const std::string& from,
    const std::vector<qemu::DiskSnapshots>& snapshots) {
  if (auto done = receive(spec, from); !done) return std::unexpected(done.error());
  std::vector<qemu::DiskPaths> paths;
  for (const qemu::DiskSpec& file : qemu::files_of(snapshots, spec.disks)) {
    paths.push_back({.file = directory(spec.id) / (file.name + ".snapshots")});
    std::error_code ignored;
    fs::remove(paths.back().file, ignored);
    if (auto made = qemu::make_disk(file, paths.back()); !made) {
      return std::unexpected(made.error());
    }
  }
  return paths;
}

void Disks::remove_replica(const VmId& id, const std::string& from) {
  const auto document = store_.find(kLeft, id.text());
  const bool is_theirs =
      document && qemu::flag_at(*document, "replica") && qemu::text_at(*document, "from") == from;
  if (is_theirs && !is_here(id)) remove(id);
}

Result<> Disks::receive_into(const qemu::VmSpec& spec, const std::vector<bool>& there) {
  if (auto made = make_directory(spec.id); !made) return made;
  const auto paths = this->paths(spec);
  for (std::size_t i = 0; i < paths.size(); ++i) {
    if (there[i]) continue;
    std::error_code ignored;
    fs::remove(paths[i].file, ignored);
    if (auto made = qemu::make_disk(spec.disks[i], paths[i]); !made) {
      break_off(spec.id);
      return made;
    }
  }
  return {};
}

void Disks::arrived(const VmId& id) { store_.erase(kLeft, id.text()); }

void Disks::remove_unfinished(const VmId& id) {
  const auto document = store_.find(kLeft, id.text());
  if (!is_here(id) && document && is_unfinished(*document)) remove(id);
}

void Disks::break_off(const VmId& id) {
  const auto document = store_.find(kLeft, id.text());
  // Without a word on them they are another host's; or it never came as far as here.
  if (is_here(id) || !document || !is_unfinished(*document)) return;
  const auto spec = qemu::vm_spec_from_json(qemu::member(*document, "spec"));
  if (!spec || used_bytes(*spec).bytes <= spec->disks.size() * kNothing.bytes) remove(id);
}

std::vector<qemu::DiskPaths> Disks::paths(const qemu::VmSpec& spec) const {
  std::vector<qemu::DiskPaths> paths;
  for (const qemu::DiskSpec& disk : spec.disks) {
    paths.push_back({.file = file_of(spec.id, disk), .image = {}});
    if (disk.image.name.empty()) continue;
    paths.back().image = images_.path({.name = disk.image.name,
                                       .tenant = {},
                                       .format = std::string(qemu::to_text(disk.image.format)),
                                       .size = {},
                                       .virtual_size = {},
                                       .sha256 = {}});
  }
  return paths;
}

std::vector<std::string> Disks::vms_on(const std::string& image) {
  std::vector<std::string> names;
  const auto look = [&](const nlohmann::json& spec) {
    const auto vm = qemu::vm_spec_from_json(spec);
    const auto is_on = [&](const qemu::DiskSpec& disk) { return disk.image.name == image; };
    if (vm && std::ranges::any_of(vm->disks, is_on)) names.push_back(vm->name);
  };
  for (const auto& document : store_.list("vm")) look(qemu::member(document.body, "spec"));
  for (const auto& document : store_.list(kLeft)) look(qemu::member(document.body, "spec"));
  return names;
}

void Disks::remove(const VmId& id) {
  std::error_code ignored;
  fs::remove_all(directory(id), ignored);
  store_.erase(kLeft, id.text());
}

ByteCount Disks::used_bytes(const qemu::VmSpec& spec) const {
  ByteCount sum;
  for (const qemu::DiskSpec& disk : spec.disks) sum.bytes += allocated(file_of(spec.id, disk));
  return sum;
}

void Disks::leave(const qemu::VmSpec& spec, const std::string& to) {
  if (spec.disks.empty()) return;
  store_.put(kLeft, spec.id.text(), {{"spec", qemu::to_json(spec)}, {"to", to}, {"from", nullptr}});
}

void Disks::purge_left(const std::string& vm, const std::string& tenant) {
  for (const auto& document : store_.list(kLeft)) {
    const auto spec = qemu::vm_spec_from_json(qemu::member(document.body, "spec"));
    if (spec && spec->name == vm && spec->tenant == tenant && !is_here(spec->id)) remove(spec->id);
  }
}

std::vector<qemu::VmSpec> Disks::left() {
  std::vector<qemu::VmSpec> left;
  for (const auto& document : store_.list(kLeft)) {
    auto spec = qemu::vm_spec_from_json(qemu::member(document.body, "spec"));
    if (spec && !is_unfinished(document.body) && !is_here(spec->id)) {
      left.push_back(*std::move(spec));
    }
  }
  return left;
}

nlohmann::json Disks::describe(const qemu::VmSpec& spec, const qemu::DiskSpec& disk) const {
  const fs::path file = file_of(spec.id, disk);
  return {{"vm", spec.name},
          {"tenant", spec.tenant},
          {"name", disk.name},
          {"format", qemu::to_text(disk.format)},
          {"bus", qemu::to_text(disk.bus)},
          {"size_bytes", disk.size.bytes},
          {"used_bytes", allocated(file)},
          {"image", disk.image.name},
          {"path", file.string()}};
}

std::vector<nlohmann::json> Disks::list_of(const qemu::VmSpec& spec) const {
  std::vector<nlohmann::json> all;
  for (const qemu::DiskSpec& disk : spec.disks) all.push_back(describe(spec, disk));
  return all;
}

std::vector<nlohmann::json> Disks::list_left() {
  std::vector<nlohmann::json> all;
  for (const auto& document : store_.list(kLeft)) {
    const auto spec = qemu::vm_spec_from_json(qemu::member(document.body, "spec"));
    if (!spec || is_here(spec->id)) continue;
    const bool is_of_move = !qemu::flag_at(document.body, "replica");
    const bool unfinished = is_unfinished(document.body);
    const char* what = unfinished ? (is_of_move ? "unfinished_from" : "replica_from") : "moved_to";
    for (nlohmann::json& disk : list_of(*spec)) {
      disk[what] = qemu::text_at(document.body, unfinished ? "from" : "to");
      all.push_back(std::move(disk));
    }
  }
  return all;
}

}  // namespace godwit::agent
