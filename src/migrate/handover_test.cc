// Drives Source and Target against each other through a lossy, reordering message queue, kills
// either agent between any two effects and restarts it from its journal, and looks after every step
// for two running instances. Disks are full now and then. Each seed is one history; time is in
// test/sim.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <random>

#include "migrate/points.hh"
#include "migrate/source.hh"
#include "migrate/target.hh"

namespace godwit::migrate {
namespace {

using SE = SourceEvent;
using SF = SourceEffect;
using TE = TargetEvent;
using TF = TargetEffect;

// The world that outlives both agents: two QEMUs, two journals, the messages under way.
class World {
 public:
  explicit World(unsigned seed) : random_(seed), severity_(seed % kSeverities) {}

  void run() {
    start_source(SE::begin);
    for (int step = 0; step < 400 && !settled(); ++step) {
      random_step();
      EXPECT_FALSE(source_runs_ && target_runs_) << "two running instances";
    }
    // The storm is over: everyone is up and messages arrive.
    calm_ = true;
    for (int step = 0; step < 400 && !settled(); ++step) {
      random_step();
      EXPECT_FALSE(source_runs_ && target_runs_) << "two running instances";
    }
    EXPECT_TRUE(settled()) << to_text(source_journal_) << " / " << to_text(target_journal_);
    EXPECT_TRUE(source_runs_ != target_runs_) << "exactly one instance at the end";
    EXPECT_EQ(target_runs_, source_journal_ == SourceState::done);
  }

  int moves() const { return target_runs_ ? 1 : 0; }

 private:
  enum class Message { prepare, prepared, commit, abort, owns, refuses, failed };

  // Histories range from fair weather (0) to a storm in which hardly any move succeeds.
  static constexpr unsigned kSeverities = 6;
  bool chance(unsigned percent) {
    return !calm_ && random_() % (100 * kSeverities) < percent * severity_;
  }
  bool settled() const {
    const bool target_knows = is_final(target_journal_) ||
                              target_journal_ == TargetState::planned ||
                              target_journal_ == TargetState::owner;
    return is_final(source_journal_) && source_ && target_ && target_knows;
  }

  // Also after a restart from its journal.
  bool target_never_runs() const {
    return target_journal_ <= TargetState::preparing || target_journal_ == TargetState::refused ||
           (target_journal_ == TargetState::loaded && !target_guest_);
  }

  void start_source(SE event) {
    source_.emplace(SourceOptions{}, source_journal_, abort_told_, memory_follows_);
    feed_source(event);
  }
  void start_target(TE event) {
    target_.emplace(target_journal_, refusal_told_);
    if (target_journal_ == TargetState::loaded && !target_guest_) feed_target(TE::guest_died);
    feed_target(event);
  }

  void feed_source(SE event) {
    if (source_) run(source_, source_->handle(event, "test"), [this] { kill_source(); });
  }
  void feed_target(TE event) {
    if (target_) run(target_, target_->handle(event, "test"), [this] { kill_target(); });
  }
  template <class Machine>
  void run(std::optional<Machine>& machine, std::vector<typename Machine::Effect> effects,
           const auto& kill) {
    for (std::size_t i = 0; i < effects.size(); ++i) {
      if (chance(3)) return kill();
      if (effects[i] == Machine::Effect::record && chance(2)) {
        effects = machine->record_failed("full");
        i = static_cast<std::size_t>(-1);
        continue;
      }
      perform(effects[i]);
    }
  }
  // As soon as the disk has room, at the latest in the calm.
  void write_notes() {
    if (chance(90)) return;
    if (source_) note_source();
    if (target_) note_target();
  }
  void note_source() {
    source_journal_ = source_->state();
    abort_told_ = source_->abort_told();
    memory_follows_ = source_->memory_follows();
  }
  void note_target() {
    target_journal_ = target_->state();
    refusal_told_ = target_->refusal_told();
  }

  void kill_source() {
    source_.reset();
    source_events_.clear();
  }
  void kill_target() {
    target_.reset();
    target_events_.clear();
  }

