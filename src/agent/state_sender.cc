#include "agent/state_sender.hh"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/source_record.hh"

namespace godwit::agent {
namespace {

// On their way: 128 KiB each, 10 MB/s over 50 ms.
constexpr std::size_t kMostUnanswered = 4;
constexpr unsigned kMostFailures = 3;
constexpr Nanoseconds kRateInterval = milliseconds(250);  // at least
constexpr Nanoseconds kAgain = seconds(1);
// Longer than a session lasts that hears nothing: then the next one tells it again.
constexpr Nanoseconds kTimeout = seconds(60);

}  // namespace

StateSender::StateSender(os::Loop& loop, Peers& peers, MigrationId id, std::string to,
                         Events events)
    : loop_(loop), peers_(peers), id_(id), to_(std::move(to)), events_(std::move(events)) {
  if (peers_.protocol(to_) >= kStateBytesProtocol) packer_.emplace(id_);
}

void StateSender::set_bandwidth(std::optional<BitRate> cap) {
  if (cap && cap->bits_per_second == 0) cap.reset();
  bucket_.set_rate(cap, loop_.now());
}

std::optional<Nanoseconds> StateSender::wait() {
  const Instant now = loop_.now();
  if (bucket_.allowance(stream::kPacingQuantum, now) > 0) return std::nullopt;
  return std::max<Nanoseconds>(bucket_.ready_at() - now, std::chrono::microseconds(1));
}

bool StateSender::has_room() const { return unanswered_.size() < kMostUnanswered; }

void StateSender::send(BytesView message, bool is_last) {
  Message next{.number = next_number_++, .is_last = is_last};
  if (!message.empty()) {
    next.body = packer_ ? packer_->pack(next.number, message) : to_bytes(as_bytes(to_hex(message)));
  }
  messages_bytes_ += message.size();
  bytes_ += next.body.size();
  bucket_.spend(next.body.size());
  count(next.body.size());
  unanswered_.push_back(std::move(next));
  ask(unanswered_.back());
}

// Both in one session: they arrive together, in this order.
void StateSender::ask(const Message& message) {
  nlohmann::json body = {{"id", id_.text()}, {"number", message.number}, {"last", message.is_last}};
  if (packer_ && !message.body.empty()) {
    (void)peers_.push(to_, kStatePush, message.body);  // without it the request fails, too
  } else {
    body["state"] = as_text(message.body);
  }
  peers_.request(
      to_, "component.state", body,
      [this, number = message.number,
       alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (!alive.expired()) told(number, reply);
      },
      kTimeout);
}

void StateSender::send_again() {
  if (!peers_.is_up(to_)) return;
  // An answer at once, that there is no session, changes nothing here.
  for (const Message& each : unanswered_) ask(each);
}

void StateSender::told(std::uint64_t number, const Result<nlohmann::json>& reply) {
  if (!reply) {
    // Of a session that has ended: the next one tells it again. A target that refuses does so
    // again.
    const auto found = std::ranges::find(unanswered_, number, &Message::number);
    if (found == unanswered_.end()) return;
    if (++found->failures < kMostFailures) {
      retry_ = loop_.after(kAgain, [this] { send_again(); });
      return;
    }
    return events_.failed(reply.error().text);
  }
  while (!unanswered_.empty() && unanswered_.front().number <= number) unanswered_.pop_front();
  events_.answered();
}

void StateSender::count(std::size_t bytes) {
  const Nanoseconds time = loop_.now() - counted_since_;
  if (counted_ > 0 && time >= kRateInterval) {
    const double in_seconds = std::chrono::duration<double>(time).count();
    rate_ = {static_cast<std::uint64_t>(8 * static_cast<double>(counted_) / in_seconds)};
    counted_ = 0;
  }
  if (counted_ == 0) counted_since_ = loop_.now();
  counted_ += bytes;
}

StateSender::Sent StateSender::sent() const {
  return {.messages_bytes = messages_bytes_, .bytes = bytes_, .rate = rate_};
}

}  // namespace godwit::agent
