#include "translate/rule.hh"

#include <fmt/format.h>

#include "base/check.hh"

namespace godwit::translate {

std::string_view to_text(RuleKind kind) {
  switch (kind) {
    case RuleKind::depart:
      return "depart";
    case RuleKind::arrive:
      return "arrive";
    case RuleKind::claim:
      return "claim";
    case RuleKind::answer:
      return "answer";
  }
  CHECK(false);
}

std::string to_text(const Rule& rule) {
  std::string text = fmt::format("{} {}", to_text(rule.kind), rule.match.text());
  if (rewrites(rule.kind)) text += fmt::format(" -> {}", rule.becomes.text());
  if (!rule.is_active) text += " (staged)";
  return text;
}

}  // namespace godwit::translate