  void perform(SF effect) {
    switch (effect) {
      case SF::record:
        note_source();
        break;
      case SF::note:
        if (!chance(10)) note_source();
        break;
      case SF::prepare_target:
        to_target_.push_back(Message::prepare);
        break;
      case SF::start_memory:
        if (chance(2)) source_events_.push_back(SE::memory_failed);
        break;
      case SF::continue_memory:
        if (chance(20)) source_events_.push_back(SE::converged);
        source_runs_ = !chance(20);  // a guest that writes nothing is stopped by QEMU itself
        source_events_.push_back(source_runs_ ? SE::converged : SE::at_pre_switchover);
        break;
      case SF::pre_pause:
        source_events_.push_back(chance(5) ? SE::pre_pause_failed : SE::pre_pause_done);
        break;
      case SF::post_resume:
        ASSERT_EQ(source_->state(), SourceState::aborted);
        ASSERT_TRUE(source_runs_);
        break;
      case SF::allow_switchover:
        if (std::exchange(source_runs_, false)) source_events_.push_back(SE::at_pre_switchover);
        break;
      case SF::pause_ports:
        source_events_.push_back(SE::ports_paused);
        break;
      case SF::continue_switchover:
        if (!target_guest_) return source_events_.push_back(SE::memory_failed);
        target_loaded_ = true;
        target_events_.push_back(TE::loaded);
        source_events_.push_back(chance(30) ? SE::memory_follows : SE::memory_completed);
        break;
      case SF::release_ports:
      case SF::recover_memory:
        if (source_->memory_follows()) source_events_.push_back(SE::memory_completed);
        break;
      case SF::commit_target:
        to_target_.push_back(Message::commit);
        break;
      case SF::resume_guest:
        // A refusal need not be noted here: it is said again.
        ASSERT_TRUE(source_journal_ != SourceState::released || target_never_runs());
        source_runs_ = true;
        source_events_.push_back(SE::guest_resumed);
        break;
      case SF::abort_target:
        to_target_.push_back(Message::abort);
        break;
      case SF::tell_lost:
        FAIL() << "no QEMU died";
      case SF::end_guest:
        ASSERT_FALSE(source_runs_);
        ASSERT_FALSE(source_->memory_follows());
        source_events_.push_back(SE::guest_ended);
        break;
      case SF::wait:
        source_timer_ = true;
        break;
      case SF::cancel_memory:
      case SF::resume_ports:
      case SF::forget_guest:
        break;
    }
  }

  void perform(TF effect) {
    switch (effect) {
      case TF::record:
        note_target();
        break;
      case TF::note:
        if (!chance(10)) note_target();
        break;
      case TF::prepare_guest:
        target_guest_ = true;
        target_events_.push_back(TE::prepared);
        break;
      case TF::reply_prepared:
        to_source_.push_back(Message::prepared);
        break;
      case TF::run_guest:
        ASSERT_EQ(target_journal_, TargetState::owner);
        ASSERT_TRUE(target_loaded_);
        target_runs_ = true;
        target_events_.push_back(TE::guest_running);
        break;
      case TF::reply_owns:
        to_source_.push_back(Message::owns);
        break;
      case TF::reply_refuses:
        to_source_.push_back(Message::refuses);
        break;
      case TF::notify_failed:
        to_source_.push_back(Message::failed);
        break;
      case TF::discard_guest:
        ASSERT_FALSE(target_runs_);
        target_guest_ = target_loaded_ = false;
        break;
      case TF::take_commit:
        to_target_.push_back(Message::commit);
        break;
      case TF::wait:
        target_timer_ = true;
        break;
      case TF::post_resume:
        ASSERT_TRUE(target_runs_);
        break;
      case TF::run_ports:
        break;
    }
  }

  template <class T>
  std::optional<T> take(std::deque<T>& queue) {
    if (queue.empty()) return std::nullopt;
    const std::size_t at = chance(20) ? random_() % queue.size() : 0;
    const T taken = queue[at];
    if (!chance(10)) queue.erase(queue.begin() + static_cast<std::ptrdiff_t>(at));
    return taken;
  }

  void deliver_to_target() {
    const auto message = take(to_target_);
    if (!message || !target_) return;
    switch (*message) {
      // A journal that knows this migration answers prepare again only from `planned`.
      case Message::prepare:
        return feed_target(TE::begin);
      case Message::commit:
        // The agent looks at QEMU's pidfd before it hears a commit.
        if (target_journal_ == TargetState::loaded && !target_guest_) feed_target(TE::guest_died);
        return feed_target(TE::commit);
      default:
        return feed_target(TE::abort);
    }
  }
  void deliver_to_source() {
    const auto message = take(to_source_);
    if (!message) return;
    switch (*message) {
      case Message::prepared:
        return feed_source(SE::target_prepared);
      case Message::owns:
        return feed_source(SE::target_owns);
      case Message::refuses:
        feed_source(SE::abort_heard);  // if it answers that
        return feed_source(SE::target_refuses);
      default:
        feed_source(SE::target_failed);
        return feed_target(TE::failure_heard);
    }
  }

