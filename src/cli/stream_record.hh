#pragma once
// Receives the recording of a vm's migration stream into a file that is whole or absent.
#include <optional>
#include <string>

#include "cli/context.hh"
#include "cli/interrupt.hh"
#include "stream/qemu_parser.hh"

namespace godwit::cli {

struct RecordOptions {
  std::string vm, file;
  std::uint64_t rounds = 0;  // 0: until `time`
  Nanoseconds time{};        // zero: none
};

// Throws Failure; then there is no file, and the guest runs on. A signal ends it likewise.
json record_stream(const Context& context, const RecordOptions& options);

}  // namespace godwit::cli
