// godwit audit ls
#include <ostream>

#include "cli/options.hh"
#include "cli/table.hh"
#include "crypto/certificate.hh"

namespace godwit::cli {
namespace {

// "2h" ago, or a date.
std::int64_t since_of(const std::string& text) {
  const std::int64_t now = crypto::wall_now().time_since_epoch().count();
  if (const auto ago = parse_duration(text)) {
    return now - duration_cast<std::chrono::seconds>(*ago).count();
  }
  std::tm utc{};
  for (const char* form : {"%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"}) {
    const char* end = ::strptime(text.c_str(), form, &utc);
    if (end != nullptr && *end == 0) return ::timegm(&utc);
  }
  return -1;
}

std::string on_text(const json& entry) {
  std::string text;
  const json on = entry.value("on", json::object());
  for (const auto& [key, value] : on.items()) {
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", key,
                        value.is_string() ? value.get<std::string>() : value.dump());
  }
  return text;
}

std::string outcome(const json& entry) {
  const int status = entry.value("status", 200);
  const std::string error = entry.value("error", "");
  if (!error.empty()) return error.substr(0, error.find('\n'));
  return status < 400 ? "ok" : fmt::format("status {}", status);
}

void list(Context& context, const std::string& since) {
  const std::string query = since.empty() ? "" : fmt::format("?since={}", since_of(since));
  const json entries = context.fetch("/v1/audit" + query);
  if (context.as_json) return context.print_json(entries);
  Table table({{"TIME"}, {"WHO"}, {"ROLE"}, {"FROM"}, {"DID"}, {"ON"}, {"OUTCOME"}});
  for (const json& entry : entries) {
    const crypto::WallTime time{std::chrono::seconds(entry.value("time", std::int64_t{0}))};
    table.row({crypto::to_text(time), text_of(entry, "who"), text_of(entry, "role"),
               text_of(entry, "from"), text_of(entry, "did"), on_text(entry), outcome(entry)});
  }
  context.io.out << table.text("nothing was changed");
}

}  // namespace

void add_audit(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("audit", "Who changed what when, on the agent's host");
  noun->require_subcommand(1);
  auto* ls = noun->add_subcommand("ls", "List the audit log, the oldest entry first");
  auto since = std::make_shared<std::string>();
  ls->add_option("--since", *since, "Only from then on: 2h (ago), 2026-11-21, 2026-11-21T07:52:00Z")
      ->type_name("TIME")
      ->check([](const std::string& text) {
        return since_of(text) >= 0 ? std::string()
                                   : fmt::format("'{}' is neither a time nor a duration", text);
      });
  add_json(*ls, context);
  ls->callback([&context, since] { list(context, *since); });
}

}  // namespace godwit::cli
