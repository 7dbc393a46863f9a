#pragma once
// The holder: the one process that keeps a lab alive. It is the parent of the nodes and of the
// emulator, which die with it (PR_SET_PDEATHSIG), and with them every namespace, interface and
// mount of the lab: nothing of a lab exists outside its processes but the state directory.
//
//   lab up --(fork, exec)--> holder --+--> lab:router-east   (PID 1 of its namespaces)
//      | channel                      +--> lab:e1 ...
//      | "ready", then "keep"         +--> lab:wan           (emulator, holds the TAPs)
//
// Until `up` says "keep" the holder ends when the channel closes: an interrupted `up`, however it
// ended, leaves nothing.
#include <string>
#include <string_view>
#include <vector>

namespace godwit::lab {

constexpr int kChannelFd = 3;
constexpr int kLockFd = 4;
constexpr std::string_view kReadyWord = "ready\n";
constexpr std::string_view kKeepWord = "keep\n";

// `lab hold NAME DIRECTORY...`: the process. The directories stay visible in the hosts.
int run_holder(const std::string& name, const std::vector<std::string>& keep_visible);

}  // namespace godwit::lab
