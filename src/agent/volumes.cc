#include "agent/volumes.hh"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "agent/records.hh"
#include "qemu/block_client.hh"
#include "qemu/json.hh"
#include "qemu/launch.hh"
#include "qemu/storage_daemon.hh"

namespace godwit::agent {
namespace {

constexpr std::uint64_t kBlock = 4096;  // bytes; less at the end
// Where the identity of what is on a disk is: of partition tables and most file systems, of btrfs,
// of a file system in a first partition.
constexpr std::uint64_t kTelling[] = {0, 64ULL << 10, 1ULL << 20};
constexpr std::size_t kBlocks = 64;  // with others of chance; where data are not every server tells
constexpr std::size_t kMostBlocks = 256;
constexpr Nanoseconds kLookBound = seconds(10);
constexpr const char* kIsBlank =
    "nothing was found on it, so nothing would show that another host finds the same: a partition "
    "table or a file system is enough";

std::vector<std::uint64_t> chosen(ByteCount size) {
  const std::uint64_t blocks = (size.bytes + kBlock - 1) / kBlock;
  std::vector<std::uint64_t> offsets;
  for (const std::uint64_t offset : kTelling) {
    if (offset < size.bytes) offsets.push_back(offset);
  }
  std::random_device random;
  while (blocks > 0 && offsets.size() < kBlocks) {
    offsets.push_back(std::uniform_int_distribution<std::uint64_t>(0, blocks - 1)(random) * kBlock);
  }
  return offsets;
}

// {name, uri, bus?}: what a server has is as large as it is, and raw.
Result<qemu::VolumeSpec> volume_of(const nlohmann::json& asked) {
  for (const char* key : {"size", "image", "format"}) {
    if (!asked.contains(key)) continue;
    return fail("disk {}: {} is of no use with a URI", text_field_or(asked, "name", ""), key);
  }
  nlohmann::json volume = asked;
  if (!asked.contains("bus")) volume["bus"] = qemu::to_text(qemu::DiskBus::virtio);
  return qemu::volume_spec_from_json(volume);
}

}  // namespace

bool is_volume(const nlohmann::json& disk) { return disk.is_object() && disk.contains("uri"); }

Result<std::vector<qemu::VolumeSpec>> volumes_of(const nlohmann::json& disks) {
  std::vector<qemu::VolumeSpec> volumes;
  for (const auto& asked : disks) {
    if (!is_volume(asked)) continue;
    auto volume = volume_of(asked);
    if (!volume) return std::unexpected(volume.error());
    volumes.push_back(*std::move(volume));
  }
  return volumes;
}

nlohmann::json to_json(const VolumeSights& sights) {
  nlohmann::json all = nlohmann::json::array();
  for (const VolumeSight& sight : sights) {
    nlohmann::json blocks = nlohmann::json::array();
    for (const auto& block : sight.blocks) {
      blocks.push_back({{"offset", block.offset}, {"digest", to_hex(block.digest)}});
    }
    all.push_back({{"size_bytes", sight.size.bytes}, {"blocks", std::move(blocks)}});
  }
  return all;
}

Result<VolumeSights> volume_sights(const nlohmann::json& json) {
  if (!json.is_array() || json.size() > qemu::kMaxDisks) return fail("no list of volumes");
  VolumeSights sights;
  for (const auto& each : json) {
    VolumeSight sight{.size = {qemu::unsigned_at(each, "size_bytes")}};
    const auto& blocks = array_field(each, "blocks");
    if (blocks.size() > kMostBlocks) return fail("more than {} blocks of a volume", kMostBlocks);
    for (const auto& block : blocks) {
      const Bytes digest = from_hex(qemu::text_at(block, "digest"));
      sight.blocks.push_back({.offset = qemu::unsigned_at(block, "offset")});
      if (digest.size() != crypto::KeyedHash::kSize) return fail("a block's digest is none");
      std::ranges::copy(digest, sight.blocks.back().digest.begin());
    }
    sights.push_back(std::move(sight));
  }
  return sights;
}

std::string difference(const VolumeSight& before, const VolumeSight& after,
                       const VolumeSight& theirs) {
  if (theirs.size != after.size) {
    return fmt::format("it has {} bytes there and {} here", theirs.size.bytes, after.size.bytes);
  }
  if (before.blocks.size() != after.blocks.size() || theirs.blocks.size() != after.blocks.size()) {
    return "it cannot be read alike at both";
  }
  bool is_proved = false;
  for (std::size_t i = 0; i < after.blocks.size(); ++i) {
    if (before.blocks[i] != after.blocks[i]) continue;
    is_proved = true;
    if (theirs.blocks[i] != after.blocks[i]) {
      return fmt::format("other contents at byte {}", after.blocks[i].offset);
    }
  }
  return is_proved ? "" : "all that was looked at is written to meanwhile; try again";
}

// All volumes of one vm; ended by its end(), from the loop, which destroys it.
class Volumes::Look final {
 public:
  using Ended = std::function<void(Look*, Result<VolumeSights>)>;

