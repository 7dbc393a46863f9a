#pragma once
// qemu-img(1), as QEMU's own user.
#include <string>
#include <vector>

#include "os/child.hh"

namespace godwit::qemu {

os::Command qemu_img(std::vector<std::string> arguments);
// What it printed. Blocks, for some hundredths of a second where it only makes or looks.
Result<std::string> run_qemu_img(std::vector<std::string> arguments);

}  // namespace godwit::qemu
