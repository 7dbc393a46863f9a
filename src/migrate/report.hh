#pragma once
// What a migration cost, in parts that add up: total = preparation + rounds + pause (+ what lies
// between, named), pause = its five parts. Times are of the source's monotonic clock.
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/units.hh"

namespace godwit::migrate {

struct Round {
  std::uint64_t round = 0;  // from 1
  std::uint64_t bytes = 0;  // of QEMU's stream
  Nanoseconds duration{};
};

// Readings taken as the hand-over passes them; zero = not reached.
struct Milestones {
  Instant begun{};
  Instant disks{};                 // the vm's disks, if it has any: copying them began
  Instant copying{};               // first byte asked of QEMU
  Instant stopped{};               // STOP: the vCPUs stand
  Instant pre_switchover{};        // QEMU waits for the ports; most of what was dirty has left
  Instant ports_paused{};          // last frames forwarded, EOF sent
  Instant disks_settled{};         // all of them is at the target, on stable storage
  Instant memory_ended{};          // the last RAM section has passed the relay
  Instant completed{};             // QEMU: the target has loaded everything
  Instant owned{};                 // the target's word that it runs
  Nanoseconds resume_at_target{};  // of the target's clock: cont to RESUME
  Nanoseconds runs_at_target{};    // and from there to its word
  Nanoseconds rtt{};
};

// What an encoding was given and what it left. `zstd` comes after all others.
struct EncodingUse {
  std::string name;
  std::uint64_t pages = 0;  // of `opaque`: pieces; of `zstd`: 0
  std::uint64_t bytes = 0, encoded_bytes = 0;
};

// Of a vm with disks.
struct DiskReport {
  std::uint64_t total_bytes = 0;      // to send or to compare as the move began
  std::uint64_t sent_bytes = 0;       // for them and for what the guest wrote meanwhile, compressed
  std::uint64_t same_bytes = 0;       // of the first, or what the target had and the source not
  std::uint64_t elsewhere_bytes = 0;  // of the first, that the target had, but not on these disks
  Nanoseconds copying{};              // until the memory's turn came
  Nanoseconds settling{};             // the part of the pause that only they took
  // The guest's writes while they were kept in step, and before the move; zero: there were none.
  Nanoseconds mean_write{}, slowest_write{}, usual_write{};
};

struct Report {
  Nanoseconds preparation{}, copying{}, pause{}, total{};
  std::optional<Nanoseconds> memory_followed;  // post-copy: from there on, until it had all
  std::optional<Nanoseconds> predicted_pause;  // as the guest was stopped; none if QEMU stopped it
  std::optional<DiskReport> disks;
  // Parts of the pause, with disks->settling. network: draining the guest's frames; final_memory:
  // the last dirty pages; device_state: the rest of QEMU's stream, its load and the word back;
  // commit: journals and the message; resume: cont at the target.
  Nanoseconds network{}, final_memory{}, device_state{}, commit{}, resume{};
  std::vector<Round> rounds;
  std::vector<EncodingUse> encodings;  // empty: none was used
  std::uint64_t memory_bytes = 0;      // QEMU's stream
  std::uint64_t wan_bytes = 0;         // with framing, as the lane sent them
  double source_cpu_seconds = 0, target_cpu_seconds = 0;
  std::uint64_t held_frames = 0, held_dropped = 0;
};

// The pause ends when the guest runs at the target: the target's word took half a round trip.
void fill_times(Report& report, const Milestones& at);

nlohmann::json to_json(const Report& report);
nlohmann::json to_json(const std::vector<EncodingUse>& encodings);

}  // namespace godwit::migrate
