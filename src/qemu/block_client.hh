#pragma once
// A client of QEMU's NBD server: reads and writes a disk of a vm beside its guest. libnbd speaks
// the protocol. Answers come from the loop, never from within a call, in any order.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.hh"
#include "base/units.hh"
#include "os/loop.hh"

struct nbd_handle;

namespace godwit::qemu {

class BlockClient final {
 public:
  using Done = std::move_only_function<void(Result<>)>;

  // A part of the disk, as the server has it.
  struct Part {
    std::uint64_t length = 0;  // bytes
    bool zero = false;         // reads as zeroes
    bool own = false;          // in the disk's own file, not in what that is an overlay on
    bool dirty = false;        // in the bitmap that was asked for
  };
  using Parts = std::move_only_function<void(Result<std::vector<Part>>)>;

  // `ready` is called once. Later failures are those of the requests.
  // With the name of a dirty bitmap of the export status() tells of that, and of nothing else.
  BlockClient(os::Loop& loop, const std::string& socket, std::string export_name, Done ready,
              const std::optional<std::string>& bitmap = std::nullopt);
  ~BlockClient();
  BlockClient(const BlockClient&) = delete;
  BlockClient& operator=(const BlockClient&) = delete;

  ByteCount size() const { return size_; }  // once ready

  // Offsets and lengths in bytes. Memory is the caller's until `done`.
  void read(std::uint64_t offset, MutableBytes into, Done done);
  void write(std::uint64_t offset, BytesView data, Done done);
  void zero(std::uint64_t offset, std::uint64_t length, Done done);
  void flush(Done done);
  // What is there from `offset` on, at most `length`: as much as the server tells at once.
  void status(std::uint64_t offset, std::uint64_t length, Parts parts);

 private:
  struct Call;
  struct StatusCall;
  std::shared_ptr<Call> begin(Done done);
  void issued(const std::shared_ptr<Call>& call, std::int64_t cookie);
  void settle(const std::shared_ptr<Call>& call, const std::string& error);
  void drive(std::uint32_t events);
  void maybe_ready();
  void arm();

  os::Loop& loop_;
  std::string socket_, export_;
  bool tells_dirty_;
  Done ready_;
  nbd_handle* handle_;
  os::Fd fd_;  // the handle's, duplicated
  os::Loop::Watch watch_;
  ByteCount size_{};
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::qemu
