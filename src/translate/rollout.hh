#pragma once
// Takes the devices of a guest's move from phase to phase: a step is what a device shall have for
// the guest, sent until it says that it has it. So a request that is lost, comes twice or late, a
// device that was rebooted and a driver that was restarted need nothing of their own.
//
//   stage() ─▶ all have it ─▶ flip(), with the commit ─▶ the source's host, all
//     │                                         ─▶ settle(), when it is quiet ─▶ it, all
//     └─ one refuses, or has not answered in time: undo() ─▶ all
//
// Once flipped there is no way back: a device that refuses then is asked again and named. Pure.
#include <set>
#include <string>

#include "base/units.hh"
#include "translate/move_tables.hh"

namespace godwit::translate {

// Of what a device has for a guest; the greater one wins. Moves of a guest have growing epochs,
// and the phases of one follow each other.
struct Version {
  std::uint64_t epoch = 0;
  Phase phase = Phase::before;
  auto operator<=>(const Version&) const = default;
};

inline constexpr Nanoseconds kAskAgain = seconds(1);

class Rollout final {
 public:
  // `reached`: by all devices, by the journal of whoever drives it.
  Rollout(const Fabric& fabric, const GuestMove& move, std::uint64_t epoch,
          Phase reached = Phase::before);

  void stage() { go_to(Phase::staged); }
  void flip() { go_to(Phase::flipped); }
  void settle() { go_to(Phase::settled); }
  void undo();  // before flip()

  // It cannot be reached: the others' steps do not wait for it. What it shall have it is still
  // asked to take, when it is back.
  void abandon(DeviceIndex device);

  // What is to be sent now; the same again after kAskAgain.
  struct Request {
    DeviceIndex device = 0;
    Version version{};
    Rules rules{};
  };
  std::vector<Request> due(Instant now);
  // When due() has something again; none if nothing is waited for.
  std::optional<Instant> next() const;

  void has(DeviceIndex device, const Version& version);
  void refused(DeviceIndex device, const Version& version, std::string why);

  const GuestMove& move() const { return move_; }
  Phase reached() const { return reached_; }
  Phase wanted() const { return wanted_; }
  bool is_reached() const { return reached_ == wanted_; }
  bool is_waiting() const { return !waiting_.empty(); }  // for abandoned ones, too
  // Devices that do not have the current step yet, and what they last said; empty: nothing.
  std::vector<std::pair<DeviceIndex, std::string>> missing() const;
  bool is_refused() const;

 private:
  struct Waiting {
    Phase phase = Phase::before;
    Rules rules{};
    std::optional<Instant> asked{};
    std::string refusal{};
  };
  void go_to(Phase phase);
  void begin_step();
  void advance();
  bool is_step_done() const;
  Phase next_phase() const;

  const Fabric& fabric_;
  GuestMove move_;
  std::uint64_t epoch_;
  std::vector<DeviceIndex> devices_;
  Phase reached_, step_, wanted_;
  std::map<DeviceIndex, Waiting> waiting_;  // of step_; abandoned ones maybe of one before
  std::set<DeviceIndex> abandoned_;
};

}  // namespace godwit::translate
