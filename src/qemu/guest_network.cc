#include "qemu/guest_network.hh"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <ranges>
#include <string_view>

#include "base/check.hh"
#include "qemu/guest_network_script.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxSaid = 64;    // lines of the guest's that are kept
constexpr std::size_t kMaxWords = 300;  // bytes of one
constexpr double kMostUptime = 1e9;     // seconds: 30 years

// Whatever a guest says is shown to people, and goes into JSON.
std::string printable(std::string_view text) {
  std::string out(text.substr(0, kMaxWords));
  std::ranges::replace_if(out, [](unsigned char c) { return c < 0x20 || c >= 0x7f; }, '?');
  return out;
}

// What `text` says after its first word, if that is `word`.
std::optional<std::string> said(std::string_view text, std::string_view word) {
  if (!text.starts_with(word)) return std::nullopt;
  text.remove_prefix(word.size());
  if (!text.empty() && text.front() != ' ') return std::nullopt;
  return printable(text.substr(std::min<std::size_t>(text.size(), 1)));
}

// "up 12.34" -> its end since `begin`, which "begin 12.00" sets.
std::optional<GuestStep> parse_step(const std::string& text, double& begin) {
  const auto space = text.find(' ');
  if (space == std::string::npos) return std::nullopt;
  double uptime = 0;
  const char* const end = text.data() + text.size();
  if (std::from_chars(text.data() + space + 1, end, uptime).ptr != end) return std::nullopt;
  if (!(uptime >= 0 && uptime <= kMostUptime)) return std::nullopt;
  const std::string name = text.substr(0, space);
  if (name == "begin") begin = uptime;
  const auto ms = static_cast<std::int64_t>((uptime - begin) * 1000.0 + 0.5);
  return GuestStep{.name = name, .at = milliseconds(std::max<std::int64_t>(ms, 0))};
}

Result<GuestNetworkReport> parse_report(const GuestOutput& output) {
  GuestNetworkReport report;
  std::string error;
  double begin = 0;
  for (const auto part : std::views::split(output.out, '\n') | std::views::take(kMaxSaid)) {
    const std::string_view line(part);
    if (const auto step = said(line, "step")) {
      if (auto parsed = parse_step(*step, begin); parsed && parsed->name != "begin") {
        report.steps.push_back(*std::move(parsed));
      }
    }
    if (auto name = said(line, "interface")) report.interface = *std::move(name);
    if (said(line, "checked4")) report.checked_duplicates4 = true;
    if (const auto answers = said(line, "answers4")) report.gateway4_answers = *answers == "yes";
    if (const auto answers = said(line, "answers6")) report.gateway6_answers = *answers == "yes";
    if (said(line, "mptcp")) report.mptcp = true;
    if (auto note = said(line, "note")) report.notes.push_back(*std::move(note));
    if (auto address = said(line, "dropped")) report.dropped.push_back(*std::move(address));
    if (auto why = said(line, "error")) error = *std::move(why);
  }
  if (!error.empty()) return fail("the guest's network: {}", error);
  if (output.exit_code != 0 || report.steps.empty()) {
    return fail("the guest's network: its shell ended with {}: {}", output.exit_code,
                printable(output.err));
  }
  return report;
}

void add_values(std::vector<std::string>& words, const NicNetwork& network) {
  words.push_back(fmt::format("mtu={}", network.mtu));
  for (const IpPrefix& address : network.addresses) {
    words.push_back("address=" + address.text());
    if (address.length < (address.address.is4() ? 32 : 128)) {
      words.push_back("network=" + address.network().text());
    }
  }
  if (network.gateway4) words.push_back(fmt::format("gateway4={}", network.gateway4->text()));
  if (network.gateway6) words.push_back(fmt::format("gateway6={}", network.gateway6->text()));
  for (const Ip& resolver : network.resolvers) {
    words.push_back(fmt::format("resolver={}", resolver.text()));
  }
}

void run_script(GuestAgent& agent, std::string verb, const NicSpec& nic,
                std::vector<std::string> more, GuestNetworkAnswer answer) {
  std::vector<std::string> words = {"-c", std::string(kGuestNetworkScript), "godwit-network",
                                    std::move(verb), fmt::format("mac={}", nic.mac)};
  if (nic.network) add_values(words, *nic.network);
  std::ranges::move(more, std::back_inserter(words));
  agent.run("/bin/sh", std::move(words), kGuestNetworkLimit,
            [begun = agent.loop().now(), &loop = agent.loop(),
             answer = std::move(answer)](Result<GuestOutput> output) mutable {
              if (!output) return answer(std::unexpected(output.error()));
              auto report = parse_report(*output);
              if (report) {
                report->took = std::chrono::duration_cast<milliseconds>(loop.now() - begun);
              }
              answer(std::move(report));
            });
}

}  // namespace

json to_json(const GuestNetworkReport& report) {
  json steps = json::array();
  for (const GuestStep& step : report.steps) {
    steps.push_back({{"name", step.name}, {"at_ms", step.at.count()}});
  }
  json object = {
      {"interface", report.interface}, {"checked_duplicates4", report.checked_duplicates4},
      {"mptcp", report.mptcp},         {"notes", report.notes},
      {"dropped", report.dropped},     {"steps", std::move(steps)},
      {"took_ms", report.took.count()}};
  if (report.gateway4_answers) object["gateway4_answers"] = *report.gateway4_answers;
  if (report.gateway6_answers) object["gateway6_answers"] = *report.gateway6_answers;
  return object;
}

void configure(GuestAgent& agent, const NicSpec& nic, GuestNetworkAnswer answer) {
  CHECK(nic.network.has_value(), "the NIC {} has no network", nic.name);
  run_script(agent, "configure", nic, {}, std::move(answer));
}

void make_default(GuestAgent& agent, const NicSpec& nic, bool drop_old, GuestNetworkAnswer answer) {
  run_script(agent, nic.network ? "make_default" : "give_back", nic,
             {fmt::format("drop_old={}", drop_old ? 1 : 0)}, std::move(answer));
}

void deconfigure(GuestAgent& agent, const NicSpec& nic, GuestNetworkAnswer answer) {
  CHECK(nic.network.has_value(), "the NIC {} has no network", nic.name);
  run_script(agent, "deconfigure", nic, {}, std::move(answer));
}

}  // namespace godwit::qemu
