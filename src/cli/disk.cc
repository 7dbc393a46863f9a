// godwit disk ls
#include "cli/disk.hh"

#include <algorithm>
#include <array>
#include <ostream>

namespace godwit::cli {
namespace {

std::string state_of(const json& disk) {
  if (disk.contains("unfinished_from")) {
    return "left, unfinished move from " + disk.value("unfinished_from", "");
  }
  if (disk.contains("replica_from")) return "replica of " + disk.value("replica_from", "") + "'s";
  if (disk.contains("uri")) {
    return fmt::format("{}, at {}", disk.value("vm_state", "in use"), disk.value("uri", ""));
  }
  if (!disk.contains("moved_to")) return disk.value("vm_state", "in use");
  const std::string to = disk.value("moved_to", "");
  return to.empty() ? "left, vm removed" : "left, moved to " + to;
}

void list_disks(Context& context) {
  const json disks = context.fetch("/v1/disks");
  if (context.as_json) return context.print_json(disks);
  context.io.out << disk_table(disks).text("no disks");
}

}  // namespace

// "NAME,size=8GiB,format=raw" as the API has it; the agent checks the values.
json disk_of(const std::string& text) {
  static constexpr std::array kKeys = {"size", "image", "uri", "format", "bus"};
  std::size_t comma = text.find(',');
  json disk = {{"name", text.substr(0, comma)}};
  while (comma != std::string::npos) {
    const std::size_t begin = comma + 1;
    comma = text.find(',', begin);
    const std::string option = text.substr(begin, comma - begin);
    const std::size_t equals = option.find('=');
    const std::string key = option.substr(0, equals);
    if (equals == std::string::npos || std::ranges::find(kKeys, key) == kKeys.end()) {
      throw CLI::ValidationError("--disk", fmt::format("'{}' of '{}' is none of {}=", option, text,
                                                       fmt::join(kKeys, "=, ")));
    }
    disk[key] = option.substr(equals + 1);
  }
  return disk;
}

Table disk_table(const json& disks) {
  Table table({{"DISK"},
               {"VM"},
               {"SIZE", Align::right},
               {"USED", Align::right},
               {"FORMAT"},
               {"BUS"},
               {"IMAGE"},
               {"STATE"}});
  for (const json& disk : disks) {
    const std::string image = disk.value("image", "");
    table.row({text_of(disk, "name"), text_of(disk, "vm"), bytes_of(disk, "size_bytes"),
               bytes_of(disk, "used_bytes"), text_of(disk, "format"), text_of(disk, "bus"),
               image.empty() ? "-" : image, state_of(disk)});
  }
  return table;
}

void add_disk(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("disk", "Disks of vms")->require_subcommand(1);
  auto* ls = noun->add_subcommand("ls", "List the disks here, with those that moved vms left");
  add_json(*ls, context);
  ls->callback([&context] { list_disks(context); });
}

}  // namespace godwit::cli
