#include "agent/recording.hh"

#include <spdlog/spdlog.h>

#include <array>

#include "qemu/launch.hh"

namespace godwit::agent {
namespace {

constexpr std::size_t kCount = sizeof(std::uint32_t);
constexpr std::size_t kFrame = 64 * 1024;  // of QEMU's bytes
constexpr int kFramesPerTurn = 16;         // then the loop's other work has its turn
// What QEMU writes passes through the control thread, which hands guests over. And QEMU stops a
// guest as soon as what is left takes it less than a millisecond: 16 pages at this rate.
constexpr ByteCount kBytesPerSecond{64 << 20};
// Nothing moved: a client that does not read, a QEMU that does not write.
constexpr Nanoseconds kStall = seconds(60);
constexpr Nanoseconds kTellPatience = seconds(30);

// The last frame. Nothing else may follow.
void append_end(Bytes& out, const nlohmann::json& told) {
  Writer(out).u32(0).bytes(as_bytes(told.dump()));
}

}  // namespace

const char* Recording::to_text(Outcome outcome) {
  switch (outcome) {
    case Outcome::enough:
      return "enough";
    case Outcome::still:
      return "still";
    case Outcome::failed:
      return "failed";
  }
  return "?";
}

Recording::Recording(os::Loop& loop, Vm& vm, std::unique_ptr<os::ByteStream> client,
                     std::function<void()> over)
    : loop_(loop), vm_(vm), client_(std::move(client)), over_(std::move(over)) {
  vm_.set_recording(mark_);
  subscription_ = vm_.subscribe({.event = [this](const qemu::QmpEvent& event) { on_event(event); },
                                 .died =
                                     [this](const std::string& reason) {
                                       let_go(Outcome::failed, reason);
                                       text_ = reason;
                                       tell(false);
                                     }});
  outgoing_ = std::make_unique<qemu::OutgoingMigration>(
      vm_.qmp(),
      qemu::OutgoingMigration::Events{
          .status = {},
          .pre_switchover = [this] { let_go(Outcome::still, ""); },
          .completed = [this] { let_go(Outcome::failed, "QEMU ended its migration by itself"); },
          .ended =
              [this](const qemu::OutgoingMigration::End& end) {
                if (state_ == State::recording) let_go(Outcome::failed, end.reason);
                if (!end.running) text_ = end.reason;
                tell(end.running);
              }});
  client_->start({.readable =
                      [this] {  // a client has nothing to say
                        std::array<std::byte, 256> ignored;
                        while (client_->read(ignored) > 0) {
                        }
                      },
                  .writable = [this] { pump(); },
                  .closed = [this](const std::string&) { let_go(Outcome::enough, ""); }});
  spdlog::info("vm {}: its memory is recorded", vm_.name());
  begin_qemu();
}

void Recording::begin_qemu() {
  const std::string path = vm_.paths().migration().string();
  stall_timer_ = loop_.after(kStall, [this] {
    let_go(Outcome::failed, fmt::format("nothing moved for {}", godwit::to_text(kStall)));
  });
  try {
    listener_ = os::Listener::unix_(loop_, path, 0600, [this](auto stream, const auto&) {
      if (!qemu_) use_qemu(std::move(stream));
    });
  } catch (const SetupError& error) {
    return let_go(Outcome::failed, error.what());
  }
  if (const auto granted = qemu::grant_to_qemu(path); !granted) {
    return let_go(Outcome::failed, granted.error().text);
  }
  outgoing_->start({.uri = "unix:" + path, .bandwidth_per_second = kBytesPerSecond});
}

void Recording::use_qemu(std::unique_ptr<os::ByteStream> stream) {
  qemu_ = std::move(stream);
  qemu_->start({.readable = [this] { pump(); },
                .writable = {},
                // QMP tells why, or the vm's end does.
                .closed = [](const std::string&) {}});
}

void Recording::on_event(const qemu::QmpEvent& event) {
  if (event.name == "STOP") stopped_ = loop_.now();
  if (event.name == "RESUME" && stopped_ != Instant{}) paused_ = loop_.now() - stopped_;
  if (outgoing_) outgoing_->event(event);
}

// False: the client has no room.
bool Recording::write_waiting() {
  while (written_ < waiting_.size()) {
    const std::size_t took = client_->write(BytesView(waiting_).subspan(written_));
    written_ += took;
    if (took == 0) return false;
  }
  return true;
}

void Recording::pump() {
  if (state_ == State::telling && write_waiting()) return end();
  if (state_ != State::recording || !qemu_) return;
  for (int frames = 0; frames < kFramesPerTurn; ++frames) {
    if (!write_waiting()) return;
    waiting_.resize(kCount + kFrame);
    const std::size_t got = qemu_->read(MutableBytes(waiting_).subspan(kCount));
    waiting_.resize(got > 0 ? kCount + got : 0);
    written_ = 0;
    if (got == 0) return;
    to_big_endian(static_cast<std::uint32_t>(got), waiting_.data());
    passed_ += got;
    stall_timer_ = loop_.after(kStall, [this] {
      let_go(Outcome::failed, fmt::format("nothing moved for {}", godwit::to_text(kStall)));
    });
  }
  turn_ = loop_.after(Nanoseconds(0), [this] { pump(); });
}

// QEMU's socket first: while it writes to one that is full it may answer nothing.
void Recording::let_go(Outcome outcome, std::string text) {
  if (state_ != State::recording) return;
  state_ = State::letting_go;
  outcome_ = outcome;
  text_ = std::move(text);
  stall_timer_.reset();
  soon_ = loop_.after(Nanoseconds(0), [this] {  // we may be inside one of their calls
    listener_.reset();
    qemu_.reset();
    if (state_ == State::letting_go) outgoing_->abort("the recording ends");
  });
}

// Not every outcome has a client that still listens.
void Recording::tell(bool running) {
  if (state_ == State::telling || state_ == State::over) return;
  state_ = State::telling;
  subscription_.reset();
  mark_.reset();  // another migration may begin
  nlohmann::json told = {{"outcome", to_text(outcome_)}, {"running", running}};
  if (!text_.empty()) told["error"] = text_;
  if (paused_ > Nanoseconds(0)) told["paused_ms"] = to_ms(paused_);
  spdlog::info("vm {}: recorded, {} bytes, {}", vm_.name(), passed_, told.dump());
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(written_));
  written_ = 0;
  append_end(waiting_, told);
  stall_timer_ = loop_.after(kTellPatience, [this] { end(); });
  pump();
}

