#pragma once
// A file descriptor that closes itself. Moves, never copies; duplicate() is explicit.
#include <utility>

namespace godwit::os {

class Fd final {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~Fd() { reset(); }

  int number() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);
  Fd duplicate() const;  // close-on-exec; throws SetupError

 private:
  int fd_ = -1;
};

void set_nonblocking(const Fd& fd);

}  // namespace godwit::os
