#pragma once
// Captures what a real QEMU writes when it migrates: two QEMUs under TCG, joined by a relay that
// records both directions. The guest is a 64 KiB ROM that dirties half a megabyte for ever, so that
// the migration takes several rounds; it boots in no time.
//
//   QEMU source --unix--> relay (records) --unix--> QEMU target
//               <-------- return path -------------
#include <string>

#include "base/bytes.hh"

namespace godwit::stream::test {

struct CapturedMigration {
  Bytes stream;       // source -> target
  Bytes return_path;  // target -> source
  int rounds = 0;     // QEMU's own "dirty-sync-count" at the source
};

enum class CaptureMode { kPreCopy, kPostCopy };

bool has_qemu();
// Throws SetupError with the reason.
CapturedMigration capture_migration(CaptureMode mode);

}  // namespace godwit::stream::test
