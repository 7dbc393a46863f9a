#include "net/tracker.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::net {
namespace {

constexpr std::size_t kLooks = 4096;  // flows that a tick looks at: 60 us; 500 us if all end
constexpr Nanoseconds kBetweenLooks = milliseconds(100);
constexpr Nanoseconds kBetweenCircles = seconds(1);
constexpr std::uint8_t kRedirect = 5;  // ICMP; would name an address of the other network

// What is not said otherwise has begun before there was a table; a rule that tells new from old has
// a right to know.
bool picks_up(const TrackerConfig& config) {
  if (config.pick_up != PickUp::unless_new_matters) return config.pick_up == PickUp::always;
  return std::ranges::none_of(config.filter.rules,
                              [](const FilterRule& rule) { return (rule.states & kNew) != 0; });
}

PacketState state_of(const Flow& flow, Way way) {
  return way == Way::reply || flow.is_replied ? kEstablished : kNew;
}

// Between the two rewritings.
Tuple filtered(const Ticket& ticket) {
  Tuple tuple = ticket.arrived;
  tuple.destination = ticket.leaving.destination;
  tuple.destination_port = ticket.leaving.destination_port;
  return tuple;
}

}  // namespace

Result<> check(const TrackerConfig& config) {
  if (auto done = check(config.filter); !done) return done;
  if (auto done = check(config.nat); !done) return done;
  if (config.most_flows == 0) return fail("at least one flow has to be tracked");
  constexpr std::size_t kMost = std::size_t{1} << 26;  // a slot numbers twice as many
  if (config.most_flows > kMost) return fail("at most {} flows can be tracked", kMost);
  return {};
}

Tracker::Tracker(TrackerConfig config, std::uint64_t seed)
    : config_(std::move(config)),
      seed_(seed),
      filter_(config_.filter),
      table_(config_.most_flows, seed),
      claims_(seed),
      picks_up_(net::picks_up(config_)) {
  CHECK(check(config_), "a configuration that was not checked");
  if (!config_.nat.is_empty()) claims_.make_room(config_.most_flows);
}

void Tracker::configure(TrackerConfig config) {
  CHECK(check(config), "a configuration that was not checked");
  config_ = std::move(config);
  picks_up_ = net::picks_up(config_);
  if (!config_.nat.is_empty()) claims_.make_room(config_.most_flows);
  filter_.configure(config_.filter);
  std::vector<FlowId> refused;
  table_.for_each([&](FlowId id, const Flow& flow) {
    Ticket first{.in = flow.in, .arrived = flow.tuples[0], .leaving = flow.leaving(Way::original)};
    // The type of a query is the port of whom it asks.
    first.icmp_type = static_cast<std::uint8_t>(flow.tuples[0].destination_port);
    const FilterSubject subject{
        .in = flow.in, .out = flow.out, .tuple = filtered(first), .icmp_type = first.icmp_type};
    if (filter_.refuses(subject)) refused.push_back(id);
  });
  for (const FlowId id : refused) table_.erase(id);
  table_.limit(config_.most_flows);
}

std::string_view Tracker::arrive(MutableBytes frame, IpPacket& packet, PortIndex in, Instant now,
                                 Ticket& ticket) {
  ticket = {.in = in};
  const PacketReading reading = read_packet(frame, packet, 0);
  if (const auto cause = find(reading, packet, now, ticket); !cause.empty()) return cause;
  if (!ticket.is_translated) return {};
  if (ticket.kind != Ticket::Kind::related) {
    rewrite(frame, packet, Side::destination, destination_of(ticket.leaving));
    return {};
  }
  // Who reports is known to the other side as the end that it is about, if that has another name.
  const bool is_renamed = ticket.arrived.source != ticket.leaving.source;
  IpPacket quoted = read_quoted(frame, packet).value();
  rewrite_error(frame, packet, quoted,
                {.source = is_renamed ? ticket.leaving.source : packet.source,
                 .destination = ticket.leaving.destination,
                 .quoted = ticket.leaving.inverse()});
  return {};
}

