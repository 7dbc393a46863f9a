#include "cli/second_nic.hh"

#include <chrono>
#include <ostream>

#include "cli/options.hh"
#include "translate/fabric.hh"

namespace godwit::cli {
namespace {

Context at_host(const Context& context, const std::string& host) {
  Context there = context;
  there.at = host;
  return there;
}

std::string uplink_of(const SecondNic& nic) { return nic.port + "-net"; }

// Runs it, and how long it took.
template <class Step>
double timed_ms(Step&& step) {
  const auto began = std::chrono::steady_clock::now();
  step();
  return to_ms(std::chrono::steady_clock::now() - began);
}

// With the length of its network and a gateway in it: the host answers for any. An IPv6 guest has
// its address alone.
void add_address(const translate::Fabric& fabric, const Ip& address, json& settings) {
  if (!address.is4()) {
    settings["addresses"].push_back(address.text() + "/128");
    settings["gateways"].push_back("fe80::1");
    return;
  }
  for (const auto& device : fabric.devices) {
    for (const IpPrefix& network : device.networks) {
      if (!network.contains(address)) continue;
      Ip gateway = network.network().address;
      ++gateway.low;
      settings["addresses"].push_back(fmt::format("{}/{}", address.text(), network.length));
      settings["gateways"].push_back(gateway.text());
      return;
    }
  }
}

json settings_of(const Context& context, const SecondNic& nic) {
  const auto fabric = translate::parse_fabric(context.fetch("/v1/fabric").at("file"));
  if (!fabric) throw Failure(ExitStatus::failed, "the agent has a fabric that cannot be read");
  json settings = {{"addresses", json::array()}, {"gateways", json::array()}};
  for (const json& each : nic.addresses) {
    if (const auto address = parse_ip(text_of(each, "address"))) {
      add_address(*fabric, *address, settings);
    }
  }
  return settings;
}

void configure(const Context& context, const SecondNic& nic, bool is_default) {
  json settings = settings_of(context, nic);
  settings["default"] = is_default;
  const json told =
      context.post(path_of("vms", nic.vm, "nics") + "/" + nic.port + "/configure", settings);
  for (const json& notice : told.value("notices", json::array())) {
    context.io.err << notice.get<std::string>() << '\n';
  }
}

}  // namespace

SecondNic plug_second_nic(const Context& context, const std::string& vm, const std::string& to) {
  const json shown = context.fetch(path_of("vms", vm));
  if (!shown.value("guest_agent", false)) {
    throw Failure(ExitStatus::refused,
                  fmt::format("refused, nothing was changed: vm {0} has no channel to an agent in "
                              "its guest, which would set up the second NIC: run it with "
                              "--guest-agent (and install qemu-guest-agent in it), or move it with "
                              "--strategy endpoint, which asks nothing of the guest",
                              vm));
  }
  SecondNic nic{.vm = vm, .to = to, .port = vm + "-" + to};
  const Context there = at_host(context, to);
  try {
    const json uplink = there.post("/v1/ports", {{"name", uplink_of(nic)},
                                                 {"kind", "uplink"},
                                                 {"tenant", shown.at("tenant")},
                                                 {"lodger", true}});
    nic.addresses = uplink.at("guest_addresses");
    context.post(path_of("vms", vm, "nics"), {{"port", nic.port}});
    context.post("/v1/wires", {{"a", nic.port}, {"b", to + "/" + uplink_of(nic)}});
  } catch (const Failure&) {
    take_back_second_nic(context, nic);
    throw;
  }
  return nic;
}

void configure_second_nic(const Context& context, SecondNic& nic) {
  nic.configured_ms = timed_ms([&] { configure(context, nic, false); });
}

void flip_to_second_nic(const Context& context, SecondNic& nic) {
  nic.flipped_ms = timed_ms([&] { configure(at_host(context, nic.to), nic, true); });
}

std::string second_nic_text(const SecondNic& nic) {
  std::string addresses;
  for (const json& each : nic.addresses) addresses += " " + text_of(each, "address");
  const std::string before =
      nic.configured_ms > 0 ? fmt::format("set up in {:.0f} ms before the move", nic.configured_ms)
                            : "set up after the move";
  return fmt::format("  second NIC {}:{}, {}; the guest's default route is by it, {:.0f} ms",
                     nic.port, addresses, before, nic.flipped_ms);
}

// As far as it came.
void take_back_second_nic(const Context& context, const SecondNic& nic) {
  const auto quietly = [](auto&& step) {
    try {
      step();
    } catch (const Failure&) {  // it was not there, or the first failure says why
    }
  };
  quietly([&] { context.remove(path_of("vms", nic.vm, "nics") + "/" + nic.port); });
  quietly([&] {
    context.remove("/v1/wires", {{"a", nic.port}, {"b", nic.to + "/" + uplink_of(nic)}});
  });
  quietly([&] { context.remove(path_of("ports", nic.port)); });
  quietly([&] { at_host(context, nic.to).remove(path_of("ports", uplink_of(nic))); });
}

}  // namespace godwit::cli
