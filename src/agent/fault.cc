#include "agent/fault.hh"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <csignal>
#include <cstdlib>
#include <string>

namespace godwit::agent {

void fault_point(std::string_view side, std::string_view state, std::string_view effect,
                 Moment moment) {
  static std::string wanted = [] {
    const char* text = std::getenv("GODWIT_FAULT");
    return std::string(text == nullptr ? "" : text);
  }();
  if (wanted.empty()) return;
  const auto here = fmt::format("{}.{}.{}.{}", side, state, effect,
                                moment == Moment::before ? "before" : "after");
  if (here != wanted) return;
  wanted.clear();
  spdlog::warn("frozen at {}, as GODWIT_FAULT asks", here);
  std::raise(SIGSTOP);
}

}  // namespace godwit::agent
