#pragma once
// Bytes as text (RFC 4648, 4), as other programs' JSON has them.
#include <string>
#include <string_view>

#include "base/result.hh"

namespace godwit {

std::string to_base64(std::string_view bytes);
// Padded, and nothing else in it.
Result<std::string> from_base64(std::string_view text);

}  // namespace godwit
