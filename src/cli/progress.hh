#pragma once
// The progress of a migration, or of an image, on standard error: one live line on a terminal, else
// a line whenever the phase or round changes and every few seconds.
#include <iosfwd>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/context.hh"

namespace godwit::cli {

// "copying  round 3  45.2 MiB left  387 Mbit/s  ETA 1.20 s  pause ~210 ms"
// "verifying  1.2 GiB of 4 GiB  3.1 Gbit/s  ETA 7.7 s"
std::string progress_line(const nlohmann::json& progress);

class Progress final {
 public:
  explicit Progress(Io& io) : io_(io) {}
  ~Progress() { end_line(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(const nlohmann::json& progress);
  // A line of its own between them.
  void note(std::string_view text);

 private:
  void end_line();

  Io& io_;
  bool line_open_ = false;
  std::string shown_step_;  // phase and round of the last plain line
  std::string shown_divergence_;
  Instant shown_at_{};
};

}  // namespace godwit::cli
