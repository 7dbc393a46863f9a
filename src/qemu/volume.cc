#include "qemu/volume.hh"

#include <algorithm>
#include <boost/url/parse.hpp>
#include <boost/url/src.hpp>
#include <boost/url/url_view.hpp>
#include <charconv>
#include <sstream>

#include "base/id.hh"
#include "os/child.hh"
#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

constexpr std::uint16_t kNbdPort = 10809, kIscsiPort = 3260;  // IANA's
// What the guest asks of a server that has gone waits so long for it, and fails then; seconds.
constexpr int kReconnect = 60;

using Segments = std::vector<std::string>;

Result<std::string> host_of(const boost::urls::url_view& uri) {
  if (!uri.has_authority() || uri.host_address().empty()) return fail("it names no host");
  return std::string(uri.host_address());
}

std::string port_of(const boost::urls::url_view& uri, std::uint16_t usual) {
  return std::to_string(uri.has_port() ? uri.port_number() : usual);
}

Result<json> nbd_node(const boost::urls::url_view& uri, const Segments& path) {
  const auto host = host_of(uri);
  if (!host) return std::unexpected(host.error());
  return json{{"driver", "nbd"},
              {"server", {{"type", "inet"}, {"host", *host}, {"port", port_of(uri, kNbdPort)}}},
              {"export", fmt::format("{}", fmt::join(path, "/"))},
              {"reconnect-delay", kReconnect}};
}

Result<json> iscsi_node(const boost::urls::url_view& uri, const Segments& path) {
  const auto host = host_of(uri);
  if (!host) return std::unexpected(host.error());
  if (path.size() != 2) return fail("it is not iscsi://HOST[:PORT]/TARGET/LUN");
  unsigned lun = 0;
  const char* end = path[1].data() + path[1].size();
  if (std::from_chars(path[1].data(), end, lun) != std::from_chars_result{end, {}}) {
    return fail("its LUN '{}' is no number", path[1]);
  }
  const bool is_v6 = host->contains(':');
  return json{{"driver", "iscsi"},
              {"transport", "tcp"},
              {"portal", fmt::format("{}{}{}:{}", is_v6 ? "[" : "", *host, is_v6 ? "]" : "",
                                     port_of(uri, kIscsiPort))},
              {"target", path[0]},
              {"lun", lun}};
}

Result<json> nfs_node(const boost::urls::url_view& uri, const Segments& path) {
  const auto host = host_of(uri);
  if (!host) return std::unexpected(host.error());
  if (uri.has_port()) return fail("NFS has no port in its URI");
  if (path.size() < 2) return fail("it is not nfs://HOST/EXPORT/FILE");
  return json{{"driver", "nfs"},
              {"server", {{"type", "inet"}, {"host", *host}}},
              {"path", fmt::format("/{}", fmt::join(path, "/"))}};
}

Result<json> rbd_node(const boost::urls::url_view& uri, const Segments& path) {
  if (uri.has_authority() || uri.is_path_absolute() || path.size() < 2 || path.size() > 3) {
    return fail("it is neither rbd:POOL/IMAGE nor rbd:POOL/NAMESPACE/IMAGE");
  }
  json node = {{"driver", "rbd"}, {"pool", path.front()}, {"image", path.back()}};
  if (path.size() == 3) node["namespace"] = path[1];
  return node;
}

Result<json> server_node(const std::string& text) {
  const auto uri = boost::urls::parse_uri(text);
  if (!uri) return fail("it is no URI (RFC 3986)");
  if (uri->has_userinfo() || uri->has_query() || uri->has_fragment()) {
    return fail(
        "it has more than host, port and path; secrets would be seen by all in QEMU's "
        "arguments");
  }
  Segments path;
  for (const auto segment : uri->segments()) path.push_back(segment);
  if (uri->scheme() == "nbd") return nbd_node(*uri, path);
  if (std::ranges::find(path, "") != path.end()) return fail("a part of its path is empty");
  if (uri->scheme() == "iscsi") return iscsi_node(*uri, path);
  if (uri->scheme() == "nfs") return nfs_node(*uri, path);
  if (uri->scheme() == "rbd") return rbd_node(*uri, path);
  return fail("its scheme is none of nbd, iscsi, nfs, rbd");
}

}  // namespace

json to_json(const VolumeSpec& volume) {
  return {{"name", volume.name}, {"bus", to_text(volume.bus)}, {"uri", volume.uri}};
}

Result<VolumeSpec> volume_spec_from_json(const json& object) {
  const auto bus = parse_disk_bus(text_at(object, "bus"));
  if (!bus) return std::unexpected(bus.error());
  VolumeSpec volume{.name = text_at(object, "name"), .bus = *bus, .uri = text_at(object, "uri")};
  if (auto ok = check(volume); !ok) return std::unexpected(ok.error());
  return volume;
}

Result<> check(const VolumeSpec& volume) {
  if (!is_valid_name(volume.name) || volume.name.size() > kMaxDiskName) {
    return fail("\"{}\" is no valid name of a disk: at most {} characters", volume.name,
                kMaxDiskName);
  }
  if (volume.bus == DiskBus::pflash) {
    return fail("disk {}: firmware's variables are kept beside the vm's disks", volume.name);
  }
  if (volume.uri.size() > kMaxUri) return fail("disk {}: its URI is too long", volume.name);
  const auto node = server_node(volume.uri);
  if (!node) return fail("disk {}: \"{}\": {}", volume.name, volume.uri, node.error().text);
  return {};
}

std::vector<std::string> volume_nodes(const VolumeSpec& volume, const std::string& node,
                                      DiskAccess access) {
  const bool is_read_only = access == DiskAccess::look || volume.bus == DiskBus::cdrom;
  const json both = {{"read-only", is_read_only}, {"discard", "unmap"}};
  json server = server_node(volume.uri).value();
  server.update(both);
  server["node-name"] = file_node(node);
  json disk = both;
  disk.update({{"driver", "raw"}, {"node-name", node}, {"file", file_node(node)}});
  return {server.dump(), disk.dump()};
}

std::vector<std::string> missing_volume_drivers() {
  std::vector<std::string> missing{"nbd", "iscsi", "nfs", "rbd"};
  const auto done = os::run({.argv = {"qemu-img", "--help"}});
  if (!done) return missing;
  const std::size_t formats = std::min(done->out.find("Supported formats:"), done->out.size());
  std::istringstream words(done->out.substr(formats));
  for (std::string word; words >> word;) std::erase(missing, word);
  return missing;
}

}  // namespace godwit::qemu
