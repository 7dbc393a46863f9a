#pragma once
// The migration stream of a vm that runs on, for those who study it: QEMU migrates into a socket of
// ours, and what it writes goes over an upgraded connection until the client has enough.
//
//   u32 count | count bytes of QEMU's stream | ... | u32 0 | how it ended: JSON, until the end
//
//   recording --> letting go --> telling --> over
//
// letting go: the client finished or left, nothing moves, QEMU ended; its socket closes, and the
// guest is seen running. telling: the last frame is on its way. A vm that is recorded cannot move
// (Vm::recorded): QEMU has one outgoing migration. Control thread.
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/migrations.hh"
#include "agent/vms.hh"
#include "http/responder.hh"
#include "os/socket.hh"
#include "qemu/migration.hh"

namespace godwit::agent {

class Recording final {
 public:
  // `over`: nothing is left to do; may destroy the object.
  Recording(os::Loop& loop, Vm& vm, std::unique_ptr<os::ByteStream> client,
            std::function<void()> over);

 private:
  enum class State { recording, letting_go, telling, over };
  // Why it ends. `still`: QEMU had nothing left to send, so that it paused the guest.
  enum class Outcome { enough, still, failed };
  static const char* to_text(Outcome outcome);

  void begin_qemu();
  void use_qemu(std::unique_ptr<os::ByteStream> stream);
  void on_event(const qemu::QmpEvent& event);
  void pump();
  bool write_waiting();
  void let_go(Outcome outcome, std::string text);
  void tell(bool running);
  void end();

  os::Loop& loop_;
  Vm& vm_;
  std::unique_ptr<os::ByteStream> client_;
  std::function<void()> over_;
  State state_ = State::recording;
  std::unique_ptr<os::Listener> listener_;
  std::unique_ptr<os::ByteStream> qemu_;
  std::unique_ptr<qemu::OutgoingMigration> outgoing_;
  Vm::Subscription subscription_;
  Bytes waiting_;  // for the client: one frame
  std::size_t written_ = 0;
  std::uint64_t passed_ = 0;  // bytes of QEMU's
  Outcome outcome_ = Outcome::enough;
  std::string text_;
  Instant stopped_{};
  Nanoseconds paused_{};
  os::Loop::Timer stall_timer_, turn_, soon_;
  std::shared_ptr<bool> mark_ = std::make_shared<bool>(true);
};

class Recordings final {
 public:
  static constexpr const char* kProtocol = "migration-stream";

  Recordings(os::Loop& loop, Vms& vms, const Migrations& migrations)
      : loop_(loop), vms_(vms), migrations_(migrations) {}

  // Answers: 409 for a vm that cannot be recorded now, or the connection becomes a recording.
  void open(const std::string& name, const http::Request& request, http::Responder responder);

 private:
  Result<Vm*> vm_to_record(const std::string& name);
  void begin(const std::string& name, std::unique_ptr<os::ByteStream> client);

  os::Loop& loop_;
  Vms& vms_;
  const Migrations& migrations_;
  std::map<std::string, std::unique_ptr<Recording>> recordings_;  // by vm
};

}  // namespace godwit::agent