std::string_view Tracker::find(const PacketReading& reading, const IpPacket& packet, Instant now,
                               Ticket& ticket) {
  ticket.icmp_type = reading.icmp_type;
  ticket.arrived = reading.tuple;
  switch (reading.kind) {
    case PacketReading::Kind::untracked:
      return {};
    case PacketReading::Kind::invalid:
      return "invalid";
    case PacketReading::Kind::fragment:
      return find_fragment(packet, now, ticket);
    case PacketReading::Kind::error:
      return find_error(reading, now, ticket);
    case PacketReading::Kind::flow:
      break;
  }
  if (auto found = table_.find(reading.tuple, now)) {
    const auto verdict = advance(*found->flow, found->way, reading.tcp, config_.timeouts, now);
    table_.touch(found->id);
    if (verdict == TcpVerdict::invalid) return "invalid";
    if (verdict == TcpVerdict::advances) table_.refresh(found->id);
    if (verdict != TcpVerdict::reopens) return take(*found, ticket), std::string_view{};
    table_.erase(found->id);
  }
  if (!may_begin(reading, picks_up_)) return "invalid";
  ticket.kind = Ticket::Kind::begun;
  ticket.leaving = reading.tuple;
  ticket.tcp = reading.tcp;
  if (const auto to = forwarded(config_.nat, reading.tuple, ticket.in)) {
    ticket.leaving.destination = to->ip;
    ticket.leaving.destination_port = to->port;
    ticket.is_translated = true;
  }
  return {};
}

void Tracker::take(const FlowTable::Found& found, Ticket& ticket) {
  ticket.kind = Ticket::Kind::known;
  ticket.way = found.way;
  ticket.flow = found.id;
  ticket.state = state_of(*found.flow, found.way);
  ticket.is_translated = found.flow->is_translated;
  ticket.arrived = found.flow->tuple(found.way);
  ticket.leaving = found.flow->leaving(found.way);
}

std::string_view Tracker::find_fragment(const IpPacket& packet, Instant now, Ticket& ticket) {
  const auto member = fragments_.find(fragment_key(packet, ticket.arrived.zone), now);
  Flow* flow = member ? table_.at(member->flow) : nullptr;
  if (flow == nullptr) return "fragment";
  take({.id = member->flow, .way = member->way, .flow = flow}, ticket);
  return {};
}

// An error goes as the answers to what it quotes go.
std::string_view Tracker::find_error(const PacketReading& reading, Instant now, Ticket& ticket) {
  const auto found = table_.find(reading.tuple.inverse(), now);
  if (!found) return "invalid";
  take(*found, ticket);
  ticket.kind = Ticket::Kind::related;
  ticket.state = kRelated;
  const bool is_redirect = found->flow->tuples[0].source.is4() && reading.icmp_type == kRedirect;
  return is_redirect && ticket.is_translated ? "invalid" : std::string_view{};
}

std::string_view Tracker::leave(MutableBytes frame, IpPacket& packet, Ticket& ticket, PortIndex out,
                                Ip own, Instant now) {
  const Step step{.crossing = {.in = ticket.in, .out = out, .own = own},
                  .now = now,
                  .bytes = packet.end - packet.l3};
  if (const auto cause = decide(packet, step, ticket); !cause.empty()) {
    undo(frame, packet, ticket);
    return cause;
  }
  if (ticket.is_translated && ticket.kind != Ticket::Kind::related) {
    rewrite(frame, packet, Side::source, source_of(ticket.leaving));
  }
  return {};
}

std::string_view Tracker::judge(BytesView frame, const IpPacket& packet, std::uint16_t zone,
                                const Crossing& crossing, Instant now) {
  CHECK(config_.nat.is_empty(), "judged without being rewritten");
  Ticket ticket{.in = crossing.in};
  const PacketReading reading = read_packet(frame, packet, zone);
  if (const auto cause = find(reading, packet, now, ticket); !cause.empty()) return cause;
  return decide(packet, {.crossing = crossing, .now = now, .bytes = packet.end - packet.l3},
                ticket);
}

