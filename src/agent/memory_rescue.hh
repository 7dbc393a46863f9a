#pragma once
// A post-copy whose transfer was lost with one of the two agents: QEMU's own recovery, driven from
// the source. The vm runs at the target, or waits there for a page.
//
//   MemoryRescue (source)                         TargetRescue
//   migrate-pause, if QEMU has not noticed
//   migration.recover {id, transfer} ───────────▶ closes what it has; migrate-recover, out of band
//                                    ◀─────────── recovers | complete
//   a new transfer, not encoded; migrate resume
//   completed()
//
// A link that fails is no matter of these: the transfer itself survives it.
//
// QEMU before 8.2 dies at the target if its connection closes between migrate-recover and the end
// of the two QEMUs' handshake: an attempt that has come so far is not given up for a better one.
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "agent/lane_dialer.hh"
#include "agent/transfer_link.hh"
#include "agent/vm.hh"
#include "os/socket.hh"
#include "qemu/commands.hh"

namespace godwit::agent {

class MemoryRescue final {
 public:
  struct Settings {
    MigrationId id;
    std::string to;  // host
    std::optional<BitRate> bandwidth;
  };
  struct Events {
    std::function<void()> completed;  // the target has all
  };
  // It goes on until it has succeeded: there is nobody else to turn to.
  MemoryRescue(os::Loop& loop, Vm& vm, Peers& peers, Settings settings, Events events);

  void set_bandwidth(std::optional<BitRate> cap);
  // The target's agent has no transfer: it is another one, or has not heard of ours yet.
  void target_has_none();
  std::uint64_t remaining_bytes() const { return remaining_bytes_; }
  bool lane_up() const { return link_ && link_->has_lane(); }

 private:
  void look();
  void again(const std::string& why);
  void act(const qemu::MigrationInfo& info);
  void ask_target();
  void connect(const stream::TransferId& transfer);
  template <class Function>
  auto guarded(Function function);

  os::Loop& loop_;
  Vm& vm_;
  Peers& peers_;
  Settings settings_;
  Events events_;
  std::unique_ptr<LaneDialer> dialer_;
  std::unique_ptr<TransferLink> link_;
  std::unique_ptr<os::Listener> listener_;
  bool connected_ = false, asking_ = false;
  std::optional<stream::TransferId>
      asked_;  // of the attempt; the same when its request is repeated
  std::uint64_t remaining_bytes_ = 0;
  os::Loop::Timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// The out-of-band connection to the QEMU that takes a vm in. QEMU keeps our end of it, too, so that
// an agent that comes after us has one that was negotiated: in post-copy its main loop may wait for
// a page, and nothing new can be negotiated then.
class TargetRescue final {
 public:
  using Ready = std::function<void(Result<>)>;
  using Recovered = std::function<void(Result<std::unique_ptr<os::ByteStream>>)>;

  TargetRescue(os::Loop& loop, Vm& vm, Ready ready);
  // QEMU's new connection, for the source's to go to.
  void recover(Recovered recovered);
  bool recovers() const { return recovered_ != nullptr; }

 private:
  void attempt();
  void finish(Result<std::unique_ptr<os::ByteStream>> result);

  os::Loop& loop_;
  Vm& vm_;
  std::unique_ptr<qemu::Qmp> qmp_;
  Recovered recovered_;
  int attempts_ = 0;
  os::Loop::Timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent
