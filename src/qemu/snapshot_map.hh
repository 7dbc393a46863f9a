#pragma once
// Which bytes of a qcow2 file its internal snapshots are made of: its header, their table, and what
// they refer to, the states of vms among it. QEMU does not change these while it has the file open,
// unlike all the rest: it writes in new places what a snapshot has, too. So a copy of them can be
// made of a running guest's disk. Layout: QEMU's docs/interop/qcow2.txt. Pure; hostile input.
#include <functional>
#include <optional>
#include <unordered_set>
#include <vector>

#include "base/bytes.hh"
#include "base/result.hh"
#include "base/units.hh"

namespace godwit::qemu {

struct FilePart {
  std::uint64_t offset = 0, length = 0;  // bytes
};

class SnapshotMap final {
 public:
  // `has` is called for each part, within the file, in no order; some of them twice.
  SnapshotMap(ByteCount file, std::function<void(FilePart)> has);

  // What is to be read next, for take(); nothing: `has` was told of all.
  std::optional<FilePart> wants() const { return wanted_; }
  // An error: this is no qcow2 file, or damaged, or one that is in several files or encrypted.
  Result<> take(BytesView bytes);

 private:
  enum class Step { header, table, first_level, second_level };
  Result<> take_header(BytesView bytes);
  Result<> take_snapshots(BytesView bytes);
  Result<> take_first_level(BytesView bytes);
  void take_second_level(BytesView bytes);
  Result<> want(Step step, std::uint64_t offset, std::uint64_t length);
  Result<> want_next();
  void tell(std::uint64_t offset, std::uint64_t length);

  std::uint64_t file_;
  std::function<void(FilePart)> has_;
  Step step_ = Step::header;
  std::optional<FilePart> wanted_;
  std::uint64_t cluster_ = 0;    // bytes
  std::size_t entry_bytes_ = 8;  // of a second-level table
  std::uint32_t snapshots_ = 0;  // to be read
  std::vector<FilePart> first_level_;
  std::vector<std::uint64_t> second_level_;  // offsets
  std::unordered_set<std::uint64_t> known_;  // of these, and of those that were read
};

// The beginning of a file that has only what a map of it told of, to be a whole image: without the
// present state, and bitmaps of that. `table`: where the state's first table was: zeroes.
struct WithoutPresent {
  Bytes header;  // as many bytes as were given
  FilePart table;
};
inline constexpr std::size_t kHeaderRead = 4096;  // bytes that without_present() wants to see
Result<WithoutPresent> without_present(BytesView start_of_file);

}  // namespace godwit::qemu
