#include "agent/config.hh"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdlib>
#include <thread>

#include "base/id.hh"
#include "base/result.hh"
#include "manual/mdoc.hh"
#include "os/own_address.hh"

namespace godwit::agent {
namespace {

// The others are for vms, QEMU's own threads and encoders.
constexpr std::size_t kCpusPerWireThread = 4, kMostWireThreads = 16;

constexpr std::string_view kDefaultConfigFile = "/etc/godwit/godwitd.conf";

// The host's name up to its first dot, in lower case.
std::string default_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return {};
  std::string text(name.data());
  text.resize(std::min(text.find('.'), text.size()));
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

Nanoseconds parse_hook_timeout(const std::string& text) {
  const auto timeout = parse_duration(text);
  if (!timeout) fail_setup("{} (--hook-timeout)", timeout.error().text);
  if (*timeout <= Nanoseconds(0) || *timeout > kMaxHookTimeout) {
    fail_setup("'{}' is no time-out for a hook: 1ms to {} (--hook-timeout)", text,
               to_text(kMaxHookTimeout));
  }
  return *timeout;
}

constexpr std::uint64_t kMostKnownMemory = std::uint64_t{1} << 30;
constexpr std::uint64_t kKnownMemoryShare = 8;  // of the host's memory, one in so many

ByteCount default_known_memory() {
  const auto pages = static_cast<std::uint64_t>(std::max(0L, ::sysconf(_SC_PHYS_PAGES)));
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return {std::min(kMostKnownMemory, pages * page / kKnownMemoryShare)};
}

ByteCount parse_known_memory(const std::string& text) {
  if (text == "none") return {0};
  const auto size = parse_byte_count(text);
  if (!size) fail_setup("{} (--known-memory)", size.error().text);
  return *size;
}

void add_options(CLI::App& app, Config& config) {
  // A key that is not known is refused: it may be a misspelt one.
  app.set_config("--config", std::string(kDefaultConfigFile),
                 "File with these options, NAME = VALUE a line")
      ->capture_default_str();
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.set_version_flag("--version", std::string("godwitd " GODWIT_VERSION));
  app.add_option("--name", config.name, "Name of this host, unique in its fleet")
      ->capture_default_str();
  app.add_option("--site", config.site, "Site this host belongs to")->capture_default_str();
  app.add_option("--address", config.addresses,
                 "IP address under which other hosts reach this one (repeatable, best first; "
                 "default: those it has towards other networks)");
  app.add_option("--port", config.port, "TCP and UDP port")->capture_default_str();
  app.add_option("--path-mtu", config.most_mtu,
                 "Probe paths between hosts for IP packets up to this size, in bytes")
      ->capture_default_str()
      ->check(CLI::Range(1280, 9000));
  config.wire_threads = std::clamp<std::size_t>(
      std::thread::hardware_concurrency() / kCpusPerWireThread, 1, kMostWireThreads);
  app.add_option("--wire-threads", config.wire_threads,
                 "Threads that carry packets (default: one for each 4 CPUs). While a host of "
                 "version 0.1 is connected, one does")
      ->check(CLI::Range(std::size_t{1}, kMostWireThreads));
  app.add_option("--relay", config.relay_rate,
                 "How much to forward, sealed, for wires of other hosts that cannot reach each "
                 "other: a rate, or none")
      ->capture_default_str();
  app.add_option("--state-dir", config.state_dir, "What must survive a reboot")
      ->capture_default_str();
  app.add_option("--run-dir", config.run_dir, "Sockets and what lasts until a reboot")
      ->capture_default_str();
  app.add_option("--image-dir", config.image_dir,
                 "What vms that remote users start may boot; one tenant's below its TENANT")
      ->capture_default_str();
  app.add_option("--disk-dir", config.disk_dir, "Disks of vms, and the image library")
      ->capture_default_str();
  app.add_option_function<std::string>(
         "--known-memory",
         [&config](const std::string& text) { config.known_memory = parse_known_memory(text); },
         "How much to keep for an hour of the memory of vms that left, compressed, so that they "
         "come back with less to send: a size, or none (default an eighth of the host's memory, at "
         "most 1GiB)")
      ->type_name("SIZE");
  app.add_option(
         "--libvirt", config.libvirt,
         "URI of this host's libvirt, for `godwit migrate libvirt:DOMAIN` from and to here; "
         "none: no other host comes near it")
      ->type_name("URI")
      ->capture_default_str();
  app.add_option("--hooks", config.hooks.directory,
                 "Directory of pre-pause.d and post-resume.d: programs to be run around a move")
      ->capture_default_str();
  app.add_option_function<std::string>(
         "--hook-timeout",
         [&config](const std::string& text) { config.hooks.timeout = parse_hook_timeout(text); },
         "Longest time of each of them, at most 60s (default 5s)")
      ->type_name("TIME");
  app.add_option_function<std::string>(
         "--on-hook-failure",
         [&config](const std::string& text) { config.ignore_failed_hooks = text == "ignore"; },
         "What a pre-pause hook's failure does to the move (default abort)")
      ->check(CLI::IsMember({"abort", "ignore"}));
  app.add_flag("-v,--verbose", config.verbose, "Log each step, not only what changed");
}

}  // namespace

Config parse_command_line(int argc, char** argv) {
  Config config;
  CLI::App app("Godwit's agent: one per host. It moves running machines, their disks and networks.",
               "godwitd");
  const bool is_for_manual = argc == 3 && std::string_view(argv[1]) == "man";  // ./dev man
  if (!is_for_manual) config.name = default_name();
  config.known_memory = default_known_memory();
  add_options(app, config);
  add_mapping_options(app, config.mapping);
  if (is_for_manual) {
    fmt::print("{}", manual::page(app, argv[2]));
    std::exit(0);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error) == 0 ? 0 : 2);
  }
  if (config.addresses.empty() && os::own_address().address.empty()) {
    fail_setup(
        "this host has no address that others could be told: configure its network, or give one "
        "with --address");
  }
  if (!is_valid_name(config.name)) {
    fail_setup("'{}' is not a host name: use 1 to 63 of a-z, 0-9 and '-' (--name)", config.name);
  }
  if (!is_valid_name(config.site)) {
    fail_setup("'{}' is not a site name: use 1 to 63 of a-z, 0-9 and '-' (--site)", config.site);
  }
  if (config.relay_rate != "none" && !parse_bit_rate(config.relay_rate)) {
    fail_setup("--relay {}: write a rate like 100mbit, or none", config.relay_rate);
  }
  check(config.mapping);
  return config;
}

wire::Limits wire_limits(const Config& config) {
  wire::Limits limits;
  limits.mtu_most = config.most_mtu;
  const auto rate = parse_bit_rate(config.relay_rate);
  limits.relays = rate && rate->bits_per_second > 0;
  if (limits.relays) limits.relay_bytes_per_second = rate->bits_per_second / 8;
  return limits;
}

}  // namespace godwit::agent
