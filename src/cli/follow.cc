#include "cli/follow.hh"

#include <algorithm>
#include <array>
#include <ostream>

#include "cli/interrupt.hh"
#include "cli/progress.hh"
#include "cli/report.hh"

namespace godwit::cli {
namespace {

constexpr Nanoseconds kPatience = seconds(30);  // for an agent that does not answer
constexpr Nanoseconds kRetryInterval = milliseconds(500);
constexpr int kNoAnswer = 502;  // and above: of the host for which our agent asks

bool is_final(const json& migration) {
  static constexpr std::array kFinal = {"committed", "draining",  "done", "aborted",
                                        "partial",   "undecided", "stuck"};
  if (migration.value("goes_on", false) || migration.value("network_follows", false)) return false;
  return std::ranges::find(kFinal, migration.value("state", "")) != kFinal.end();
}

class Follower final {
 public:
  Follower(const Context& context, const std::string& id, const FollowOptions& options)
      : context_(context),
        client_(context.client()),
        id_(id),
        options_(options),
        interrupt_(options.limit),
        progress_(context.io) {}

  Followed run() {
    while (!end_) {
      if (!look()) {
        wait_for_agent();
      } else if (!end_) {
        listen();
      }
    }
    return {.end = *end_, .migration = migration_};
  }

 private:
  using End = Followed::End;

  // Asks for the migration itself; false when the agent does not answer.
  bool look() {
    const auto reply = client_.request("GET", path_of("migrations", id_));
    if (!reply || reply->status >= kNoAnswer) {
      unreachable_ = reply ? refusal(*reply).what() : reply.error().text;
      return false;
    }
    if (!reply->ok()) throw refusal(*reply);
    unreachable_since_.reset();
    migration_ = reply->body;
    if (const std::string next = migration_.value("resumed_as", ""); !next.empty()) {
      progress_.note(
          fmt::format("broken off: {}; it goes on as {}", migration_.value("reason", ""), next));
      id_ = next;
      return look();
    }
    if (is_final(migration_)) end_ = End::finished;
    if (options_.until_ready && migration_.value("state", "") == "ready") end_ = End::ready;
    return true;
  }

  void listen() {
    const auto on_event = [this](const http::Event& event) { return this->on_event(event); };
    const auto end =
        client_.events(path_of("migrations", id_, "events"), on_event, &interrupt_.fd());
    if (end == http::EventsEnd::interrupted) interrupted();
    if (!end || end == http::EventsEnd::closed) pause();  // look() says why
  }

  // False ends this listening: something happened that look() should see.
  bool on_event(const http::Event& event) {
    const json data = json::parse(event.data, nullptr, false);
    if (event.name != "progress" || !data.is_object()) return event.name == "heartbeat";
    if (!options_.silent) progress_.show(data);
    return !(options_.until_ready && data.value("phase", "") == "ready");
  }

  void wait_for_agent() {
    const Instant now = context_.io.clock.now();
    if (!unreachable_since_) {
      unreachable_since_ = now;
      progress_.note(fmt::format("{}; waiting for it, the migration does not need it to be watched",
                                 unreachable_));
    }
    if (now - *unreachable_since_ > kPatience) {
      throw Failure(ExitStatus::failed,
                    fmt::format("{}\nthe outcome of the migration is not known here: ask later "
                                "with `godwit migration show {}`",
                                unreachable_, id_));
    }
    pause();
  }

  void pause() {
    interrupt_.wait(kRetryInterval);
    interrupted();
  }

  void interrupted() {
    switch (interrupt_.take()) {
      case Interrupt::Cause::none:
        return;
      case Interrupt::Cause::deadline:
        end_ = End::late;
        return;
      case Interrupt::Cause::signal:
        break;
    }
    if (options_.on_interrupt == FollowOptions::OnInterrupt::leave || abort_asked_) {
      end_ = End::left;
      return;
    }
    abort_asked_ = true;
    abort_move();
  }

  void abort_move() {
    progress_.note(
        fmt::format("interrupted: aborting the move, the vm goes on where it is.\n"
                    "  (Ctrl-C again leaves at once; to leave a move running use --detach and "
                    "`godwit migration watch {}`)",
                    id_));
    const auto reply = client_.request("POST", path_of("migrations", id_, "abort"), json::object());
    if (!reply) progress_.note(reply.error().text);
    if (reply && !reply->ok()) progress_.note(refusal(*reply).what());
  }

  const Context& context_;
  http::Client client_;
  std::string id_;
  FollowOptions options_;
  Interrupt interrupt_;
  Progress progress_;
  json migration_;
  std::string unreachable_;
  std::optional<Instant> unreachable_since_;
  std::optional<End> end_;
  bool abort_asked_ = false;
};

ExitStatus status_of(const std::string& state) {
  if (state == "done" || state == "draining" || state == "committed") return ExitStatus::done;
  if (state == "aborted" || state == "aborting") return ExitStatus::aborted;
  if (state == "undecided" || state == "stuck") return ExitStatus::undecided;
  return ExitStatus::failed;
}

}  // namespace

Followed follow(const Context& context, const std::string& id, const FollowOptions& options) {
  return Follower(context, id, options).run();
}

ExitStatus conclude(const Context& context, const Followed& followed) {
  if (context.as_json) context.print_json(followed.migration);
  const std::string id = followed.migration.value("id", "");
  switch (followed.end) {
    case Followed::End::finished: {
      const ExitStatus status = status_of(followed.migration.value("state", ""));
      std::ostream& to = status == ExitStatus::done ? context.io.out : context.io.err;
      if (!context.as_json) to << migration_text(followed.migration);
      return status;
    }
    case Followed::End::ready:
      context.say(fmt::format(
          "ready: the target is kept in step; hand over with `godwit migration cutover {}`", id));
      return ExitStatus::done;
    case Followed::End::left:
      context.io.err << fmt::format("no longer watching; `godwit migration watch {}` looks again\n",
                                    id);
      return ExitStatus::failed;
    case Followed::End::late:
      context.io.err << fmt::format("time is up and the migration goes on; its state is {}\n",
                                    followed.migration.value("state", "not known"));
      return ExitStatus::failed;
  }
  return ExitStatus::failed;
}

}  // namespace godwit::cli
