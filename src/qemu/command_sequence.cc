#include "qemu/command_sequence.hh"

#include <memory>

namespace godwit::qemu {
namespace {

class Sequence final : public std::enable_shared_from_this<Sequence> {
 public:
  Sequence(Qmp& qmp, std::vector<Step> steps, Done done)
      : qmp_(qmp), alive_(qmp.lifetime()), steps_(std::move(steps)), done_(std::move(done)) {}
  void next() {
    if (at_ == steps_.size()) return done_({});
    const Step& step = steps_[at_++];
    qmp_.execute(
        step.command, step.arguments,
        [self = shared_from_this(), may_fail = step.may_fail](Result<nlohmann::json> reply) {
          if (!reply && !(may_fail && self->is_connected())) {
            return self->done_(std::unexpected(reply.error()));
          }
          self->next();
        });
  }

 private:
  // If not, it was not QEMU that refused.
  bool is_connected() const { return !alive_.expired() && !qmp_.is_closed(); }

  Qmp& qmp_;
  std::weak_ptr<const bool> alive_;
  std::vector<Step> steps_;
  std::size_t at_ = 0;
  Done done_;
};

}  // namespace

void run(Qmp& qmp, std::vector<Step> steps, Done done) {
  std::make_shared<Sequence>(qmp, std::move(steps), std::move(done))->next();
}

}  // namespace godwit::qemu
