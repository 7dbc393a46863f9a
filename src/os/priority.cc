#include "os/priority.hh"

#include <sys/resource.h>
#include <unistd.h>

namespace godwit::os {

bool put_thread_first() {
  constexpr int kNice = -5;
  return ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice) == 0;
}

}  // namespace godwit::os
