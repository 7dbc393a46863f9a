#pragma once
#include <string_view>

namespace godwit::qemu {

// For /bin/sh -c, with `verb` and `key=value` words as its arguments (guest_network.cc).
extern const std::string_view kGuestNetworkScript;

}  // namespace godwit::qemu
