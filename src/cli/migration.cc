// godwit migration ls|show|watch|wait|set|abort|cutover|resolve
#include <ostream>

#include "base/units.hh"
#include "cli/follow.hh"
#include "cli/options.hh"
#include "cli/report.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

struct Settings {
  std::string max_downtime, bandwidth, on_diverge;
};

void list_migrations(Context& context) {
  const json migrations = context.fetch("/v1/migrations");
  if (context.as_json) return context.print_json(migrations);
  Table table({{"MIGRATION"},
               {"VM"},
               {"FROM"},
               {"TO"},
               {"STATE"},
               {"STARTED"},
               {"TOTAL", Align::right},
               {"PAUSE", Align::right},
               {"REASON"}});
  for (const json& migration : migrations) {
    const json report = migration.value("report", json::object());
    table.row({text_of(migration, "id"), text_of(migration, "vm"), text_of(migration, "from"),
               text_of(migration, "to"), text_of(migration, "state"), text_of(migration, "started"),
               ms_of(report, "total_ms"), ms_of(report, "pause_ms"), text_of(migration, "reason")});
  }
  context.io.out << table.text("no migrations");
}

void show_migration(Context& context, const std::string& id) {
  const json migration = context.fetch(path_of("migrations", id));
  if (context.as_json) return context.print_json(migration);
  context.io.out << migration_text(migration);
}

ExitStatus watch(const Context& context, const std::string& id) {
  const Followed followed = follow(context, id, {});
  // Who stops watching has what he wanted.
  if (followed.end == Followed::End::left) return ExitStatus::done;
  return conclude(context, followed);
}

ExitStatus wait_for(const Context& context, const std::string& id, const std::string& limit) {
  FollowOptions options;
  options.silent = true;
  if (!limit.empty()) options.limit = parse_duration(limit).value();
  return conclude(context, follow(context, id, options));
}

void change(Context& context, const std::string& id, const Settings& settings) {
  json body = json::object();
  set_if_given(body, "max_downtime", settings.max_downtime);
  set_if_given(body, "bandwidth", settings.bandwidth);
  set_if_given(body, "on_diverge", settings.on_diverge);
  if (body.empty()) throw CLI::ValidationError("migration set", "nothing to set");
  context.post(path_of("migrations", id, "set"), body);
  context.say(fmt::format("migration {} changed", id));
}

CLI::App* add_on_migration(CLI::App& noun, const char* verb, const char* help,
                           const std::shared_ptr<std::string>& id) {
  auto* app = noun.add_subcommand(verb, help);
  app->add_option("ID", *id, "As `migration ls` shows it")->type_name("MIGRATION")->required();
  return app;
}

void add_set(CLI::App& noun, Context& context, const std::shared_ptr<std::string>& id) {
  auto* set = add_on_migration(noun, "set", "Change the limits of a running migration", id);
  auto settings = std::make_shared<Settings>();
  add_duration(*set, "--max-downtime", settings->max_downtime, "Longest pause of the guest");
  add_rate(*set, "--bandwidth", settings->bandwidth, "Cap of the transfer");
  set->add_option("--on-diverge", settings->on_diverge, "abort or pause")
      ->check(CLI::IsMember({"abort", "pause"}));
  set->callback([&context, id, settings] { change(context, *id, *settings); });
}

void add_resolve(CLI::App& noun, Context& context, const std::shared_ptr<std::string>& id) {
  auto* resolve = add_on_migration(
      noun, "resolve", "Decide an undecided migration: resume at the source if that is safe", id);
  auto target = std::make_shared<bool>(false);
  auto source = std::make_shared<bool>(false);
  auto* at_source = resolve->add_flag("--target-destroyed", *target,
                                      "Said at the source: your word that the target host will "
                                      "never run this vm again");
  resolve
      ->add_flag("--source-destroyed", *source,
                 "Said at the target: your word that the source host will never run this vm again")
      ->excludes(at_source);
  add_json(*resolve, context);
  resolve->callback([&context, id, target, source] {
    json body = json::object();
    if (*target) body["target_destroyed"] = true;
    if (*source) body["source_destroyed"] = true;
    const json resolved = context.post(path_of("migrations", *id, "resolve"), body);
    if (context.as_json) return context.print_json(resolved);
    context.say(fmt::format("migration {} is {}", *id, text_of(resolved, "state")));
  });
}

}  // namespace

void add_migration(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("migration", "Migrations, running and past");
  noun->require_subcommand(1);
  const auto id = std::make_shared<std::string>();

  auto* ls = noun->add_subcommand("ls", "List migrations");
  add_json(*ls, context);
  ls->callback([&context] { list_migrations(context); });

  auto* show = add_on_migration(*noun, "show", "Show one migration and its report", id);
  add_json(*show, context);
  show->callback([&context, id] { show_migration(context, *id); });

  auto* watching = add_on_migration(*noun, "watch", "Follow it; Ctrl-C only stops watching", id);
  add_json(*watching, context);
  watching->callback([&context, id] { context.status = watch(context, *id); });

  auto* waiting = add_on_migration(*noun, "wait", "Wait for its end; exits with its outcome", id);
  const auto limit = std::make_shared<std::string>();
  add_duration(*waiting, "--timeout", *limit, "Give up waiting after this time");
  add_json(*waiting, context);
  waiting->callback([&context, id, limit] { context.status = wait_for(context, *id, *limit); });

  add_set(*noun, context, id);
  add_on_migration(*noun, "abort", "Abort it, at either host: the vm goes on at the source", id)
      ->callback([&context, id] {
        context.post(path_of("migrations", *id, "abort"));
        context.say(fmt::format("migration {} is being aborted", *id));
      });
  add_on_migration(*noun, "cutover", "Hand over now (after --hold or --at)", id)
      ->callback([&context, id] {
        context.post(path_of("migrations", *id, "cutover"));
        context.say(fmt::format("migration {} is handing over", *id));
      });
  add_resolve(*noun, context, id);
}

}  // namespace godwit::cli
