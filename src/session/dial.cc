#include "session/dial.hh"

#include <fmt/ranges.h>

#include <algorithm>

namespace godwit::session {

Dial::Dial(Network& network, Plan plan, Done done)
    : network_(network),
      plan_(std::move(plan)),
      done_(std::move(done)),
      started_(network.loop.now()) {
  plan_.addresses.resize(std::min(plan_.addresses.size(), kMaxAddresses));
  plan_.relays.resize(std::min(plan_.relays.size(), kMaxRelaysTried));
  stagger_ = network_.loop.after(Nanoseconds(0), [this] { start_next(); });
  deadline_ = network_.loop.after(kDialTimeout, [this] {
    for (const auto& attempt : attempts_) failures_.push_back(attempt.name + ": no answer");
    finish(fail("{}", failures()));
  });
}

Dial::~Dial() = default;

std::string Dial::failures() const {
  if (failures_.empty()) return fmt::format("no address of {} is known", plan_.peer);
  return fmt::format("{}", fmt::join(failures_, "; "));
}

// Starts one more attempt, and arms the timer for the one after it.
void Dial::start_next() {
  if (plan_.relays_first && start_relay()) {
    stagger_ = network_.loop.after(kRelayAfter, [this] { start_next(); });
    return;
  }
  if (start_address()) {
    const bool last = next_address_ == plan_.addresses.size();
    const Nanoseconds pause =
        last ? started_ + kRelayAfter - network_.loop.now() : Nanoseconds(kStagger);
    stagger_ = network_.loop.after(std::max(pause, kStagger), [this] { start_next(); });
    return;
  }
  if (start_relay()) {
    stagger_ = network_.loop.after(kRelayAfter, [this] { start_next(); });
    return;
  }
  stagger_.reset();
  if (attempts_.empty()) finish(fail("{}", failures()));
}

bool Dial::start_address() {
  if (next_address_ == plan_.addresses.size()) return false;
  const os::Endpoint& address = plan_.addresses[next_address_++];
  Attempt& attempt = attempts_.emplace_back(address.text(), "", nullptr);
  shake_hands(attempt, network_.connect(address));
  return true;
}

bool Dial::start_relay() {
  if (next_relay_ == plan_.relays.size()) return false;
  const std::string& relay = plan_.relays[next_relay_++];
  Attempt& attempt = attempts_.emplace_back("via " + relay, relay, nullptr);
  plan_.call(
      relay, plan_.peer,
      [this, &attempt, alive = std::weak_ptr(alive_)](Result<std::unique_ptr<TlsStream>> leg) {
        if (alive.expired()) return;
        if (!leg) return on_failed(attempt, leg.error().text);
        shake_hands(attempt, std::move(*leg));
      });
  return true;
}

void Dial::shake_hands(Attempt& attempt, std::unique_ptr<os::ByteStream> lower) {
  attempt.stream =
      std::make_unique<TlsStream>(network_.loop, std::move(lower),
                                  crypto::TlsEngine::client(network_.tls, plan_.alpn, plan_.peer));
  attempt.stream->handshake(
      [this, &attempt](Result<> result) { on_handshake(attempt, std::move(result)); });
}

void Dial::on_handshake(Attempt& attempt, Result<> result) {
  if (!result) return on_failed(attempt, result.error().text);
  finish(Reached{std::move(attempt.stream), attempt.via});
}

void Dial::on_failed(Attempt& attempt, const std::string& reason) {
  failures_.push_back(fmt::format("{}: {}", attempt.name, reason));
  if (attempt.stream != nullptr) failed_.push_back(std::move(attempt.stream));
  attempts_.remove_if([&](const Attempt& other) { return &other == &attempt; });
  // Nothing else is under way: do not wait for the stagger. Later, for a callback may be below us.
  if (attempts_.empty()) {
    stagger_ = network_.loop.after(Nanoseconds(0), [this] { start_next(); });
  }
}

void Dial::finish(Result<Reached> result) {
  stagger_.reset();
  deadline_.reset();
  // The other attempts end with us, and we end when the owner says so.
  auto done = std::move(done_);
  done(std::move(result));
}

}  // namespace godwit::session
