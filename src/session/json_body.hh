#pragma once
// Bodies of messages as JSON (RFC 8259), from peers that may be hostile.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/bytes.hh"
#include "base/result.hh"

namespace godwit::session {

// Deeper nesting is refused: printing a value recurses.
constexpr int kMaxJsonDepth = 64;

Result<nlohmann::json> parse_json_body(BytesView body);
// Bytes that are not UTF-8 in our own texts (a file name, say) are replaced.
std::string json_text(const nlohmann::json& value);

// A peer's text fit for a log or a terminal: printable ASCII, at most 1 KiB.
std::string printable(std::string_view text);

// A string member, empty when absent or of another type.
std::string text_member(const nlohmann::json& object, const char* name);

}  // namespace godwit::session
