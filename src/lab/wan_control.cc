// The emulator's answers to its control socket, and what it tells about itself.
#include "lab/wan.hh"

namespace godwit::lab {
namespace {

constexpr std::array<const char*, kDropCauses> kCauseNames = {"queue", "loss", "mtu", "cut"};
constexpr std::array<const char*, kTransports> kTransportNames = {"udp", "tcp", "other"};
constexpr Nanoseconds kLongestCut = std::chrono::hours(24);

nlohmann::json drops_of(const DirectionCounters& counters) {
  nlohmann::json drops;
  for (std::size_t cause = 0; cause < kDropCauses; ++cause) {
    for (std::size_t transport = 0; transport < kTransports; ++transport) {
      drops[kCauseNames[cause]][kTransportNames[transport]] = counters.drops[cause][transport];
    }
  }
  return drops;
}

double in_us(Nanoseconds time) { return static_cast<double>(time.count()) / 1e3; }

}  // namespace

Result<nlohmann::json> Wan::handle(const nlohmann::json& request) {
  const std::string what = request.at("do");
  if (what == "stats") return stats();
  const auto span = find(request);
  if (!span) return std::unexpected(span.error());
  if (what == "cut") {
    std::optional<Nanoseconds> duration;
    if (request.contains("for_ms")) duration = milliseconds(request["for_ms"].get<std::int64_t>());
    if (duration && (*duration <= Nanoseconds(0) || *duration > kLongestCut)) {
      return fail("a cut lasts more than nothing and at most {}", to_text(kLongestCut));
    }
    cut(**span, duration);
  } else if (what == "heal") {
    heal(**span);
  } else if (what == "set") {
    if (auto done = set(**span, request); !done) return std::unexpected(done.error());
  } else {
    return fail("the emulator cannot '{}'", what);
  }
  return nlohmann::json::object();
}

Result<Wan::Span*> Wan::find(const nlohmann::json& request) {
  const std::string name = request.at("link");
  std::string known;
  for (Span& span : spans_) {
    if (span.link.name == name) return &span;
    known += (known.empty() ? "" : ", ") + span.link.name;
  }
  return fail("there is no link '{}': {}", name,
              known.empty() ? "this lab has none" : "use one of " + known);
}

Result<> Wan::set(Span& span, const nlohmann::json& request) {
  std::array<bool, 2> concerned = {true, true};
  if (request.contains("toward")) {
    const std::string site = request["toward"];
    if (site != span.link.sites[0] && site != span.link.sites[1]) {
      return fail("link {} does not lead to '{}': use {} or {}", span.link.name, site,
                  span.link.sites[0], span.link.sites[1]);
    }
    concerned = {site == span.link.sites[1], site == span.link.sites[0]};
  }
  std::array<LinkQuality, 2> changed = {span.ends[0]->out.quality(), span.ends[1]->out.quality()};
  for (const auto& [key, value] : request.at("settings").items()) {
    for (std::size_t end = 0; end < 2; ++end) {
      if (!concerned[end]) continue;
      auto done = set_link_quality(changed[end], key, value.get<std::string>());
      if (!done) return fail("{}: {}", key, done.error().text);
    }
  }
  for (std::size_t end = 0; end < 2; ++end)
    span.ends[end]->out.set_quality(changed[end], loop_.now());
  return {};
}

nlohmann::json Wan::stats_of(const Span& span, std::size_t end) const {
  const Direction& out = span.ends[end]->out;
  const LinkQuality& quality = out.quality();
  nlohmann::json json = {{"from", span.link.sites[end]},
                         {"to", span.link.sites[1 - end]},
                         {"delay_ms", to_ms(quality.delay)},
                         {"jitter_ms", to_ms(quality.jitter)},
                         {"loss", quality.loss},
                         {"mtu", quality.mtu},
                         {"frames", out.counters().frames},
                         {"bytes", out.counters().bytes},
                         {"queued_bytes", out.queued_bytes(loop_.now())},
                         {"in_flight_bytes", out.in_flight_bytes()},
                         {"drops", drops_of(out.counters())},
                         {"refused", span.ends[1 - end]->refused}};
  if (quality.rate) {
    json["rate_bps"] = quality.rate->bits_per_second;
    json["queue_limit_bytes"] = quality.queue.bytes_at(*quality.rate);
  }
  return json;
}

nlohmann::json Wan::stats() const {
  auto links = nlohmann::json::array();
  for (const Span& span : spans_) {
    nlohmann::json link = {{"name", span.link.name},
                           {"state", span.ends[0]->out.is_up() ? "up" : "cut"},
                           {"directions", {stats_of(span, 0), stats_of(span, 1)}}};
    if (span.heals_at) link["heals_in_ms"] = to_ms(*span.heals_at - loop_.now());
    links.push_back(std::move(link));
  }
  return {{"links", links},
          {"scheduling", scheduling_},
          {"delay_error_us",
           {{"p50", in_us(delay_error_.quantile(0.5))},
            {"p99", in_us(delay_error_.quantile(0.99))},
            {"max", in_us(delay_error_.worst())},
            {"frames", delay_error_.count()}}}};
}

}  // namespace godwit::lab
