#include "agent/mapping_config.hh"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <regex>

#include "base/ip.hh"
#include "base/result.hh"

namespace godwit::agent {
namespace {

constexpr std::size_t kMostEndpoints = 16, kMostName = 253;
constexpr unsigned kMostTtl = 86400;

bool is_loopback(const std::string& host) {
  if (host == "localhost") return true;
  const bool is_bracketed = host.starts_with('[');
  const auto ip = parse_ip(is_bracketed ? host.substr(1, host.size() - 2) : host);
  return ip && ip->is_loopback();
}

void check_endpoint(const std::string& endpoint, bool may_be_plain) {
  static const std::regex kForm(R"((https?)://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?)");
  if (endpoint.find('@') != std::string::npos) {  // not shown: it may have a password
    fail_setup("an endpoint of etcd has no user in it (--etcd): --etcd-user, --etcd-password-file");
  }
  std::smatch parts;
  if (!std::regex_match(endpoint, parts, kForm)) {
    fail_setup("'{}' is no endpoint of etcd: write https://HOST:2379 (--etcd)", endpoint);
  }
  if (parts[1] == "https" || may_be_plain || is_loopback(parts[2])) return;
  fail_setup(
      "{} is neither encrypted nor on this host, so others could read and change what is "
      "published: use https, or say --etcd-plain",
      endpoint);
}

void check_file(const std::filesystem::path& path, const char* option) {
  if (!path.empty() && !std::ifstream(path)) {
    fail_setup("{} cannot be read ({})", path.string(), option);
  }
}

void check_prefix(const std::string& prefix, const char* option) {
  static const std::regex kForm("(/[A-Za-z0-9_.-]+)+");
  if (std::regex_match(prefix, kForm)) return;
  fail_setup("'{}' is no prefix of keys: write it as /godwit ({})", prefix, option);
}

void check_domain(const std::string& domain) {
  static const std::regex kForm("[a-z0-9-]{1,63}(\\.[a-z0-9-]{1,63})*");
  if (domain.size() <= kMostName && std::regex_match(domain, kForm)) return;
  fail_setup("'{}' is no domain: write it as fleet.example (--dns-domain)", domain);
}

}  // namespace

void add_mapping_options(CLI::App& app, MappingConfig& config) {
  app.add_option("--etcd", config.etcd.endpoints,
                 "Publish at which address guests are that left their home in this etcd, "
                 "https://HOST:2379 (repeatable: others of the cluster)")
      ->type_name("URL");
  app.add_option("--etcd-ca", config.etcd.ca,
                 "File with the certificates of who signed etcd's (default: the system's)")
      ->type_name("FILE");
  app.add_option("--etcd-certificate", config.etcd.certificate,
                 "File with this host's certificate for etcd")
      ->type_name("FILE");
  app.add_option("--etcd-key", config.etcd.key, "File with the key of that")->type_name("FILE");
  app.add_option("--etcd-user", config.etcd.user, "User of etcd, if it has users");
  app.add_option("--etcd-password-file", config.etcd.password,
                 "File whose first line is that user's password")
      ->type_name("FILE");
  app.add_flag("--etcd-plain", config.may_be_plain,
               "Take an etcd of another host without TLS: who is between may change what it says");
  app.add_option("--etcd-prefix", config.prefix, "What keys begin with")->capture_default_str();
  app.add_option("--dns-domain", config.dns_domain,
                 "Publish guests' names there, too, in this domain: records of CoreDNS's plugin "
                 "etcd");
  app.add_option("--dns-prefix", config.dns_prefix, "What keys of names begin with")
      ->capture_default_str();
  app.add_option("--dns-ttl", config.dns_ttl, "How long names may be remembered, in seconds")
      ->capture_default_str()
      ->check(CLI::Range(1U, kMostTtl));
}

void check(const MappingConfig& config) {
  const etcd::Access& etcd = config.etcd;
  if (!config.is_wanted()) {
    const bool is_meant = !etcd.ca.empty() || !etcd.certificate.empty() || !etcd.key.empty() ||
                          !etcd.user.empty() || !etcd.password.empty() ||
                          !config.dns_domain.empty();
    if (is_meant) fail_setup("options of etcd are given, but not where it is: --etcd URL");
    return;
  }
  if (etcd.endpoints.size() > kMostEndpoints) {
    fail_setup("{} endpoints of etcd are more than {} (--etcd)", etcd.endpoints.size(),
               kMostEndpoints);
  }
  for (const auto& endpoint : etcd.endpoints) check_endpoint(endpoint, config.may_be_plain);
  if (etcd.certificate.empty() != etcd.key.empty()) {
    fail_setup("a certificate for etcd and its key go together: --etcd-certificate, --etcd-key");
  }
  if (etcd.user.empty() != etcd.password.empty()) {
    fail_setup("a user of etcd has a password: --etcd-user, --etcd-password-file");
  }
  check_file(etcd.ca, "--etcd-ca");
  check_file(etcd.certificate, "--etcd-certificate");
  check_file(etcd.key, "--etcd-key");
  check_file(etcd.password, "--etcd-password-file");
  check_prefix(config.prefix, "--etcd-prefix");
  if (config.dns_domain.empty()) return;
  check_domain(config.dns_domain);
  check_prefix(config.dns_prefix, "--dns-prefix");
}

}  // namespace godwit::agent
