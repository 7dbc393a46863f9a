#include "qemu/nic_plug.hh"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/check.hh"
#include "qemu/json.hh"
#include "qemu/nic_device.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

using Taken = std::move_only_function<void(const Result<json>&)>;

constexpr Nanoseconds kAskAgain = seconds(1);

// The steps of plug_nic(), in their order.
class Plug final : public std::enable_shared_from_this<Plug> {
 public:
  Plug(Qmp& qmp, const NicSpec& nic, Done done)
      : qmp_(qmp),
        alive_(qmp.lifetime()),
        what_(fmt::format("cannot plug the NIC {} into slot {}", nic.name, nic.slot.value())),
        netdev_(nic_netdev_id(nic, 0)),
        device_(nic_device(nic, 0)),
        done_(std::move(done)) {}

  void start(os::Fd tap) {
    qmp_.pass_descriptor(netdev_, std::move(tap), [self = shared_from_this()](Result<json> reply) {
      if (!reply) return self->take_back({}, {}, reply.error());
      self->add_netdev();
    });
  }

 private:
  void add_netdev() {
    execute("netdev_add", {{"type", "tap"}, {"id", netdev_}, {"fd", netdev_}, {"vhost", false}},
            [this](const Result<json>& reply) {
              if (!reply) return take_back("closefd", {{"fdname", netdev_}}, reply.error());
              add_device();
            });
  }
  void add_device() {
    execute("device_add", device_, [this](const Result<json>& reply) {
      if (!reply) return take_back("netdev_del", {{"id", netdev_}}, reply.error());
      done_({});
    });
  }
  // What this cannot undo QEMU has undone: netdev_add takes the descriptor, or has closed it.
  void take_back(std::string_view command, json arguments, const Error& error) {
    auto failure = fail("{}: {}", what_, error.text);
    if (command.empty() || alive_.expired()) return done_(std::move(failure));
    execute(command, std::move(arguments),
            [this, failure = std::move(failure)](const Result<json>&) { done_(failure); });
  }
  void execute(std::string_view command, json arguments, Taken then) {
    if (alive_.expired()) return done_(fail("{}: its QEMU is gone", what_));
    qmp_.execute(command, std::move(arguments),
                 [self = shared_from_this(),
                  then = std::move(then)](const Result<json>& reply) mutable { then(reply); });
  }

  Qmp& qmp_;
  std::weak_ptr<const bool> alive_;
  std::string what_, netdev_;
  json device_;
  Done done_;
};

// What device_del answers to the second request and to those that follow.
bool is_under_way(const std::string& refusal) {
  return refusal.contains("already in the process of unplug") || refusal.contains("guest is busy");
}

bool has_device(const json& peripherals, const std::string& id) {
  return std::ranges::any_of(peripherals,
                             [&id](const json& item) { return text_at(item, "name") == id; });
}

}  // namespace

void plug_nic(Qmp& qmp, const NicSpec& nic, os::Fd tap, Done done) {
  CHECK(nic.slot.has_value(), "the NIC {} has no slot", nic.name);
  std::make_shared<Plug>(qmp, nic, std::move(done))->start(std::move(tap));
}

void has_nic(Qmp& qmp, const NicSpec& nic, Answer<bool> answer) {
  qmp.execute("qom-list", {{"path", "/machine/peripheral"}},
              [id = nic_device_id(nic, 0), answer = std::move(answer)](Result<json> reply) mutable {
                if (!reply) return answer(std::unexpected(reply.error()));
                answer(has_device(*reply, id));
              });
}

struct NicUnplug::State final : std::enable_shared_from_this<State> {
  State(Qmp& qmp_in, const NicSpec& nic, Done done_in, Nanoseconds limit_in)
      : qmp(qmp_in),
        alive(qmp_in.lifetime()),
        what(fmt::format("cannot unplug the NIC {} from slot {}", nic.name, nic.slot.value())),
        device(nic_device_id(nic, 0)),
        netdev(nic_netdev_id(nic, 0)),
        done(std::move(done_in)),
        limit(limit_in),
        deadline(qmp_in.loop().now() + limit_in) {}

  void ask() {
    execute("device_del", {{"id", device}}, [this](const Result<json>& reply) {
      refusal = reply ? "" : reply.error().text;
      look();
    });
  }
  // Neither an event that was missed nor words of QEMU's matter: only whether it is there.
  void look() {
    execute("qom-list", {{"path", "/machine/peripheral"}}, [this](const Result<json>& reply) {
      if (is_out) return;  // by the event
      if (!reply) return finish(fail("{}: {}", what, reply.error().text));
      if (!has_device(*reply, device)) return let_go();
      if (!refusal.empty() && !is_under_way(refusal)) {
        return finish(fail("{}: {}", what, refusal));
      }
      if (qmp.loop().now() >= deadline) {
        return finish(
            fail("{}: the guest has not let go of it within {}; look whether it hangs, "
                 "and try again",
                 what, godwit::to_text(limit)));
      }
      again = qmp.loop().after(kAskAgain, [this] { ask(); });
    });
  }
  void let_go() {
    if (std::exchange(is_out, true)) return;
    again.reset();
    execute("netdev_del", {{"id", netdev}}, [this](const Result<json>& reply) {
      if (reply || reply.error().text.contains("not found")) return finish({});
      finish(fail("the NIC is out of its slot, but QEMU keeps its TAP: {}", reply.error().text));
    });
  }
  void finish(Result<> result) {
    again.reset();
    if (auto end = std::exchange(done, nullptr)) end(std::move(result));
  }
  void execute(std::string_view command, json arguments, Taken then) {
    auto reply = [self = weak_from_this(),
                  then = std::move(then)](const Result<json>& answer) mutable {
      const auto alive_self = self.lock();
      if (alive_self && alive_self->done) then(answer);
    };
    if (alive.expired()) return finish(fail("{}: its QEMU is gone", what));
    qmp.execute(command, std::move(arguments), std::move(reply));
  }

  Qmp& qmp;
  std::weak_ptr<const bool> alive;
  std::string what, device, netdev;
  Done done;
  Nanoseconds limit;
  Instant deadline;
  os::Loop::Timer again;
  std::string refusal;
  bool is_out = false;
};

NicUnplug::NicUnplug(Qmp& qmp, const NicSpec& nic, Done done, Nanoseconds limit)
    : state_(std::make_shared<State>(qmp, nic, std::move(done), limit)) {
  state_->ask();
}

NicUnplug::~NicUnplug() = default;

void NicUnplug::on_event(const QmpEvent& event) {
  if (text_at(event.data, "device") != state_->device || state_->alive.expired()) return;
  const auto state = state_;  // which `done` may let go of
  if (event.name == "DEVICE_DELETED") state->let_go();
  if (event.name == "DEVICE_UNPLUG_GUEST_ERROR") {
    state->finish(fail("{}: the guest refuses: something in it uses the NIC", state->what));
  }
}

}  // namespace godwit::qemu
