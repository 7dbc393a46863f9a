#pragma once
// The probe's sockets: the packets each way, the TCP connections, and the control connection to the
// guest. Feeds a ProbeRecord; one loop thread.
#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lab/probe_figures.hh"
#include "os/endpoint.hh"
#include "os/socket.hh"

namespace godwit::lab {

UnixTime unix_now();

// Packets at a fixed rate to the guest; its echoes and its stream back.
class ProbePackets final {
 public:
  ProbePackets(os::Loop& loop, const os::Endpoint& guest, std::uint16_t per_second,
               std::uint64_t client, ProbeRecord& record);
  void stop();  // sends no more, goes on receiving

 private:
  void tick();
  bool send_one();
  void receive();

  os::Loop& loop_;
  std::uint16_t per_second_;
  std::uint64_t client_;
  ProbeRecord& record_;
  os::Fd fd_;
  os::Loop::Watch watch_;
  os::Loop::Timer timer_;
  Instant next_;
};

// What a connection sends.
struct Pace {
  Nanoseconds every = milliseconds(10);
  std::uint64_t bytes = 1024;
};

// One long-lived connection: sends the pattern at a steady pace and checks what comes back.
class ProbeConnection final {
 public:
  ProbeConnection(os::Loop& loop, const os::Endpoint& guest, std::uint64_t number, const Pace& pace,
                  ProbeRecord& record);
  bool is_up() const { return received_ > 0; }
  // Since when bytes are out and none came.
  std::optional<UnixTime> waiting_since() const { return waiting_since_; }
  bool is_closed() const { return closed_; }
  void stop() { timer_.reset(); }

 private:
  void tick();
  void read();

  os::Loop& loop_;
  std::uint64_t number_;
  Pace pace_;
  ProbeRecord& record_;
  std::unique_ptr<os::ByteStream> stream_;
  os::Loop::Timer timer_;
  std::uint64_t wanted_ = 0;  // bytes that the pace has asked for so far
  std::uint64_t sent_ = 0;
  std::uint64_t received_ = 0;
  std::optional<UnixTime> waiting_since_;
  bool closed_ = false;
};

// Lines to the guest's control port and their answers, in order.
class ProbeControl final {
 public:
  using Answer = std::move_only_function<void(std::optional<GuestReport>)>;
  ProbeControl(os::Loop& loop, const os::Endpoint& guest);
  void ask(std::string line, Answer answer);  // nothing when the connection is lost

 private:
  void read();
  void fail_all();

  std::unique_ptr<os::ByteStream> stream_;
  std::string output_;
  std::string input_;
  std::deque<Answer> waiting_;
  bool closed_ = false;
};

}  // namespace godwit::lab
