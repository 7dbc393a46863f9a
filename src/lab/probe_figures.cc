#include "lab/probe_figures.hh"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace godwit::lab {
namespace {

using nlohmann::json;

// Shorter waits of a TCP connection are not worth a record.
constexpr Nanoseconds kShortestStall = milliseconds(10);

bool contains(const Window& window, UnixTime at) { return at >= window.start && at < window.end; }

std::uint64_t count_in(const std::vector<UnixTime>& times, const Window& window) {
  return static_cast<std::uint64_t>(
      std::ranges::count_if(times, [&](UnixTime at) { return contains(window, at); }));
}

// The longest gap between neighbours of a sorted list that touches the window.
Gap longest_gap_of(const std::vector<UnixTime>& times, const Window& window) {
  Gap best;
  const auto consider = [&best](UnixTime from, UnixTime to) {
    if (to - from > best.length) best = {.length = to - from, .start = from};
  };
  auto next = std::ranges::upper_bound(times, window.start);
  UnixTime last = next == times.begin() ? window.start : *(next - 1);
  for (; next != times.end() && last < window.end; ++next) {
    consider(last, *next);
    last = *next;
  }
  if (last < window.end) consider(last, window.end);
  return best;
}

// Numbers that the guest names, counted when they were sent in the window.
std::uint64_t count_sent_in(const std::vector<std::uint64_t>& numbers,
                            const std::vector<UnixTime>& sent_at, const Window& window) {
  return static_cast<std::uint64_t>(std::ranges::count_if(numbers, [&](std::uint64_t number) {
    return number < sent_at.size() && contains(window, sent_at[number]);
  }));
}

std::uint64_t unsigned_at(const json& object, const char* key) {
  if (!object.is_object()) return 0;
  const auto found = object.find(key);
  return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

std::vector<std::uint64_t> list_at(const json& object, const char* key) {
  std::vector<std::uint64_t> out;
  if (!object.is_object() || !object.contains(key)) return out;
  for (const json& number : object[key]) {
    if (number.is_number_unsigned()) out.push_back(number.get<std::uint64_t>());
  }
  return out;
}

// `number` is greater than any of `losses`.
void add_to(std::vector<Loss>& losses, UnixTime at, std::uint64_t number) {
  if (!losses.empty() && losses.back().first + losses.back().count == number) {
    ++losses.back().count;
  } else {
    losses.push_back({.at = at, .first = number, .count = 1});
  }
}

std::uint64_t count_of(const std::vector<Loss>& losses) {
  std::uint64_t sum = 0;
  for (const Loss& loss : losses) sum += loss.count;
  return sum;
}

// The first few: enough to see where they lie.
json losses_json(const std::vector<Loss>& losses) {
  constexpr std::size_t kMostShown = 8;
  json out = json::array();
  for (std::size_t i = 0; i < std::min(losses.size(), kMostShown); ++i) {
    out.push_back({{"at_unix_ns", losses[i].at.count()},
                   {"first", losses[i].first},
                   {"count", losses[i].count}});
  }
  return out;
}

json gap_json(const Gap& gap) {
  return {
      {"ms", to_ms(gap.length)}, {"at_unix_ns", gap.start.count()}, {"in_vm_ms", to_ms(gap.in_vm)}};
}

}  // namespace

void Arrivals::add(UnixTime at, std::uint64_t sequence, Nanoseconds vm_clock) {
  const auto verdict = log_.arrived(sequence);
  if (verdict == SequenceLog::Verdict::out_of_range) return;
  // Kernel timestamps are in order but for a stepped clock.
  times_.push_back(times_.empty() ? at : std::max(at, times_.back()));
  vm_clocks_.push_back(vm_clock);
  if (verdict == SequenceLog::Verdict::duplicate) return duplicates_.push_back(at);
  if (verdict == SequenceLog::Verdict::reordered) reorderings_.push_back(at);
  if (sequence >= first_at_.size()) first_at_.resize(sequence + 1);
  first_at_[sequence] = at;
}

Gap Arrivals::longest_gap(const Window& window) const {
  Gap gap = longest_gap_of(times_, window);
  const auto next =
      static_cast<std::size_t>(std::ranges::upper_bound(times_, gap.start) - times_.begin());
  if (next == 0 || next == times_.size() || times_[next - 1] != gap.start) return gap;
  // The packet before the gap had not left at the time it tells, the one after it had at the time
  // that the next batch tells.
  const auto left =
      std::find_if(vm_clocks_.begin() + static_cast<std::ptrdiff_t>(next), vm_clocks_.end(),
                   [&](Nanoseconds clock) { return clock > vm_clocks_[next]; });
  if (left != vm_clocks_.end()) gap.in_vm = *left - vm_clocks_[next - 1];
  return gap;
}

std::vector<Loss> Arrivals::losses(const Window& window) const {
  std::vector<Loss> losses;
  UnixTime last{};
  for (std::size_t i = 0; i < first_at_.size(); ++i) {
    if (first_at_[i] != UnixTime{}) {
      last = first_at_[i];
    } else if (contains(window, last)) {
      add_to(losses, last, i);
    }
  }
  return losses;
}

std::uint64_t Arrivals::lost(const Window& window) const { return count_of(losses(window)); }

std::uint64_t Arrivals::count(const std::vector<UnixTime>& times, const Window& window) {
  return count_in(times, window);
}

std::optional<GuestReport> parse_guest_report(std::string_view line) {
  const json object = json::parse(line, nullptr, false);
  if (!object.is_object() || !object.contains("counter") || !object.contains("tcp") ||
      !object.contains("dirty") || !object.contains("client")) {
    return std::nullopt;
  }
  const json& tcp = object["tcp"];
  const json& client = object["client"];
  const json udp_drops = object.value("udp_drops", json::object());
  return GuestReport{.counter = unsigned_at(object, "counter"),
                     .counter_damaged = unsigned_at(object, "counter_damaged"),
                     .pages_damaged = unsigned_at(object["dirty"], "damaged"),
                     .skipped_ticks = unsigned_at(object, "skipped_ticks"),
                     .send_failures = unsigned_at(client, "send_failures"),
                     .tcp = {.timeouts = unsigned_at(tcp, "timeouts"),
                             .retransmissions = unsigned_at(tcp, "retransmissions"),
                             .resets_received = unsigned_at(tcp, "resets_received")},
                     .udp_drops = {.received = unsigned_at(udp_drops, "received"),
                                   .sent = unsigned_at(udp_drops, "sent")},
                     .missing = list_at(client, "missing"),
                     .duplicated = list_at(client, "duplicated"),
                     .reordered = list_at(client, "reordered")};
}

void ProbeRecord::sent(UnixTime at) { sent_at_.push_back(at); }

void ProbeRecord::received(UnixTime at, const Packet& packet) {
  const Nanoseconds vm_clock(static_cast<std::int64_t>(packet.left_ns));
  if (packet.kind == PacketKind::echo) {
    echoes_.add(at, packet.index, vm_clock);
    if (packet.sequence < sent_at_.size()) {
      round_trips_.push_back({.at = at, .took = at - sent_at_[packet.sequence]});
    }
    return;
  }
  stream_.add(at, packet.sequence, vm_clock);
  // At another rate the counter grows by ticks, of which not each has a packet.
  if (per_second_ != kTicksPerSecond) return;
  const std::uint64_t base = packet.counter - packet.sequence;
  if (counter_base_ && *counter_base_ != base) counter_jumps_.push_back(at);
  counter_base_ = base;
}

void ProbeRecord::tcp_progress(UnixTime from, UnixTime to) {
  if (to - from >= kShortestStall) stalls_.push_back({.name = {}, .start = from, .end = to});
}

std::uint64_t ProbeRecord::sequence_at(UnixTime at) const {
  return static_cast<std::uint64_t>(std::ranges::lower_bound(sent_at_, at) - sent_at_.begin());
}

Gap ProbeRecord::longest_send_gap(const Window& window) const {
  return longest_gap_of(sent_at_, window);
}

Nanoseconds ProbeRecord::longest_stall(const Window& window) const {
  Nanoseconds longest{};
  for (const Window& stall : stalls_) {
    if (stall.end > window.start && stall.start < window.end) {
      longest = std::max(longest, stall.length());
    }
  }
  return longest;
}

json ProbeRecord::to_vm(const Window& window, const std::optional<GuestReport>& guest) const {
  const Gap gap = echoes_.longest_gap(window);
  json out = {{"sent", sequence_at(window.end) - sequence_at(window.start)},
              {"gap", gap_json(gap)},
              {"send_gap_ms", to_ms(longest_send_gap(window).length)},
              {"lost", nullptr},
              {"losses", json::array()},
              {"duplicated", nullptr},
              {"reordered", nullptr}};
  if (guest) {
    std::vector<Loss> losses;
    for (const std::uint64_t number : guest->missing) {
      if (number < sent_at_.size() && contains(window, sent_at_[number]))
        add_to(losses, sent_at_[number], number);
    }
    out["lost"] = count_of(losses);
    out["losses"] = losses_json(losses);
    out["duplicated"] = count_sent_in(guest->duplicated, sent_at_, window);
    out["reordered"] = count_sent_in(guest->reordered, sent_at_, window);
  }
  return out;
}

json ProbeRecord::from_vm(const Window& window) const {
  return {{"gap", gap_json(stream_.longest_gap(window))},
          {"lost", stream_.lost(window) + echoes_.lost(window)},
          {"losses", losses_json(stream_.losses(window))},
          {"losses_of_echoes", losses_json(echoes_.losses(window))},
          {"duplicated", stream_.duplicated(window) + echoes_.duplicated(window)},
          {"reordered", stream_.reordered(window) + echoes_.reordered(window)}};
}

json ProbeRecord::round_trips(const Window& window) const {
  std::vector<Nanoseconds> took;
  for (const RoundTrip& trip : round_trips_) {
    if (contains(window, trip.at)) took.push_back(trip.took);
  }
  if (took.empty()) return {{"median_ms", nullptr}, {"max_ms", nullptr}};
  std::ranges::sort(took);
  return {{"median_ms", to_ms(took[took.size() / 2])}, {"max_ms", to_ms(took.back())}};
}

json ProbeRecord::figures(const Window& window, const std::optional<Window>& idle,
                          const std::optional<GuestReport>& guest) const {
  json out = {{"name", window.name},
              {"start_unix_ns", window.start.count()},
              {"length_ms", to_ms(window.length())},
              {"to_vm", to_vm(window, guest)},
              {"from_vm", from_vm(window)},
              {"rtt", round_trips(window)},
              {"tcp",
               {{"resets", count_in(resets_, window)},
                {"mismatches", count_in(mismatches_, window)},
                {"stall_ms", to_ms(longest_stall(window))}}},
              {"counter_jumps", count_in(counter_jumps_, window)},
              {"idle_gap", nullptr},
              {"guest", nullptr}};
  if (idle) {
    out["idle_gap"] = {{"to_vm_ms", to_ms(echoes_.longest_gap(*idle).length)},
                       {"from_vm_ms", to_ms(stream_.longest_gap(*idle).length)}};
  }
  if (guest) {
    out["guest"] = {
        {"counter", guest->counter},
        {"counter_damaged", guest->counter_damaged},
        {"pages_damaged", guest->pages_damaged},
        {"skipped_ticks", guest->skipped_ticks},
        {"send_failures", guest->send_failures},
        {"udp_drops", {{"received", guest->udp_drops.received}, {"sent", guest->udp_drops.sent}}}};
  }
  return out;
}

}  // namespace godwit::lab
