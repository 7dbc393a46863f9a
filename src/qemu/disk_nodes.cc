#include "qemu/disk_nodes.hh"

#include <nlohmann/json.hpp>

namespace godwit::qemu {
namespace {

// A file, and its format on top of it; `both` are options of either.
void add_node(std::vector<std::string>& nodes, const std::string& node,
              const std::filesystem::path& path, nlohmann::json both,
              const nlohmann::json& options) {
  nlohmann::json file = both;
  file.update({{"driver", "file"}, {"node-name", file_node(node)}, {"filename", path.string()}});
  both.update({{"node-name", node}, {"file", file_node(node)}});
  both.update(options);
  nodes.push_back(file.dump());
  nodes.push_back(both.dump());
}

nlohmann::json format_options(DiskFormat format, const nlohmann::json& backing) {
  nlohmann::json options = {{"driver", to_text(format)}};
  if (format == DiskFormat::qcow2) options["backing"] = backing;
  return options;
}

}  // namespace

std::vector<std::string> disk_nodes(const DiskSpec& disk, const DiskPaths& paths,
                                    const std::string& node, DiskAccess access) {
  std::vector<std::string> nodes;
  const bool looks = access == DiskAccess::look;
  nlohmann::json backing;
  if (!disk.image.name.empty()) {
    backing = node + "-image";
    add_node(nodes, node + "-image", paths.image, {{"read-only", true}, {"force-share", looks}},
             format_options(disk.image.format, nullptr));
  }
  nlohmann::json options = format_options(disk.format, backing);
  if (looks) {
    add_node(nodes, node, paths.file, {{"read-only", true}, {"force-share", true}}, options);
    return nodes;
  }
  options["detect-zeroes"] = "unmap";
  add_node(nodes, node, paths.file, {{"discard", "unmap"}}, options);
  return nodes;
}

}  // namespace godwit::qemu
