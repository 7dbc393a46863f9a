#include "agent_moves.hh"

namespace godwit::sim {

namespace {

constexpr Nanoseconds kPump = milliseconds(20);    // of what a lane carries
constexpr Nanoseconds kStandBound = seconds(5);    // as in agent/source_memory.cc
constexpr Nanoseconds kDialTimeout = seconds(10);  // as in session/dial.hh

}  // namespace

// ---- the source's memory: stages of a stream over a lane ----

void Agent::allow_switchover(SourceMove& move) {
  if (move.stage != SourceMove::Stage::bulk || !cloud_.process(move.process())) return;
  cloud_.pause(move.process());
  move.stage = SourceMove::Stage::rest;
  move.left = cloud_.dice().between(milliseconds(5), milliseconds(120));
  move.stands_since = cloud_.world().now();
}

void Agent::pump(SourceMove& move) {
  using Stage = SourceMove::Stage;
  if (move.stage == Stage::none || move.stage == Stage::over) return;
  World& world = cloud_.world();
  const Agent* other = cloud_.agent(move.to());
  const bool reachable =
      other && !world.is_cut(host_, move.to()) &&
      (other->takes_stream(move.id()) || !move.continued || move.stage == Stage::follows);
  if (!reachable) {
    move.lane_up = false;
    move.lane_due = {};
    if (!move.lane_was_up && world.now() - move.dialled > kDialTimeout) {
      return move.queue.feed(SE::memory_failed, "cannot open a lane");
    }
  } else if (move.lane_due == Instant{}) {
    move.lane_due = world.now() + (move.lane_was_up
                                       ? cloud_.dice().between(milliseconds(200), seconds(2))
                                       : cloud_.dice().between(milliseconds(5), milliseconds(200)));
  } else if (world.now() >= move.lane_due) {
    move.lane_up = move.lane_was_up = true;
  }
  if (move.stage == Stage::rest && world.now() - move.stands_since > kStandBound) {
    return move.queue.feed(SE::memory_failed, "its last memory did not leave");
  }
  const SS state = move.machine.state();
  const bool waits =
      move.stage == Stage::follows && state != SS::committed && state != SS::draining;
  const bool moves = move.lane_up && !waits && (move.stage != Stage::bulk || move.continued) &&
                     move.stage != Stage::stands &&
                     (cloud_.process(move.process()) || move.stage == Stage::end);
  if (moves && move.left > Nanoseconds{}) {
    move.left -= kPump;
    if (move.left <= Nanoseconds{}) stage_over(move);
  }
  after(kPump, [this, &move] { pump(move); });
}

// All that the guest needs to run has come; the rest of its memory follows.
void Agent::package_over(SourceMove& move) {
  move.stage = SourceMove::Stage::follows;
  move.left = cloud_.dice().between(milliseconds(100), seconds(3));
  const std::uint64_t memory = cloud_.process(move.process())->memory;
  cloud_.world().after(
      cloud_.world().delay(host_, move.to()), [this, to = move.to(), id = move.id(), memory] {
        Agent* other = cloud_.agent(to);
        TargetMove* arrived = other ? other->target(id) : nullptr;
        const auto process = arrived ? other->arriving(*arrived) : std::nullopt;
        if (!process || !arrived->has_link || !cloud_.process(*process)) return;
        cloud_.process(*process)->loaded = true;
        cloud_.process(*process)->memory = memory;
        other->after(other->moment(milliseconds(60)),
                     [other, number = *process, id] { other->process_loaded(number, id); });
        other->stream_verified(id);
      });
}

void Agent::stage_over(SourceMove& move) {
  using Stage = SourceMove::Stage;
  World& world = cloud_.world();
  const Nanoseconds way = world.delay(host_, move.to());
  const auto at_target = [this, to = move.to()](Nanoseconds delay, auto call) {
    cloud_.world().after(delay, [this, to, call] {
      if (Agent* other = cloud_.agent(to)) call(*other);
    });
  };
  switch (move.stage) {
    case Stage::bulk:  // and stays: rounds go on until the switchover is allowed
      return move.queue.feed(SE::converged, {});
    case Stage::rest:
      move.stage = Stage::stands;
      return move.queue.feed(SE::at_pre_switchover, {});
    case Stage::follows:
      move.stage = Stage::over;
      return move.queue.feed(SE::memory_completed, {});
    case Stage::device: {
      if (move.postcopy()) return package_over(move);
      move.stage = Stage::back;
      move.left = 2 * way + kPump;
      const std::uint64_t memory = cloud_.process(move.process())->memory;
      return at_target(way, [this, id = move.id(), memory](Agent& other) {
        TargetMove* arrived = other.target(id);
        const auto process = arrived ? other.arriving(*arrived) : std::nullopt;
        if (!process || !arrived->has_link || !cloud_.process(*process)) return;
        cloud_.process(*process)->loaded = true;
        cloud_.process(*process)->memory = memory;
        // QEMU's word to its agent, which the source's commit may overtake.
        other.after(other.moment(milliseconds(60)),
                    [&other, number = *process, id] { other.process_loaded(number, id); });
      });
    }
    case Stage::back: {
      // QEMU has completed; the agent learns that and the end of the stream in either order.
      move.stage = Stage::end;
      move.left = cloud_.dice().between(milliseconds(1), milliseconds(50));
      const bool end_first = cloud_.dice().happens(0.5);
      const TargetMove* arrived =
          cloud_.agent(move.to()) ? cloud_.agent(move.to())->target(move.id()) : nullptr;
      const auto process = arrived ? cloud_.agent(move.to())->arriving(*arrived) : std::nullopt;
      if (!process || !cloud_.process(*process) || !cloud_.process(*process)->loaded) {
        move.stage = Stage::over;
        return move.queue.feed(SE::memory_failed, "the target's QEMU did not take it");
      }
      if (end_first) stage_over(move);
      return after(moment(end_first ? milliseconds(60) : milliseconds(3)),
                   [&move] { move.queue.feed(SE::memory_completed, {}); });
    }
    case Stage::end:
      move.stage = Stage::over;
      return at_target(way, [id = move.id()](Agent& other) { other.stream_verified(id); });
    default:
      return;
  }
}

}  // namespace godwit::sim
