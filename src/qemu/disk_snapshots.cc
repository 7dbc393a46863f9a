#include "qemu/disk_snapshots.hh"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <ranges>

#include "qemu/json.hh"
#include "qemu/qemu_img.hh"
#include "qemu/snapshot_map.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

constexpr std::size_t kMostSnapshots = 4096;  // that a peer may tell of
constexpr std::size_t kMostSaid = 1000;       // bytes that an error quotes: the last

// Of QEMU's ImageInfo, qapi/block-core.json.
std::vector<Snapshot> snapshots_of(const json& image) {
  std::vector<Snapshot> snapshots;
  for (const json& each : member(image, "snapshots")) {
    snapshots.push_back({.id = text_at(each, "id"),
                         .name = text_at(each, "name"),
                         .state_bytes = unsigned_at(each, "vm-state-size"),
                         .made_s = unsigned_at(each, "date-sec"),
                         .made_ns = unsigned_at(each, "date-nsec")});
  }
  return snapshots;
}

const json& image_of(const json& nodes, const std::string& name) {
  static const json none;
  for (const json& node : nodes) {
    if (text_at(node, "node-name") == name) return member(node, "image");
  }
  return none;
}

Result<json> image_info(const std::filesystem::path& file) {
  const auto said = run_qemu_img({"info", "-U", "--output=json", "-f", "qcow2", file.string()});
  if (!said) return std::unexpected(said.error());
  json info = json::parse(*said, nullptr, false);
  if (!info.is_object()) return fail("qemu-img does not tell what {} is", file.string());
  return info;
}

