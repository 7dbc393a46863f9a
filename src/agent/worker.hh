#pragma once
// A thread with an event loop, for bulk work of one owner: tasks are posted to it, run in order,
// and post back what came of them.
#include <thread>

#include "os/loop.hh"

namespace godwit::agent {

class Worker final {
 public:
  Worker() : thread_([this] { loop_.run(); }) {}
  // What was posted and has not begun is dropped.
  ~Worker() {
    loop_.stop();
    thread_.join();
  }
  void post(os::Loop::Task task) { loop_.post(std::move(task)); }

 private:
  os::Loop loop_;
  std::thread thread_;
};

}  // namespace godwit::agent
