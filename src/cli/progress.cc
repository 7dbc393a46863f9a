#include "cli/progress.hh"

#include <cmath>
#include <ostream>
#include <utility>

#include "base/units.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

// Times the lane's rate at which memory's is told too.
constexpr double kWorthShowing = 1.1;
constexpr Nanoseconds kPlainInterval = seconds(5);

std::uint64_t whole(double value) {
  return std::isfinite(value) && value > 0 ? static_cast<std::uint64_t>(std::llround(value)) : 0;
}

bool has(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number();
}

// Nothing once the disks only follow the guest.
std::string disks_of(const json& progress) {
  const json disks = progress.value("disks", json::object());
  const std::string phase = disks.value("phase", "");
  if (phase.empty()) return {};
  const std::string left =
      to_text(ByteCount{whole(number_of(disks, "remaining_bytes"))}) + " of disks left";
  if (phase == "copying") {
    return fmt::format("  {}  {}  ETA {:.1f} s", left,
                       to_text(BitRate{whole(number_of(disks, "rate_bps"))}),
                       number_of(disks, "eta_s"));
  }
  if (phase != "in-step") return "  " + left;
  const double write = number_of(disks, "mean_write_ms");
  if (write == 0) return "  disks in step";
  const double held_back = number_of(disks, "held_back_bps");
  return fmt::format("  disks in step, writes {:.0f} ms (before {:.1f}){}", write,
                     number_of(disks, "usual_write_ms"),
                     held_back == 0 ? "" : ", held back to " + to_text(BitRate{whole(held_back)}));
}

std::string step_of(const json& progress) {
  std::string step = fmt::format("{:<9}", text_of(progress, "phase"));
  if (number_of(progress, "round") > 0) step += "  round " + text_of(progress, "round");
  return step;
}

}  // namespace

std::string progress_line(const json& progress) {
  std::string line = step_of(progress) + disks_of(progress);
  // Of memory it is not known before the first round; a component's state has none.
  const bool is_known = !progress.contains("round") || number_of(progress, "round") > 0;
  if (has(progress, "remaining_bytes") && is_known) {
    line +=
        fmt::format("  {} left", to_text(ByteCount{whole(number_of(progress, "remaining_bytes"))}));
  }
  if (has(progress, "done_bytes")) {
    line += fmt::format("  {} of {}", bytes_of(progress, "done_bytes"),
                        bytes_of(progress, "size_bytes"));
  }
  if (has(progress, "rate_bps")) {
    line += "  " + to_text(BitRate{whole(number_of(progress, "rate_bps"))});
    const double effective = number_of(progress, "effective_rate_bps");
    if (effective > kWorthShowing * number_of(progress, "rate_bps")) {
      line += fmt::format(" (memory {})", to_text(BitRate{whole(effective)}));
    }
  }
  if (has(progress, "eta_s")) line += fmt::format("  ETA {:.1f} s", number_of(progress, "eta_s"));
  if (has(progress, "predicted_pause_ms")) {
    line += fmt::format("  pause ~{:.0f} ms", number_of(progress, "predicted_pause_ms"));
  }
  if (has(progress, "throttle_percent")) {
    line += fmt::format("  throttled {:.0f} %", number_of(progress, "throttle_percent"));
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

void Progress::show(const json& progress) {
  const std::string divergence = progress.value("divergence", "");
  if (std::exchange(shown_divergence_, divergence) != divergence && !divergence.empty()) {
    note(divergence);
  }
  const std::string line = progress_line(progress);
  if (io_.err_is_terminal) {
    // Longer than the terminal, it would wrap and each update would scroll.
    io_.err << "\r\x1b[2K" << line.substr(0, io_.columns > 1 ? io_.columns - 1 : 1) << std::flush;
    line_open_ = true;
    return;
  }
  const std::string step = step_of(progress);
  const Instant now = io_.clock.now();
  if (step == shown_step_ && now - shown_at_ < kPlainInterval) return;
  shown_step_ = step;
  shown_at_ = now;
  io_.err << line << std::endl;
}

void Progress::note(std::string_view text) {
  end_line();
  io_.err << text << std::endl;
}

void Progress::end_line() {
  if (std::exchange(line_open_, false)) io_.err << std::endl;
}

}  // namespace godwit::cli