std::string_view Tracker::decide(const IpPacket& packet, const Step& step, Ticket& ticket) {
  if (ticket.kind == Ticket::Kind::untracked) return {};
  if (ticket.kind == Ticket::Kind::begun) {
    // Another first packet of it may have left since this one came.
    if (const auto found = table_.find(ticket.arrived, step.now)) {
      const Endpoint destination = destination_of(ticket.leaving);
      take(*found, ticket);
      if (destination_of(ticket.leaving) != destination) return "ended";
    }
  }
  if (const auto cause = filter(ticket, step); !cause.empty()) return cause;
  if (ticket.kind == Ticket::Kind::begun) {
    if (const auto cause = begin(step, ticket); !cause.empty()) return cause;
  }
  Flow* flow = table_.at(ticket.flow);
  if (flow == nullptr) return "ended";
  if (ticket.kind == Ticket::Kind::related) return {};
  FlowCounters& sent = flow->sent[index_of(ticket.way)];
  ++sent.packets;
  sent.bytes += step.bytes;
  table_.touch(ticket.flow);
  if (packet.has_more && packet.fragment_offset == 0) {
    const Tuple& tuple = ticket.arrived;
    fragments_.remember(
        {tuple.source, tuple.destination, packet.fragment_id, tuple.zone, packet.protocol},
        {.flow = ticket.flow, .way = ticket.way}, step.now);
  }
  return {};
}

std::string_view Tracker::filter(const Ticket& ticket, const Step& step) {
  if (!filter_.asks_about(ticket.state)) return {};
  return filter_.judge({.in = step.crossing.in,
                        .out = step.crossing.out,
                        .tuple = filtered(ticket),
                        .icmp_type = ticket.icmp_type,
                        .state = ticket.state,
                        .bytes = step.bytes});
}

std::string_view Tracker::begin(const Step& step, Ticket& ticket) {
  Flow flow{.tuples = {ticket.arrived, {}}, .in = step.crossing.in, .out = step.crossing.out};
  const auto choice =
      masqueraded(config_.nat, ticket.arrived, ticket.leaving, step.crossing, seed_);
  if (choice && (choice->ip.is_unspecified() || choice->ip.is4() != ticket.arrived.source.is4())) {
    return "no-address";
  }
  // Its own address is a choice, too: with another port where two flows would get one answer.
  const SourceChoice as_it_is{.ip = ticket.arrived.source};
  const NatState state{.flows = table_, .claims = claims_};
  if (!choose_reply(state, flow, ticket.leaving, choice.value_or(as_it_is), step.now)) {
    return "ports-used-up";
  }
  flow.is_translated = flow.tuples[0].inverse() != flow.tuples[1];
  net::begin(flow, ticket.tcp, config_.timeouts, step.now);
  const auto id = table_.add(flow);
  if (!id) return "full";
  ticket.flow = *id;
  ticket.leaving = flow.leaving(Way::original);
  ticket.is_translated = flow.is_translated;
  return {};
}

void Tracker::undo(MutableBytes frame, IpPacket& packet, const Ticket& ticket) {
  if (!ticket.is_translated || ticket.kind == Ticket::Kind::related) return;
  rewrite(frame, packet, Side::destination, destination_of(ticket.arrived));
  rewrite(frame, packet, Side::source, source_of(ticket.arrived));
}

Instant Tracker::tick(Instant now) {
  const bool is_round = table_.forget_old(now, kLooks);
  return now + (is_round ? kBetweenCircles : kBetweenLooks);
}

std::vector<FlowReport> Tracker::flows(Instant now, std::size_t most) const {
  std::vector<FlowReport> all;
  table_.for_each([&](FlowId, const Flow& flow) {
    if (flow.ends > now && all.size() < most)
      all.push_back({.flow = flow, .remaining = flow.ends - now});
  });
  return all;
}

}  // namespace godwit::net