  void random_step() {
    write_notes();
    switch (random_() % 9) {
      case 0:
        return deliver_to_target();
      case 1:
        return deliver_to_source();
      case 2:
        if (const auto event = take(source_events_)) feed_source(*event);
        return;
      case 3:
        if (const auto event = take(target_events_)) {
          feed_target(*event == TE::loaded && !target_loaded_ ? TE::guest_died : *event);
        }
        return;
      case 4:
        if (chance(30)) to_target_.clear();
        if (chance(30)) to_source_.clear();
        return;
      case 5:
        if (!source_) return start_source(SE::restarted);
        if (chance(5)) return kill_source();
        feed_target(TE::session_up);
        return feed_source(SE::session_up);
      case 6:
        if (!target_) return start_target(TE::restarted);
        if (chance(5)) return kill_target();
        if (chance(2)) target_guest_died();
        return;
      case 7:
        if (chance(5)) return feed_source(SE::abort_requested);
        if (chance(5)) return feed_target(TE::give_up);
        return;
      default:
        // In the storm timers run out of order with everything else; in the calm they come last.
        if (!calm_ && !chance(20)) return;
        if (calm_ && !(to_source_.empty() && to_target_.empty() && source_events_.empty() &&
                       target_events_.empty())) {
          return;
        }
        if (std::exchange(source_timer_, false)) feed_source(SE::patience_ended);
        if (std::exchange(target_timer_, false)) feed_target(TE::patience_ended);
    }
  }

  void target_guest_died() {
    if (!target_guest_ || target_runs_) return;  // a running guest that dies is lost, as without us
    if (target_journal_ == TargetState::owner) return;
    target_guest_ = target_loaded_ = false;
    target_events_.push_back(TE::guest_died);
  }