Result<> write_all(const os::Fd& file, BytesView bytes, std::uint64_t offset) {
  const auto count =
      ::pwrite(file.number(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
  if (count == static_cast<ssize_t>(bytes.size())) return {};
  return fail("{}", errno_text("write it"));
}

std::string end_of(const os::Fd& file) {
  const off_t size = ::lseek(file.number(), 0, SEEK_END);
  std::string text(kMostSaid, '\0');
  const auto count = ::pread(file.number(), text.data(), text.size(),
                             std::max<off_t>(0, size - static_cast<off_t>(kMostSaid)));
  text.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace

std::vector<DiskSpec> files_of(const std::vector<DiskSnapshots>& snapshots,
                               const std::vector<DiskSpec>& disks) {
  std::vector<DiskSpec> files;
  for (const DiskSnapshots& each : snapshots) {
    files.push_back({.name = disks[each.disk].name, .format = DiskFormat::raw, .size = each.file});
  }
  return files;
}

json to_json(const std::vector<DiskSnapshots>& disks) {
  json array = json::array();
  for (const DiskSnapshots& disk : disks) {
    json snapshots = json::array();
    for (const Snapshot& each : disk.snapshots) {
      snapshots.push_back({{"id", each.id},
                           {"name", each.name},
                           {"vm-state-size", each.state_bytes},
                           {"date-sec", each.made_s},
                           {"date-nsec", each.made_ns}});
    }
    array.push_back(
        {{"disk", disk.disk}, {"file_bytes", disk.file.bytes}, {"snapshots", snapshots}});
  }
  return array;
}

Result<std::vector<DiskSnapshots>> disk_snapshots(const json& array, std::size_t disks) {
  std::vector<DiskSnapshots> all;
  if (!array.is_array() || array.size() > disks) return fail("'snapshots' is no list of disks");
  for (const json& each : array) {
    DiskSnapshots disk{.disk = unsigned_at(each, "disk"),
                       .file = {unsigned_at(each, "file_bytes")},
                       .snapshots = snapshots_of(each)};
    const bool is_next = all.empty() || disk.disk > all.back().disk;
    if (disk.disk >= disks || !is_next || disk.snapshots.empty() ||
        disk.snapshots.size() > kMostSnapshots || disk.file.bytes == 0 ||
        disk.file.bytes % kSectorBytes != 0 || disk.file > kMaxDisk) {
      return fail("'snapshots' tells of no disk of the vm");
    }
    all.push_back(std::move(disk));
  }
  return all;
}

std::string names_of(const std::vector<Snapshot>& snapshots) {
  return fmt::format("{}", fmt::join(snapshots | std::views::transform(&Snapshot::name), ", "));
}

void query_snapshots(Qmp& qmp, const std::vector<DiskSpec>& disks,
                     Answer<std::vector<DiskSnapshots>> answer) {
  qmp.execute("query-named-block-nodes", nullptr,
              [count = disks.size(), answer = std::move(answer)](Result<json> nodes) mutable {
                if (!nodes) return answer(std::unexpected(nodes.error()));
                std::vector<DiskSnapshots> all;
                for (std::size_t i = 0; i < count; ++i) {
                  const std::string node = disk_node(i);
                  auto snapshots = snapshots_of(image_of(*nodes, node));
                  if (snapshots.empty()) continue;
                  const json& file = image_of(*nodes, file_node(node));
                  all.push_back({.disk = i,
                                 .file = {unsigned_at(file, "virtual-size")},
                                 .snapshots = std::move(snapshots)});
                }
                answer(std::move(all));
              });
}

Result<std::vector<Snapshot>> read_snapshots(const std::filesystem::path& file) {
  const auto info = image_info(file);
  if (!info) return std::unexpected(info.error());
  return snapshots_of(*info);
}

SnapshotAdoption::SnapshotAdoption(os::Loop& loop, DiskSpec disk, DiskPaths paths,
                                   std::vector<Snapshot> snapshots,
                                   std::function<void(Result<>)> done)
    : loop_(loop),
      disk_(std::move(disk)),
      paths_(std::move(paths)),
      snapshots_(std::move(snapshots)),
      done_(std::move(done)),
      said_(::memfd_create("said", MFD_CLOEXEC)) {
  const std::string file = paths_.file.string();
  std::vector<std::string> rebase{"rebase", "-u", "-f", "qcow2", "-b", paths_.image.string()};
  if (!disk_.image.name.empty()) {
    rebase.insert(rebase.end(), {"-F", std::string(to_text(disk_.image.format))});
  }
  rebase.push_back(file);
  commands_ = {{"snapshot", "-q", "-a", snapshots_.back().id, file},
               {"check", "-q", "-r", "all", "-f", "qcow2", file},
               std::move(rebase)};
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    if (const auto cut = cut_present(); !cut) return end(cut);
    next();
  });
}

// What a file names it to be on, or its table of the present, is not to be believed.
Result<> SnapshotAdoption::cut_present() {
  const os::Fd file(::open(paths_.file.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!file) return fail("{}", errno_text("open it"));
  struct stat status{};
  Bytes start(kHeaderRead);
  const auto count = ::pread(file.number(), start.data(), start.size(), 0);
  if (count < 0 || ::fstat(file.number(), &status) != 0) return fail("{}", errno_text("read it"));
  start.resize(static_cast<std::size_t>(count));
  const auto without = without_present(start);
  if (!without) return std::unexpected(without.error());
  const auto size = static_cast<std::uint64_t>(status.st_size);
  const FilePart table = without->table;
  if (table.offset > size || table.length > size - table.offset) {
    return fail("its header is damaged");
  }
  if (auto done = write_all(file, Bytes(table.length), table.offset); !done) return done;
  return write_all(file, without->header, 0);
}

void SnapshotAdoption::next() {
  if (commands_.empty()) return end({});
  os::Command command = qemu_img(std::move(commands_.back()));
  commands_.pop_back();
  command.stdout_fd = command.stderr_fd = said_.number();
  command.dies_with_us = true;
  try {
    process_ = os::Child::spawn(command);
  } catch (const SetupError& error) {
    return end(fail("{}", error.what()));
  }
  process_.on_exit(loop_, [this](const os::ExitStatus& status) { exited(status); });
}

void SnapshotAdoption::exited(const os::ExitStatus& status) {
  if (!status.success()) return end(fail("qemu-img: {}: {}", status.text(), end_of(said_)));
  if (!commands_.empty()) return next();
  if (const auto is_right = look(); !is_right) return end(is_right);
  next();
}

// A snapshot may be of when the disk had another size.
Result<> SnapshotAdoption::look() {
  const auto info = image_info(paths_.file);
  if (!info) return std::unexpected(info.error());
  if (snapshots_of(*info) != snapshots_) return fail("its snapshots are not those of the source");
  if (const std::uint64_t size = unsigned_at(*info, "virtual-size"); size != disk_.size.bytes) {
    commands_.push_back(
        {"resize", "-q", "-f", "qcow2", paths_.file.string(), std::to_string(disk_.size.bytes)});
    if (size > disk_.size.bytes) commands_.back().insert(commands_.back().begin() + 1, "--shrink");
  }
  return {};
}

void SnapshotAdoption::end(Result<> result) {
  auto done = std::move(done_);  // which may be the end of this
  done(std::move(result));
}

}  // namespace godwit::qemu