  Look(os::Loop& loop, std::vector<qemu::VolumeSpec> volumes, BytesView key, VolumeSights where,
       Blocks blocks, std::filesystem::path directory, Ended ended)
      : loop_(loop),
        volumes_(std::move(volumes)),
        digest_(key),
        sights_(std::move(where)),
        blocks_(blocks),
        directory_(std::move(directory)),
        ended_(std::move(ended)),
        parts_(volumes_.size()) {
    sights_.resize(volumes_.size());
    bound_ = loop_.after(kLookBound, [this] {
      end(fail("no answer from {} for {}", waiting_for(), to_text(kLookBound)));
    });
    for (std::size_t i = 0; i < volumes_.size(); ++i) open(i);
    maybe_done();
  }
  ~Look() {
    parts_.clear();
    std::error_code ignored;
    for (std::size_t i = 0; i < volumes_.size(); ++i) {
      std::filesystem::remove_all(directory_of(i), ignored);
    }
  }

 private:
  struct Part {
    std::unique_ptr<qemu::StorageDaemon> daemon;
    std::vector<Bytes> blocks{};
    std::size_t to_read = 0;
    bool is_done = false;
    std::unique_ptr<qemu::BlockClient> client;  // ends first, as it reads into the blocks
  };

  std::filesystem::path directory_of(std::size_t i) const {
    return fmt::format("{}-{}", directory_.string(), i);
  }
  std::string waiting_for() const {
    const auto waiting = std::ranges::find(parts_, false, &Part::is_done);
    return volumes_[static_cast<std::size_t>(waiting - parts_.begin())].uri;
  }

  void open(std::size_t i) {
    const auto socket = qemu::place_for_socket(directory_of(i));
    if (!socket) return fail_with(i, socket.error().text);
    Part& part = parts_[i];
    try {
      part.daemon = std::make_unique<qemu::StorageDaemon>(
          loop_, std::vector{volumes_[i]}, *socket,
          [this, i](const std::string& why) { fail_with(i, why); });
    } catch (const SetupError& error) {
      return fail_with(i, error.what());
    }
    part.client = std::make_unique<qemu::BlockClient>(loop_, socket->string(), qemu::disk_node(0),
                                                      [this, i](const Result<>& ready) {
                                                        if (!ready)
                                                          return;  // the daemon ends, and says why
                                                        begin(i);
                                                      });
  }

  void begin(std::size_t i) {
    VolumeSight& sight = sights_[i];
    sight.size = parts_[i].client->size();
    if (blocks_ == Blocks::chosen) {
      for (const auto offset : chosen(sight.size)) sight.blocks.push_back({.offset = offset});
    }
    // Of one that is smaller there is less to see; its size tells.
    std::erase_if(sight.blocks,
                  [&](const auto& block) { return block.offset >= sight.size.bytes; });
    read(i);
  }