void Recording::end() {
  if (std::exchange(state_, State::over) == State::over) return;
  client_->finish();
  stall_timer_.reset();
  soon_ = loop_.after(Nanoseconds(0), [this] {
    const auto over = std::move(over_);
    over();
  });
}

Result<Vm*> Recordings::vm_to_record(const std::string& name) {
  Vm* vm = vms_.find(name);
  if (vm == nullptr) return fail("there is no running vm '{}'; see godwit vm ls", name);
  if (migrations_.is_moving(name)) {
    return fail("vm {} is migrating: it can be recorded when it has arrived, at its host", name);
  }
  if (vm->record().arriving) return fail("vm {} is still arriving here: wait until it runs", name);
  if (vm->recorded()) return fail("vm {} is being recorded already", name);
  if (vm->state() != "running") {
    return fail("vm {} is {}: only a running one can be recorded", name, vm->state());
  }
  return vm;
}

void Recordings::open(const std::string& name, const http::Request& request,
                      http::Responder responder) {
  if (request.upgrade != kProtocol) {
    return responder.error(400, fmt::format("ask with Upgrade: {}", kProtocol), 2);
  }
  if (const auto vm = vm_to_record(name); !vm) return responder.error(409, vm.error().text);
  responder.upgrade(kProtocol, [this, name](std::unique_ptr<os::ByteStream> client) {
    begin(name, std::move(client));
  });
}

void Recordings::begin(const std::string& name, std::unique_ptr<os::ByteStream> client) {
  const auto vm = vm_to_record(name);  // a moment has passed
  if (!vm) {
    Bytes end;
    append_end(end, {{"outcome", "failed"}, {"error", vm.error().text}});
    client->write(end);  // the first bytes after the header: there is room
    return client->finish();
  }
  recordings_[name] = std::make_unique<Recording>(loop_, **vm, std::move(client),
                                                  [this, name] { recordings_.erase(name); });
}

}  // namespace godwit::agent
