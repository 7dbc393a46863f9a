#pragma once
// Cuts QEMU's migration stream (7.2 and newer, pre-copy and post-copy) into page records and opaque
// bytes, as it passes. What the parser does not know, it passes as opaque bytes for ever: a new
// QEMU must still migrate, only less compactly. Nothing is lost or changed: reproduce() of all
// pieces in order is the input, bit for bit, also for cut and corrupted streams.
//
//   push(chunk) -> opaque(header) page page ... opaque(section) page ... mark(...) opaque(devices)
//
// Device sections have no length, so in pre-copy all after the first is opaque; in post-copy they
// come in a package with a length, and RAM sections follow it. Memory: one record (< 70 KiB) that
// a chunk cut in two, and the names of the RAM blocks. Pure; one thread.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.hh"
#include "stream/qemu_format.hh"

namespace godwit::stream {

struct PageRecord {
  enum class Kind : std::uint8_t { kPage, kZero };
  Kind kind{};
  bool continues = false;    // the stream does not repeat the block's name
  std::uint16_t block = 0;   // index in the order of the stream's block list
  std::string_view name;     // of the block
  std::uint64_t offset = 0;  // in the block, bytes
  BytesView contents;        // kPage: the page; kZero: the one fill byte
};

struct QemuMark {
  enum class Kind : std::uint8_t {
    kRamBegan,       // header and block list are through: the size of the guest is known
    kRoundEnded,     // the scan of the blocks starts again (or goes back); not in post-copy
    kFinalRamBegan,  // the last RAM section: in pre-copy the guest is stopped
    kFinalRamEnded,
    kFirstDevice,   // pre-copy: first device section; post-copy: the package with all of them
    kPackageEnded,  // post-copy: from here on pages that the target asks for, and the rest
    kOpaque,        // something unknown: no records and no marks from here on but the last
    kEnd,           // the stream ended (finish())
  };
  Kind kind{};
  std::uint64_t position = 0;  // in the stream, bytes
  bool operator==(const QemuMark&) const = default;
};
std::string_view to_text(QemuMark::Kind kind);

class QemuSink {
 public:
  virtual ~QemuSink() = default;
  // Views are valid during the call.
  virtual void opaque(BytesView bytes) = 0;
  virtual void page(const PageRecord& record) = 0;
  // Comes between the pieces it separates.
  virtual void mark(const QemuMark& mark) = 0;
};

struct QemuStreamStats {
  std::uint64_t bytes = 0;
  std::uint64_t opaque_bytes = 0;
  std::uint64_t pages = 0;
  std::uint64_t zero_pages = 0;
  std::uint64_t rounds = 0;     // ended so far
  std::uint64_t ram_bytes = 0;  // of all blocks; 0 until kRamBegan
};

class QemuParser final {
 public:
  explicit QemuParser(QemuSink& sink) : sink_(sink) {}

  void push(BytesView chunk);
  void finish();  // no more comes; a record cut in the middle is passed as opaque

  // Bytes taken in but not yet given to the sink (a record cut by a chunk's end).
  std::size_t held() const { return held_.size(); }
  const QemuStreamStats& stats() const { return stats_; }
  std::size_t page_size() const { return page_size_; }

 private:
  enum class State { kHeader, kSections, kRam, kRamBlocks, kRamFooter, kOpaque };
  struct Block {
    std::string name;
    std::uint64_t length = 0;
  };
  class Cursor;

  // Each takes one item off the cursor; when it is cut short nothing has changed.
  void item(Cursor& cursor);
  void header(Cursor& cursor);
  void section(Cursor& cursor);
  void configuration(Cursor& cursor);
  void subsection(Cursor& cursor);
  void section_start(Cursor& cursor, std::uint8_t type);
  void section_more(Cursor& cursor, std::uint8_t type);
  void command(Cursor& cursor);
  void ram_record(Cursor& cursor);
  void ram_blocks(Cursor& cursor);
  void ram_page(Cursor& cursor, std::uint64_t word);
  void ram_footer(Cursor& cursor);

  std::size_t try_item(BytesView bytes);
  void pass(BytesView bytes);
  void pass_item(Cursor& cursor, State next);
  void skip(BytesView& chunk);
  void give_up(Cursor& cursor);
  void mark(QemuMark::Kind kind);
  void note_scan(std::size_t block, std::uint64_t offset);

  QemuSink& sink_;
  QemuStreamStats stats_;
  State state_ = State::kHeader;
  std::size_t page_size_ = qemu_format::kDefaultPageSize;
  Bytes held_;
  std::size_t needed_ = 0;    // bytes of the current item that are surely needed
  std::uint64_t passed_ = 0;  // bytes given to the sink
  std::uint64_t skip_ = 0;    // opaque bytes still to pass
  bool in_package_ = false;   // skip_ counts a post-copy package
  bool after_configuration_ = false;
  bool in_post_copy_ = false;

  bool has_ram_ = false;
  std::uint32_t ram_id_ = 0;
  std::uint8_t ram_section_ = 0;  // type of the RAM section we are in
  std::vector<Block> blocks_;
  std::uint64_t unlisted_ = 0;                                 // bytes of blocks not listed yet
  bool may_be_page_size_ = false;                              // a block was just listed
  std::size_t last_block_ = SIZE_MAX;                          // none yet
  using ScanPosition = std::pair<std::size_t, std::uint64_t>;  // block, offset
  std::optional<ScanPosition> scan_;
};

// The bytes of the record as they were in the stream, appended: before its contents, and all.
void reproduce_head(const PageRecord& record, Bytes& out);
void reproduce(const PageRecord& record, Bytes& out);

}  // namespace godwit::stream
