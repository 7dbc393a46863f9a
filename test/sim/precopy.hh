#pragma once
// Pre-copy played against a recorded guest, to compare stop policies on equal input: QEMU's rounds,
// the transfer's bounded backlog and a link whose rate swings are modelled; what decides is the
// real migrate::StopJudge. Nothing is random.
#include <string>
#include <vector>

#include "dirty_trace.hh"
#include "migrate/policy.hh"

namespace godwit::sim {

struct PlayedLink {
  BitRate rate{100'000'000};
  Nanoseconds rtt = milliseconds(40);
  double swing = 0.1;  // of the rate, up and down
};

struct PlayedMove {
  enum class End : std::uint8_t {
    fits,      // predicted to be within the limit
    over,      // it diverged, and a pause over the limit was allowed
    diverged,  // it was not
    endless,
  };
  End end = End::endless;
  std::uint64_t rounds = 0;
  double sent_bytes = 0;
  Nanoseconds total{}, pause{}, predicted_pause{};
};
std::string_view to_text(PlayedMove::End end);

PlayedMove play(const DirtyTrace& trace, const PlayedLink& link, migrate::PauseLimits limits);

// A line for each trace and policy; the traces are paused anyway when they diverge.
std::string stop_policy_table(const std::vector<DirtyTrace>& traces, const PlayedLink& link,
                              Nanoseconds max_downtime);

}  // namespace godwit::sim
