#pragma once
// A look at volumes of vms, as their servers have them: before a move, to see that both hosts reach
// them, and that they are the same. A name may be another server's at the other site, and two
// volumes may have the same size; nothing may be written to find that out, as with a file on shared
// storage (storage_marker.hh). So both hosts read the same few blocks.
#include <functional>
#include <list>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/config.hh"
#include "crypto/keyed_hash.hh"
#include "os/loop.hh"
#include "qemu/volume.hh"

namespace godwit::agent {

// Of the disks that a request to run a vm asks for: those with a "uri".
bool is_volume(const nlohmann::json& disk);
Result<std::vector<qemu::VolumeSpec>> volumes_of(const nlohmann::json& disks);

struct VolumeSight {
  struct Block {
    std::uint64_t offset = 0;  // bytes
    crypto::KeyedHash::Digest digest{};
    bool operator==(const Block&) const = default;
  };
  ByteCount size{};
  std::vector<Block> blocks{};
  bool operator==(const VolumeSight&) const = default;
};
using VolumeSights = std::vector<VolumeSight>;  // of a vm's volumes, in their order

nlohmann::json to_json(const VolumeSights& sights);
Result<VolumeSights> volume_sights(const nlohmann::json& json);

// Whether what another host saw is the same as what was seen here before that, and after it: what
// the guest wrote meanwhile tells nothing, and something has to. Empty: it is; else why not.
std::string difference(const VolumeSight& before, const VolumeSight& after,
                       const VolumeSight& theirs);

class Volumes final {
 public:
  Volumes(os::Loop& loop, const Config& config);
  ~Volumes();

  // `done` is called once, later: with all of them, or what is wrong with one. The digests are made
  // with `key`. Of `where` there are the offsets; empty: they are chosen here.
  // A volume that nothing is on yet is an error.
  using Done = std::function<void(Result<VolumeSights>)>;
  void look(const std::vector<qemu::VolumeSpec>& volumes, BytesView key, const VolumeSights& where,
            Done done);
  // Only whether each can be opened. Of none: at once.
  void reach(const std::vector<qemu::VolumeSpec>& volumes, std::function<void(Result<>)> done);

 private:
  class Look;
  enum class Blocks { none, chosen, given };

  void begin(const std::vector<qemu::VolumeSpec>& volumes, BytesView key, const VolumeSights& where,
             Blocks blocks, Done done);

  os::Loop& loop_;
  const Config& config_;
  std::uint64_t looks_ = 0;
  std::list<std::unique_ptr<Look>> under_way_;
};

}  // namespace godwit::agent