  std::mt19937 random_;
  unsigned severity_;
  bool calm_ = false;
  std::optional<Source> source_;
  std::optional<Target> target_{std::in_place};
  SourceState source_journal_ = SourceState::planned;
  bool abort_told_ = true, memory_follows_ = false, refusal_told_ = true;
  TargetState target_journal_ = TargetState::planned;
  bool source_runs_ = true, target_runs_ = false;
  bool target_guest_ = false, target_loaded_ = false;
  bool source_timer_ = false, target_timer_ = false;
  std::deque<SE> source_events_;
  std::deque<TE> target_events_;
  std::deque<Message> to_source_, to_target_;
};

TEST(Handover, ExactlyOneInstanceWhateverCrashes) {
  int moves = 0;
  constexpr unsigned kSeeds = 20000;
  for (unsigned seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    World world(seed);
    world.run();
    moves += world.moves();
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(moves, static_cast<int>(kSeeds) / 10);
  EXPECT_LT(moves, static_cast<int>(kSeeds) * 9 / 10);
}

TEST(Source, HoldWaitsForCutover) {
  Source source({.hold = true});
  (void)source.handle(SE::begin);
  (void)source.handle(SE::target_prepared);
  EXPECT_EQ(source.handle(SE::converged), std::vector{SF::note});
  EXPECT_EQ(source.state(), SourceState::ready);
  const auto effects = source.handle(SE::cutover);
  EXPECT_EQ(effects, (std::vector{SF::note, SF::pre_pause}));
}

TEST(Source, HoldIsKeptAlsoByAMoveThatDiverges) {
  Source source({.hold = true, .pause_on_diverge = true});
  (void)source.handle(SE::begin);
  (void)source.handle(SE::target_prepared);
  EXPECT_EQ(source.handle(SE::diverged), std::vector{SF::note});
  EXPECT_EQ(source.state(), SourceState::ready);
  EXPECT_TRUE(source.handle(SE::pre_pause_done).empty());
  EXPECT_EQ(source.handle(SE::cutover), (std::vector{SF::note, SF::pre_pause}));
}

TEST(Source, TheHooksAgreeBeforeTheGuestMayStop) {
  for (const SE said : {SE::pre_pause_done, SE::pre_pause_failed}) {
    Source source({.pause_on_diverge = true});
    (void)source.handle(SE::begin);
    (void)source.handle(SE::target_prepared);
    EXPECT_EQ(source.handle(SE::converged), std::vector{SF::pre_pause});
    EXPECT_TRUE(source.handle(SE::diverged).empty());  // they are at it
    EXPECT_FALSE(source.switchover_allowed());
    const auto effects = source.handle(said, "no");
    if (said == SE::pre_pause_done) {
      EXPECT_EQ(effects, std::vector{SF::allow_switchover});
    } else {
      EXPECT_EQ(source.state(), SourceState::aborting);
      EXPECT_EQ(source.handle(SE::guest_resumed), (std::vector{SF::note, SF::post_resume}));
    }
  }
}

TEST(Source, AGuestThatQemuStopsByItselfIsNotLeftStanding) {
  for (const bool hold : {false, true}) {
    Source source({.hold = hold});
    (void)source.handle(SE::begin);
    (void)source.handle(SE::target_prepared);
    if (hold) (void)source.handle(SE::converged);
    EXPECT_EQ(source.state(), hold ? SourceState::ready : SourceState::copying);
    EXPECT_EQ(source.handle(SE::at_pre_switchover).back(), SF::pre_pause);
    EXPECT_EQ(source.handle(SE::pre_pause_done),
              (std::vector{SF::note, SF::pause_ports, SF::wait}));
    EXPECT_EQ(source.state(), SourceState::switching);
  }
}

// At the target runs what QEMU here still has the memory of.
Source in_postcopy(SourceState state = SourceState::switching) {
  Source source({}, state);
  EXPECT_EQ(source.handle(SE::memory_follows),
            (std::vector{SF::record, SF::commit_target, SF::wait}));
  return source;
}

TEST(Source, InPostcopyItsQemuGoesOnUntilAllMemoryHasFollowed) {
  Source source = in_postcopy();
  EXPECT_EQ(source.handle(SE::target_owns), (std::vector{SF::note, SF::release_ports, SF::wait}));
  EXPECT_EQ(source.handle(SE::patience_ended), (std::vector{SF::note, SF::wait}));
  EXPECT_TRUE(source.handle(SE::drained).empty());
  EXPECT_EQ(source.handle(SE::patience_ended), std::vector{SF::wait});
  EXPECT_TRUE(source.memory_follows());
  EXPECT_EQ(source.handle(SE::memory_completed),
            (std::vector{SF::note, SF::end_guest, SF::forget_guest}));
  EXPECT_EQ(source.handle(SE::guest_ended), std::vector{SF::note});
  EXPECT_EQ(source.state(), SourceState::done);
}

TEST(Source, InPostcopyARestartRecoversTheMemoryOnceTheTargetOwnsTheGuest) {
  Source released({}, SourceState::released, true, true);
  EXPECT_EQ(released.handle(SE::restarted), (std::vector{SF::commit_target, SF::wait}));
  EXPECT_EQ(released.handle(SE::target_owns),
            (std::vector{SF::note, SF::release_ports, SF::recover_memory, SF::wait}));
  Source draining({}, SourceState::draining, true, true);
  EXPECT_EQ(draining.handle(SE::restarted),
            (std::vector{SF::release_ports, SF::recover_memory, SF::wait}));
}

TEST(Source, ARefusalInPostcopyGivesTheGuestBack) {
  Source source = in_postcopy();
  const auto effects = source.handle(SE::target_refuses, "no");
  EXPECT_THAT(effects, testing::Contains(SF::resume_guest));
  EXPECT_FALSE(source.memory_follows());
}

TEST(Source, MemoryThatIsLostIsToldOnceTheTargetOwnsTheGuest) {
  Source early = in_postcopy();
  EXPECT_EQ(early.handle(SE::guest_died), std::vector{SF::note});
  EXPECT_EQ(early.handle(SE::target_owns).back(), SF::tell_lost);
  EXPECT_THAT(early.reason(), testing::HasSubstr("before all of the guest's memory"));
  Source late = in_postcopy();
  (void)late.handle(SE::target_owns);
  EXPECT_EQ(late.handle(SE::guest_died),
            (std::vector{SF::note, SF::tell_lost, SF::end_guest, SF::forget_guest}));
}

TEST(Source, AnAbortBeforeTheHooksBeganNeedsNoneAfter) {
  Source source({});
  (void)source.handle(SE::begin);
  (void)source.handle(SE::target_prepared);
  (void)source.handle(SE::abort_requested);
  EXPECT_EQ(source.handle(SE::guest_resumed), std::vector{SF::note});
  Source restarted({}, SourceState::copying);  // which may have begun them
  (void)restarted.handle(SE::restarted);
  EXPECT_EQ(restarted.handle(SE::guest_resumed), (std::vector{SF::note, SF::post_resume}));
}

TEST(Source, DivergenceAbortsUnlessAskedToPause) {
  for (const bool pause : {false, true}) {
    Source source({.pause_on_diverge = pause});
    (void)source.handle(SE::begin);
    (void)source.handle(SE::target_prepared);
    (void)source.handle(SE::diverged, "will not converge");
    EXPECT_EQ(source.state(), pause ? SourceState::copying : SourceState::aborting);
  }
}

TEST(Source, MemoryBeginsToLeaveWhileTheTargetPreparesItself) {
  Source source({});
  EXPECT_EQ(source.handle(SE::begin),
            (std::vector{SF::record, SF::prepare_target, SF::start_memory, SF::wait}));
  EXPECT_EQ(source.handle(SE::target_prepared), (std::vector{SF::note, SF::continue_memory}));
}

TEST(Source, AGuestThatStopsOrFailsBeforeTheTargetIsReadyGoesOnHere) {
  for (const SE event : {SE::at_pre_switchover, SE::memory_failed, SE::target_failed}) {
    Source source({});
    (void)source.handle(SE::begin);
    const auto effects = source.handle(event, "why");
    EXPECT_EQ(source.state(), SourceState::aborting);
    EXPECT_TRUE(std::ranges::count(effects, SF::resume_guest) == 1);
  }
}

TEST(Target, GivesUpUntilItOwnsTheGuest) {
  for (const bool loaded : {false, true}) {
    Target target;
    (void)target.handle(TE::begin);
    if (loaded) (void)target.handle(TE::loaded);
    // One that is whole might be asked for again: its refusal must be kept.
    EXPECT_EQ(target.handle(TE::give_up, "the operator"),
              (std::vector{loaded ? TF::record : TF::note, TF::reply_refuses, TF::notify_failed,
                           TF::discard_guest}));
    EXPECT_EQ(target.handle(TE::commit), std::vector{TF::reply_refuses});
  }
  Target owner(TargetState::owner);
  EXPECT_TRUE(owner.handle(TE::give_up).empty());
}

// A restarted source asks again and again, and nothing more comes from its QEMU.
TEST(Target, AnEarlyCommitIsWaitedForOnceHoweverOftenItComes) {
  Target target;
  (void)target.handle(TE::begin);
  EXPECT_EQ(target.handle(TE::commit), std::vector{TF::wait});
  EXPECT_TRUE(target.handle(TE::commit).empty());
  EXPECT_EQ(target.handle(TE::patience_ended),
            (std::vector{TF::note, TF::reply_refuses, TF::discard_guest}));
}

TEST(Target, RunsByTheOperatorsWordOnlyWhatIsWhole) {
  Target target;
  (void)target.handle(TE::begin);
  EXPECT_TRUE(target.handle(TE::source_destroyed).empty());
  (void)target.handle(TE::loaded);
  EXPECT_EQ(target.handle(TE::source_destroyed),
            (std::vector{TF::record, TF::run_guest, TF::run_ports}));
  EXPECT_EQ(target.handle(TE::abort), std::vector{TF::reply_owns});
}

// Done, nobody would end it after a restart.
TEST(Source, IsNotDoneBeforeItsQemuWasEnded) {
  for (const bool drained_first : {false, true}) {
    Source source({}, SourceState::committed);
    (void)source.handle(SE::patience_ended);
    EXPECT_TRUE(source.handle(drained_first ? SE::drained : SE::guest_ended).empty());
    EXPECT_EQ(source.handle(drained_first ? SE::guest_ended : SE::drained), std::vector{SF::note});
    EXPECT_EQ(source.state(), SourceState::done);
  }
}

TEST(Source, AfterReleasedAnAbortIsNotObeyed) {
  Source source({}, SourceState::released);
  EXPECT_TRUE(source.handle(SE::abort_requested).empty());
  (void)source.handle(SE::patience_ended);
  EXPECT_TRUE(source.undecided());
  const auto effects = source.handle(SE::target_destroyed);
  EXPECT_EQ(effects.front(), SF::record);
  EXPECT_EQ(source.state(), SourceState::aborting);
}

// ---- a full disk ----

Source source_at(SE last) {
  Source source({});
  for (const SE event : {SE::begin, SE::target_prepared, SE::converged, SE::pre_pause_done,
                         SE::at_pre_switchover, SE::ports_paused, SE::memory_completed}) {
    (void)source.handle(event);
    if (event == last) break;
  }
  return source;
}

TEST(Source, WhatCannotBeRecordedIsGivenUpAndTheGuestGoesOn) {
  for (const SE last : {SE::begin, SE::memory_completed}) {
    Source source = source_at(last);
    EXPECT_EQ(source.record_failed("the disk is full"),
              (std::vector{SF::note, SF::cancel_memory, SF::resume_guest, SF::resume_ports,
                           SF::abort_target}));
    EXPECT_EQ(source.state(), SourceState::aborting);
    EXPECT_EQ(source.reason(), "the disk is full");
  }
}

TEST(Source, TheOperatorsWordThatCannotBeRecordedIsNotObeyed) {
  Source source({}, SourceState::released);
  EXPECT_EQ(source.handle(SE::target_destroyed).front(), SF::record);
  EXPECT_EQ(source.record_failed("the disk is full"), std::vector{SF::wait});
  EXPECT_EQ(source.state(), SourceState::released);
  EXPECT_TRUE(source.undecided());
}

TEST(Target, ARefusalThatCannotBeRecordedIsMadeByTheEndOfItsQemu) {
  Target target(TargetState::loaded);
  EXPECT_EQ(target.handle(TE::commit).front(), TF::record);
  EXPECT_EQ(target.record_failed("the disk is full"),
            (std::vector{TF::discard_guest, TF::note, TF::reply_refuses, TF::notify_failed}));
  EXPECT_EQ(target.handle(TE::commit), std::vector{TF::reply_refuses});
}

TEST(Target, TheOnlyCopyIsNotDiscardedForAFullDisk) {
  Target target(TargetState::loaded);
  (void)target.handle(TE::source_destroyed);
  EXPECT_TRUE(target.record_failed("the disk is full").empty());
  EXPECT_EQ(target.handle(TE::source_destroyed).front(), TF::record);
  EXPECT_EQ(target.state(), TargetState::owner);
}

// ---- what the other side has not heard ----

TEST(Source, SaysThatItAbortedUntilItIsHeard) {
  Source source = source_at(SE::target_prepared);
  (void)source.handle(SE::abort_requested, "why");
  (void)source.handle(SE::guest_resumed);
  EXPECT_FALSE(source.over());
  Source restarted({}, source.state(), source.abort_told());
  EXPECT_EQ(restarted.handle(SE::session_up), std::vector{SF::abort_target});
  EXPECT_EQ(restarted.handle(SE::abort_heard), std::vector{SF::note});
  EXPECT_TRUE(restarted.over());
  EXPECT_TRUE(restarted.handle(SE::session_up).empty());
}

TEST(Target, SaysThatItFailedUntilItIsHeard) {
  Target target;
  (void)target.handle(TE::begin);
  (void)target.handle(TE::guest_died);
  Target restarted(target.state(), target.refusal_told());
  EXPECT_EQ(restarted.handle(TE::session_up), std::vector{TF::notify_failed});
  EXPECT_EQ(restarted.handle(TE::failure_heard), std::vector{TF::note});
  EXPECT_TRUE(restarted.handle(TE::session_up).empty());
}

// ---- where a hand-over can be interrupted ----

TEST(Points, AreFoundInTheMachines) {
  const auto points = handover_points();
  const auto has = [&](std::string_view text) {
    return std::ranges::any_of(points, [&](const Point& point) { return to_text(point) == text; });
  };
  for (const char* text :
       {"source.planned.record.after", "source.released.record.before", "source.ready.note.after",
        "source.draining.end_guest.before", "source.aborted.abort_target.after",
        "target.preparing.prepare_guest.before", "target.owner.record.after",
        "target.loaded.take_commit.before", "target.refused.notify_failed.after"}) {
    EXPECT_TRUE(has(text)) << text;
  }
  EXPECT_FALSE(has("source.released.resume_guest.before"));
  EXPECT_FALSE(has("target.loaded.run_guest.before"));
}

}  // namespace
}  // namespace godwit::migrate
