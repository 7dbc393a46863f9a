#include "agent/disk_scan.hh"

#include <memory>

#include "qemu/snapshot_map.hh"

namespace godwit::agent {
namespace {

constexpr std::uint64_t kScanAtOnce = 1U << 30;  // bytes; QEMU tells of no more

struct Scanning {
  qemu::BlockClient& client;
  std::uint64_t size;  // bytes
  bool is_overlay;
  Scan what;
  std::function<void(disk::Extent)> has;
  qemu::BlockClient::Done done;
};

bool has(const Scanning& scan, const qemu::BlockClient::Part& part) {
  if (scan.what == Scan::dirty) return part.dirty;
  return scan.is_overlay ? part.own : !part.zero;
}

void go_on(const std::shared_ptr<Scanning>& scan, std::uint64_t offset) {
  if (offset == scan->size) return scan->done({});
  scan->client.status(offset, std::min(scan->size - offset, kScanAtOnce),
                      [scan, offset](const auto& parts) {
                        if (!parts) return scan->done(std::unexpected(parts.error()));
                        std::uint64_t at = offset;
                        for (const auto& part : *parts) {
                          if (has(*scan, part)) scan->has({.offset = at, .length = part.length});
                          at += part.length;
                        }
                        if (at == offset)
                          return scan->done(fail("QEMU does not tell what is on it"));
                        go_on(scan, at);
                      });
}

struct Mapping {
  qemu::BlockClient& client;
  qemu::SnapshotMap map;
  qemu::BlockClient::Done done;
  Bytes read{};
};

void go_on(const std::shared_ptr<Mapping>& mapping) {
  const auto wanted = mapping->map.wants();
  if (!wanted) return mapping->done({});
  mapping->read.resize(wanted->length);
  mapping->client.read(wanted->offset, mapping->read, [mapping](Result<> done) {
    if (done) done = mapping->map.take(mapping->read);
    if (!done) return mapping->done(std::move(done));
    go_on(mapping);
  });
}

}  // namespace

void scan_disk(qemu::BlockClient& client, const qemu::DiskSpec& disk, Scan what,
               std::function<void(disk::Extent)> has, qemu::BlockClient::Done done) {
  go_on(std::make_shared<Scanning>(client, disk.size.bytes, !disk.image.name.empty(), what,
                                   std::move(has), std::move(done)),
        0);
}

void scan_snapshots(qemu::BlockClient& client, ByteCount file,
                    std::function<void(disk::Extent)> has, qemu::BlockClient::Done done) {
  const auto tell = [has = std::move(has)](qemu::FilePart part) {
    has({.offset = part.offset, .length = part.length});
  };
  go_on(std::make_shared<Mapping>(client, qemu::SnapshotMap(file, tell), std::move(done)));
}

}  // namespace godwit::agent
