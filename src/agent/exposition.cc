#include "agent/exposition.hh"

#include <fmt/format.h>

namespace godwit::agent {
namespace {

std::string escaped(std::string_view value) {
  std::string out;
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

}  // namespace

void Exposition::family(std::string_view name, std::string_view type, std::string_view help) {
  family_ = name;
  text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void Exposition::sample(double value, const Labels& labels, std::string_view suffix) {
  text_ += family_;
  text_ += suffix;
  if (!labels.empty()) {
    char before = '{';
    for (const auto& [name, label] : labels) {
      text_ += fmt::format("{}{}=\"{}\"", std::exchange(before, ','), name, escaped(label));
    }
    text_ += '}';
  }
  text_ += fmt::format(" {}\n", value);
}

void Exposition::counter(std::string_view name, std::string_view help, double value) {
  family(name, "counter", help);
  sample(value);
}

void Exposition::gauge(std::string_view name, std::string_view help, double value) {
  family(name, "gauge", help);
  sample(value);
}

}  // namespace godwit::agent
