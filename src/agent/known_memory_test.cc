// What is kept of a process's memory, for how long, and of how many: read out of this very process.
#include "agent/known_memory.hh"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <set>
#include <string>

#include "os/test_wait.hh"
#include "qemu/guest_memory.hh"

namespace godwit::agent {
namespace {

constexpr std::size_t kPage = 4096;
const Bytes kKey(crypto::KeyedHash::kKeySize, std::byte{7});

// A number of pages which no mapping of this process has: what it maps, sanitizers included, is not
// for a test to know.
std::size_t pages_of_none() {
  std::set<std::uint64_t> taken;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::size_t dash = 0;
    const std::uint64_t begin = std::stoull(line, &dash, 16);
    taken.insert((std::stoull(line.substr(dash + 1), nullptr, 16) - begin) / kPage);
  }
  std::size_t pages = 1237;
  while (taken.contains(pages)) ++pages;
  return pages;
}

// A mapping of a size that no other has, as a QEMU's of its guest's memory.
class FakeGuest final {
 public:
  explicit FakeGuest(std::size_t pages = pages_of_none())
      : size_(pages * kPage),
        memory_(static_cast<std::byte*>(::mmap(nullptr, size_ + 2 * kPage, PROT_NONE,
                                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) +
                kPage) {
    EXPECT_EQ(::mprotect(memory_, size_, PROT_READ | PROT_WRITE), 0);
  }
  ~FakeGuest() { ::munmap(memory_ - kPage, size_ + 2 * kPage); }
  FakeGuest(const FakeGuest&) = delete;
  FakeGuest& operator=(const FakeGuest&) = delete;

  void write(std::size_t page, int value) { std::memset(memory_ + page * kPage, value, kPage); }
  ByteCount size() const { return {size_}; }

 private:
  std::size_t size_;
  std::byte* memory_;
};

class KnownMemoryTest : public testing::Test {
 protected:
  static VmId vm(int number) {
    VmId id;
    id.bytes[0] = static_cast<std::byte>(number);
    return id;
  }
  static os::ProcessIdentity us() { return *os::identify(::getpid()); }
  void keep(KnownMemory& known, const VmId& id, const FakeGuest& guest) {
    bool done = false;
    known.keep(id, guest.size(), us(), Nanoseconds(0), [&] { done = true; });
    ASSERT_TRUE(os::run_until(loop_, [&] { return done; }));
  }
  std::size_t pages(KnownMemory& known, const VmId& id) {
    std::optional<std::size_t> count;
    known.find(id, [&](const auto& found) { count = found ? found->pages() : 0; });
    EXPECT_TRUE(os::run_until(loop_, [&] { return count.has_value(); }));
    return count.value_or(0);
  }

  os::Loop loop_;
};

TEST_F(KnownMemoryTest, KeepsEachPageThatWasWrittenOnce) {
  FakeGuest guest;
  for (const std::size_t page : {0U, 5U, 600U, 1236U}) guest.write(page, int(page % 199) + 1);
  guest.write(7, 0);  // zero
  guest.write(8, 6);  // as page 5
  KnownMemory known(loop_, kKey, ByteCount{1 << 20});
  keep(known, vm(1), guest);
  EXPECT_EQ(pages(known, vm(1)), 4U);
  EXPECT_EQ(pages(known, vm(2)), 0U);
  known.forget(vm(1));
  EXPECT_EQ(pages(known, vm(1)), 0U);
}

TEST_F(KnownMemoryTest, WhatWasKnownBeforeStaysKnown) {
  FakeGuest guest;
  guest.write(1, 1);
  KnownMemory known(loop_, kKey, ByteCount{1 << 20});
  keep(known, vm(1), guest);
  guest.write(1, 2);
  keep(known, vm(1), guest);
  EXPECT_EQ(pages(known, vm(1)), 2U);
}

TEST_F(KnownMemoryTest, WhoAsksWhileItIsReadWaits) {
  FakeGuest guest;
  guest.write(1, 1);
  KnownMemory known(loop_, kKey, ByteCount{1 << 20});
  known.keep(vm(1), guest.size(), us(), milliseconds(20), [] {});
  EXPECT_EQ(pages(known, vm(1)), 1U);
}

TEST_F(KnownMemoryTest, TheOldestMakesRoom) {
  FakeGuest guest;
  for (std::size_t page = 0; page < 16; ++page) guest.write(page, int(page) + 1);
  KnownMemory known(loop_, kKey, ByteCount{600});  // the names of two are 512 bytes
  for (const int number : {1, 2, 3}) keep(known, vm(number), guest);
  EXPECT_EQ(pages(known, vm(1)), 0U);
  EXPECT_EQ(pages(known, vm(3)), 16U);
  EXPECT_LE(known.size().bytes, 600U);
}

TEST_F(KnownMemoryTest, ItsTimeEnds) {
  FakeGuest guest;
  guest.write(1, 1);
  KnownMemory known(loop_, kKey, ByteCount{1 << 20}, milliseconds(10));
  keep(known, vm(1), guest);
  EXPECT_TRUE(os::run_until(loop_, [&] { return known.size() == ByteCount{0}; }));
}

TEST_F(KnownMemoryTest, WithoutABudgetNothingIsKept) {
  FakeGuest guest;
  guest.write(1, 1);
  KnownMemory known(loop_, kKey, ByteCount{0});
  keep(known, vm(1), guest);
  EXPECT_EQ(pages(known, vm(1)), 0U);
}

TEST_F(KnownMemoryTest, AProcessThatIsGoneOrHasNoSuchMemoryIsAnError) {
  const auto none = [](BytesView) { return true; };
  EXPECT_FALSE(qemu::read_guest_memory(us(), ByteCount{pages_of_none() * kPage}, none));
  FakeGuest guest;
  FakeGuest another(guest.size().bytes / kPage);
  EXPECT_FALSE(qemu::read_guest_memory(us(), guest.size(), none));  // which of the two?
  EXPECT_FALSE(qemu::read_guest_memory({.pid = 1, .start_time = 77}, guest.size(), none));
}

}  // namespace
}  // namespace godwit::agent
