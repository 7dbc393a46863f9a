#pragma once
// How long a hand-over may stand in a state, and how often what is unanswered is said again: here
// and not in the agent, so that the simulation runs on the same clock.
#include "base/units.hh"
#include "migrate/state.hh"

namespace godwit::migrate {

inline constexpr Nanoseconds kPreparingBound = seconds(60);  // QEMU's start, and 10 s of channels
inline constexpr Nanoseconds kSwitchingBound = seconds(5);   // beyond the pause: then cont here
inline constexpr Nanoseconds kReleasedBound = seconds(3);    // then undecided, and asked again
inline constexpr Nanoseconds kDrainingBound = seconds(40);   // the wires' lease, and some

// The stream's end after an early commit: another lane takes 0.2 s and a dial. It never comes from
// a source that was restarted: then the refusal gives the guest back, within 5 s of the death.
inline constexpr Nanoseconds kLoadedBound = seconds(3);
inline constexpr Nanoseconds kPortsBound = seconds(10);  // channels to every peer and the source

// Of requests to the other agent.
inline constexpr Nanoseconds kPrepareTimeout = seconds(55);
inline constexpr Nanoseconds kCommitTimeout = seconds(3);
inline constexpr Nanoseconds kAbortTimeout = seconds(10);
inline constexpr Nanoseconds kNotifyTimeout = seconds(5);

// An abort or a failure that was not answered, by a host with which there is a session, is told
// again.
inline constexpr Nanoseconds kTellAgain = seconds(10);

// From one attempt to have QEMU resume the guest to the next: it is asked until it does, or dies.
inline constexpr Nanoseconds kResumeRetry = seconds(2);
// After an abort, for QEMU to have the guest run and its disks alone: it may take 10 s to cancel,
// and the disks of a busy one some seconds more. Then whoever waits is told that it does not.
inline constexpr Nanoseconds kGiveBackBound = seconds(45);

// After a `wait` of the source.
constexpr Nanoseconds bound_of(SourceState state, Nanoseconds longest_pause) {
  switch (state) {
    case SourceState::preparing:
      return kPreparingBound;
    case SourceState::switching:
      return kSwitchingBound + longest_pause;
    case SourceState::released:
      return kReleasedBound;
    case SourceState::draining:
      return kDrainingBound;
    default:
      return Nanoseconds(0);
  }
}

}  // namespace godwit::migrate
