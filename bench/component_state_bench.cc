// What it takes to tell another instance what a component has learned: 100,000 flows, half of them
// of TCP behind NAT, in messages of 256 KiB; those of them that changed in the last round; and what
// each packet pays while account is kept.
#include <benchmark/benchmark.h>

#include "net/flow_codec.hh"
#include "net/tracker.hh"

namespace godwit::net {
namespace {

constexpr std::size_t kFlows = 100'000, kMost = 256 << 10;
const Instant kNow = Instant{} + seconds(1000);

TrackerConfig config() { return {.nat = {.masquerade = {{}}}}; }

Flow flow(std::uint32_t number) {
  const bool is_tcp = number % 2 == 0;
  Flow flow{.began = kNow - seconds(number % 900), .ends = kNow + seconds(30 + number % 900)};
  Tuple& tuple = flow.tuples[0];
  tuple = {.source = Ip::of4(0x0a000002 + number % 5000),
           .destination = Ip::of4(0xc6336400 + number / 5000),
           .source_port = static_cast<std::uint16_t>(1024 + number % 60'000),
           .destination_port = 443,
           .protocol = is_tcp ? std::uint8_t{kTcp} : std::uint8_t{kUdp}};
  flow.tuples[1] = tuple.inverse();
  flow.state = is_tcp ? FlowState::established : FlowState::stream;
  flow.is_replied = true;
  flow.is_translated = is_tcp;
  if (is_tcp) flow.tuples[1].destination = Ip::of4(0xc0000201);
  return flow;
}

std::vector<Bytes> take(Tracker& from) {
  std::vector<Bytes> all;
  while (true) {
    StateWriter state(kMost);
    from.take_state(state, kNow);
    Bytes message = state.take();
    if (message.empty()) return all;
    all.push_back(std::move(message));
  }
}
void load(Tracker& to, const std::vector<Bytes>& messages) {
  for (const Bytes& message : messages) {
    const auto done = load_sections(
        message, [&](const StateSection& section) { return to.load_state(section, kNow); });
    if (!done) std::abort();
  }
}

Tracker full() {
  StateWriter state(~std::size_t{0});
  for (std::uint32_t i = 0; i < kFlows; ++i) {
    write_flow(state.row(StateKind::flows), flow(i), kNow);
  }
  Tracker tracker(config(), 1);
  load(tracker, {state.take()});
  return tracker;
}

// A packet of one of those that are not translated.
struct Packet {
  explicit Packet(std::uint32_t number) {
    const Tuple tuple = flow(number * 2 + 1).tuples[0];
    write_udp({.source = tuple.source, .destination = tuple.destination}, tuple.source_port,
              tuple.destination_port, Bytes(100), frame);
    packet = read_ip_frame(frame).value();
  }
  void pass(Tracker& tracker) {
    Ticket ticket;
    if (!tracker.arrive(frame, packet, 0, kNow, ticket).empty() ||
        !tracker.leave(frame, packet, ticket, 1, {}, kNow).empty()) {
      std::abort();
    }
  }
  Bytes frame;
  IpPacket packet;
};

void begin_flows(benchmark::State& state) {
  Tracker from = full();
  for (auto _ : state) from.begin_state();
}
void take_flows(benchmark::State& state) {
  Tracker from = full();
  std::size_t bytes = 0;
  for (auto _ : state) {
    state.PauseTiming();
    from.begin_state();
    state.ResumeTiming();
    bytes = 0;
    for (const Bytes& each : take(from)) bytes += each.size();
  }
  state.counters["bytes_per_flow"] = static_cast<double>(bytes) / kFlows;
}
void load_flows(benchmark::State& state) {
  Tracker from = full();
  from.begin_state();
  const auto messages = take(from);
  for (auto _ : state) {
    state.PauseTiming();
    Tracker to(config(), 2);
    state.ResumeTiming();
    load(to, messages);
    if (to.table().size() != kFlows) std::abort();
    state.PauseTiming();
    to = Tracker(config(), 2);
    state.ResumeTiming();
  }
}
// Of 100,000 that were told; so many had a packet since.
void take_and_load_changed_flows(benchmark::State& state) {
  Tracker from = full(), to(config(), 2);
  from.begin_state();
  load(to, take(from));
  std::vector<Packet> packets;
  for (std::uint32_t i = 0; i < state.range(0); ++i) packets.emplace_back(i * 7 % (kFlows / 2));
  for (auto _ : state) {
    state.PauseTiming();
    for (Packet& packet : packets) packet.pass(from);
    state.ResumeTiming();
    load(to, take(from));
  }
}
// At random, as they are in a busy table.
void pass_packets(benchmark::State& state, bool is_kept) {
  Tracker tracker = full();
  if (is_kept) tracker.begin_state();
  std::vector<Packet> packets;
  for (std::uint32_t i = 0; i < 4096; ++i) packets.emplace_back(i * 7919 % (kFlows / 2));
  std::size_t next = 0;
  for (auto _ : state) packets[next++ % packets.size()].pass(tracker);
  state.SetItemsProcessed(state.iterations());
}

BENCHMARK(begin_flows)->Unit(benchmark::kMillisecond);
BENCHMARK(take_flows)->Unit(benchmark::kMillisecond);
BENCHMARK(load_flows)->Unit(benchmark::kMillisecond);
BENCHMARK(take_and_load_changed_flows)->Arg(100)->Arg(10'000)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(pass_packets, no_account, false);
BENCHMARK_CAPTURE(pass_packets, account, true);

}  // namespace
}  // namespace godwit::net

BENCHMARK_MAIN();