  // All at once: each takes a round trip.
  void read(std::size_t i) {
    Part& part = parts_[i];
    part.blocks.resize(sights_[i].blocks.size());
    part.to_read = part.blocks.size();
    for (std::size_t at = 0; at < part.blocks.size(); ++at) {
      const std::uint64_t offset = sights_[i].blocks[at].offset;
      part.blocks[at].resize(std::min(kBlock, sights_[i].size.bytes - offset));
      part.client->read(offset, part.blocks[at], [this, i](const Result<>& done) {
        if (!done) return fail_with(i, done.error().text);
        if (--parts_[i].to_read == 0) all_read(i);
      });
    }
    if (part.blocks.empty()) all_read(i);
  }

  void all_read(std::size_t i) {
    auto& blocks = sights_[i].blocks;
    for (std::size_t at = 0; at < blocks.size(); ++at) {
      blocks[at].digest = digest_(parts_[i].blocks[at]);
    }
    if (blocks_ == Blocks::chosen) {
      std::size_t at = 0;
      std::erase_if(blocks, [&](const auto&) { return is_all_zeros(parts_[i].blocks[at++]); });
      if (blocks.empty()) return fail_with(i, kIsBlank);
    }
    parts_[i].is_done = true;
    maybe_done();
  }

  void maybe_done() {
    if (std::ranges::all_of(parts_, &Part::is_done)) end(sights_);
  }
  void fail_with(std::size_t i, const std::string& why) {
    end(fail("volume {} at {}: {}", volumes_[i].name, volumes_[i].uri, why));
  }
  void end(Result<VolumeSights> outcome) {
    if (std::exchange(is_over_, true)) return;
    bound_.reset();
    loop_.post([this, outcome = std::move(outcome), alive = std::weak_ptr(alive_)]() mutable {
      if (alive.expired()) return;
      const Ended ended = std::move(ended_);  // it destroys this
      ended(this, std::move(outcome));
    });
  }

  os::Loop& loop_;
  std::vector<qemu::VolumeSpec> volumes_;
  crypto::KeyedHash digest_;
  VolumeSights sights_;
  Blocks blocks_;  // chosen: zeroes tell nothing
  std::filesystem::path directory_;
  Ended ended_;
  bool is_over_ = false;
  os::Loop::Timer bound_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::vector<Part> parts_;
};

Volumes::Volumes(os::Loop& loop, const Config& config) : loop_(loop), config_(config) {}
Volumes::~Volumes() = default;

void Volumes::look(const std::vector<qemu::VolumeSpec>& volumes, BytesView key,
                   const VolumeSights& where, Done done) {
  begin(volumes, key, where, where.empty() ? Blocks::chosen : Blocks::given, std::move(done));
}

void Volumes::reach(const std::vector<qemu::VolumeSpec>& volumes,
                    std::function<void(Result<>)> done) {
  if (volumes.empty()) return done({});
  const std::array<std::byte, crypto::KeyedHash::kKeySize> key{};
  begin(volumes, key, {}, Blocks::none, [done = std::move(done)](const Result<VolumeSights>& seen) {
    done(seen ? Result<>{} : std::unexpected(seen.error()));
  });
}

void Volumes::begin(const std::vector<qemu::VolumeSpec>& volumes, BytesView key,
                    const VolumeSights& where, Blocks blocks, Done done) {
  under_way_.push_back(std::make_unique<Look>(
      loop_, volumes, key, where, blocks, config_.run_dir / "volumes" / std::to_string(++looks_),
      [this, done = std::move(done)](const Look* look, Result<VolumeSights> outcome) {
        under_way_.remove_if([look](const auto& each) { return each.get() == look; });
        done(std::move(outcome));
      }));
}

}  // namespace godwit::agent
