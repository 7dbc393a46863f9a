#pragma once
// A libvirt domain's move, at its target: the other end of what LibvirtSource opens. libvirt makes
// the domain and its disks here, and leaves it paused; the source's word lets it run.
//
//   preparing -> owner        by libvirt.commit: the domain is not at the source any more
//       '------> refused      by libvirt.abort, or when it cannot come: nothing of it stays
//
// Control thread.
#include <memory>
#include <string>
#include <vector>

#include "agent/disk_target.hh"
#include "agent/libvirt_program.hh"
#include "agent/libvirt_record.hh"
#include "agent/libvirt_tunnel.hh"
#include "agent/source_move.hh"

namespace godwit::agent {

// Why the domain cannot come to this host, as godwit-libvirt's "look" found it; empty: it can.
std::vector<std::string> obstacles_here(store::Store& store, const libvirt::Domain& domain,
                                        const nlohmann::json& found);

class LibvirtTarget final {
 public:
  LibvirtTarget(const SourceMove::Context& context, LibvirtTargetRecord record);
  ~LibvirtTarget();

  // Answers when the domain may come.
  void prepare(PeerRequest request, const std::optional<codec::Settings>& codec);
  void commit(PeerRequest request);
  void abort(PeerRequest request, const std::string& reason);

  // Another move of the domain comes: nothing of it is this one's any more.
  void supersede();

  const LibvirtTargetRecord& record() const { return record_; }
  bool is_live() const { return link_ != nullptr; }  // not of an earlier agent
  // True: it is one of this move's.
  bool use_lane(const stream::Hello& hello, std::unique_ptr<os::ByteStream>& lane, BytesView early);
  nlohmann::json describe() const;

 private:
  void enter(migrate::TargetState state);
  void looked(const nlohmann::json& found, const std::optional<codec::Settings>& codec);
  void open(const std::optional<codec::Settings>& codec);
  void fail_with(const std::string& why);
  void runs(const Result<nlohmann::json>& outcome);
  void reply(const Result<nlohmann::json>& answer);
  void remove_disks(const PeerRequest& request);
  void close();

  const SourceMove::Context context_;
  LibvirtTargetRecord record_;
  LibvirtSockets sockets_;
  std::unique_ptr<TransferLink> link_;
  std::unique_ptr<DiskTarget> disks_;
  std::unique_ptr<TunnelExit> tunnel_;
  std::unique_ptr<LibvirtProgram> program_;
  std::unique_ptr<LibvirtProgram> resume_;  // connected to libvirt when its moment comes
  std::optional<PeerRequest> preparing_;
  std::vector<PeerRequest> waiting_;
  double cpu_at_begin_ = 0;
  Instant asked_{};
  Nanoseconds resume_took_{};
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent
