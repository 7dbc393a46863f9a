#include "cli/second_nic.hh"

#include <fmt/ranges.h>

#include <algorithm>
#include <ostream>

#include "cli/interrupt.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

// A host answers for whatever its guests ask for (proxy ARP), and is fe80::1 for all of them: what
// the guest learns of these is right on any host.
constexpr const char* kGateway4 = "169.254.1.1";
constexpr const char* kGateway6 = "fe80::1";

bool is_ip4(const std::string& address) { return address.find(':') == address.npos; }

Context at(const Context& context, const std::string& host) {
  Context there = context;
  there.at = host;
  return there;
}

std::string nics_of(const SecondNic& nic) { return path_of("vms", nic.vm, "nics"); }
std::string nic_path(const SecondNic& nic) { return nics_of(nic) + "/" + nic.port(); }

json ends_of(const SecondNic& nic) {
  return {{"a", nic.port()}, {"b", nic.host + "/" + nic.uplink()}};
}

// Of the guest's uplinks that the vm's NICs are wired to.
json families_of(const json& ports, const std::string& vm) {
  std::vector<std::string> wires;
  for (const json& port : ports) {
    if (port.value("vm", "") == vm && port.contains("wire")) wires.push_back(port["wire"]);
  }
  json families = json::array();
  for (const json& port : ports) {
    if (std::ranges::find(wires, port.value("wire", "")) == wires.end()) continue;
    for (const json& each : port.value("guest_addresses", json::array())) {
      const json family = is_ip4(each.value("address", "")) ? "any4" : "any6";
      if (std::ranges::find(families, family) == families.end()) families.push_back(family);
    }
  }
  return families;
}

// Whose uplink is at home there, as the target plans: it gives that no new address.
std::string way_at_home(const json& ports, const std::string& vm, const json& plans) {
  for (const json& plan : plans) {
    const json addresses = plan.value("addresses", json::array());
    if (addresses.empty() || addresses[0].contains("new_address")) continue;
    const auto uplink = std::ranges::find_if(
        ports, [&](const json& port) { return port.value("name", "") == plan.value("port", ""); });
    const std::string wire = uplink == ports.end() ? "" : uplink->value("wire", "");
    if (wire.empty()) continue;
    const auto nic = std::ranges::find_if(ports, [&](const json& port) {
      return port.value("vm", "") == vm && port.value("wire", "") == wire;
    });
    if (nic != ports.end()) return nic->value("name", "");
  }
  return {};
}

void require_slot(const json& vm, const SecondNic& nic) {
  std::vector<std::string> plugged;
  for (const json& each : vm.value("nics", json::array())) {
    if (each.value("port", "") == nic.port()) return;  // of an attempt before
    if (each.contains("slot")) plugged.push_back(each.value("port", ""));
  }
  if (plugged.size() < vm.value("nic_slots", 0U)) return;
  const std::string remedy =
      plugged.empty() ? "run it with --nic-slots"
                      : fmt::format("take out whose connections are over (godwit vm nic rm {} {})",
                                    nic.vm, fmt::join(plugged, "|"));
  throw Failure(ExitStatus::refused,
                fmt::format("vm {} has no slot left for a second NIC: {}, or move it with "
                            "--strategy endpoint, which needs none",
                            nic.vm, remedy));
}

// What the guest is told of it.
json settings_of(const SecondNic& nic, const json& uplink) {
  json settings = {
      {"addresses", json::array()}, {"gateways", json::array()}, {"resolvers", nic.resolvers}};
  for (const json& each : uplink.value("guest_addresses", json::array())) {
    const std::string address = each.value("address", "");
    settings["addresses"].push_back(address + (is_ip4(address) ? "/32" : "/128"));
    settings["gateways"].push_back(is_ip4(address) ? kGateway4 : kGateway6);
  }
  return settings;
}

void say(const Context& context, const std::string& text) { context.say("  second NIC: " + text); }

void refuse_if_interrupted(Interrupt& interrupt) {
  if (interrupt.take() != Interrupt::Cause::signal) return;
  throw Failure(ExitStatus::aborted, "interrupted before the move: the vm is as it was");
}

// `where`: the agent that has the vm now.
void make(const Context& context, const Context& where, const SecondNic& nic, bool is_default) {
  Interrupt interrupt;
  const json uplink =
      at(context, nic.host)
          .post("/v1/ports",
                {{"name", nic.uplink()}, {"kind", "uplink"}, {"guest_addresses", nic.families}});
  json settings = settings_of(nic, uplink);
  if (is_default) settings["default"] = true;
  say(context, fmt::format("{} at host {}", fmt::join(settings["addresses"], " "), nic.host));
  refuse_if_interrupted(interrupt);
  where.post(nics_of(nic), {{"port", nic.port()}});
  where.post("/v1/wires", ends_of(nic));
  say(context, fmt::format("{} is plugged into vm {}, and wired to there", nic.port(), nic.vm));
  refuse_if_interrupted(interrupt);
  const json done = where.post(nic_path(nic) + "/network", settings);
  say(context, fmt::format("the guest has it as {}, {:.0f} ms", text_of(done, "interface"),
                           number_of(done, "took_ms")));
  refuse_if_interrupted(interrupt);
}

void take_back(const Context& context, const Context& where, const SecondNic& nic) {
  const auto remove = [](const Context& agent, const std::string& path,
                         const json& body = nullptr) {
    const auto reply = agent.client().request("DELETE", path, body);
    return reply && reply->ok();
  };
  if (remove(where, nic_path(nic) + "/network") && remove(where, nic_path(nic)) &&
      remove(where, "/v1/wires", ends_of(nic)) && remove(where, path_of("ports", nic.port())) &&
      remove(at(context, nic.host), path_of("ports", nic.uplink()))) {
    return;
  }
  context.io.err << fmt::format(
      "not all of the second NIC could be taken back: godwit vm nic rm {0} {1}; godwit disconnect "
      "{1} {2}/{3}; godwit port rm {1}; godwit --at {2} port rm {3}\n",
      nic.vm, nic.port(), nic.host, nic.uplink());
}

void make_or_take_back(const Context& context, const Context& where, const SecondNic& nic,
                       bool is_default) {
  try {
    make(context, where, nic, is_default);
  } catch (const Failure&) {
    take_back(context, where, nic);
    throw;
  }
}

}  // namespace

SecondNic plan_second_nic(const Context& context, const std::string& vm, const std::string& host,
                          std::vector<std::string> resolvers, const json& planned) {
  const json described = context.fetch(path_of("vms", vm));
  if (!described.value("guest_agent", false)) {
    throw Failure(ExitStatus::refused,
                  fmt::format("vm {} has no channel to qemu-guest-agent, which is to configure its "
                              "second NIC: run it with --guest-agent, or move it with --strategy "
                              "endpoint, which needs nothing of the guest",
                              vm));
  }
  const json hosts = context.fetch("/v1/hosts");
  const auto is_it = [&](const json& each) { return each.value("name", "") == host; };
  if (std::ranges::none_of(hosts, is_it)) {
    throw Failure(ExitStatus::refused,
                  fmt::format("there is no host {}: strategy secondary-nic goes to a host, whose "
                              "network the second NIC is of, not to a site (godwit host ls)",
                              host));
  }
  SecondNic nic{.vm = vm, .host = host, .resolvers = std::move(resolvers)};
  const json ports = context.fetch("/v1/ports");
  nic.families = families_of(ports, vm);
  if (nic.families.empty()) {
    throw Failure(
        ExitStatus::refused,
        fmt::format("no NIC of vm {} is wired to a guest's uplink on this host (godwit port "
                    "add NAME --uplink --guest IP): strategy secondary-nic is for guests "
                    "in a routed network",
                    vm));
  }
  nic.way = way_at_home(ports, vm, planned.value("network", json::array()));
  if (nic.way.empty()) require_slot(described, nic);
  return nic;
}

void make_second_nic(const Context& context, const SecondNic& nic) {
  make_or_take_back(context, context, nic, false);
}

void make_second_nic_there(const Context& context, const SecondNic& nic) {
  make_or_take_back(context, at(context, nic.host), nic, true);
}

void take_back_second_nic(const Context& context, const SecondNic& nic) {
  take_back(context, context, nic);
}

}  // namespace godwit::cli
