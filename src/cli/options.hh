#pragma once
// Options that several commands share. Values with units are checked here, by base/units.hh, and
// sent to the agent as they were written.
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cli/context.hh"

namespace godwit::cli {

CLI::Option* add_json(CLI::App& app, Context& context);
CLI::Option* add_duration(CLI::App& app, const std::string& name, std::string& value,
                          const std::string& help);
CLI::Option* add_rate(CLI::App& app, const std::string& name, std::string& value,
                      const std::string& help);
CLI::Option* add_size(CLI::App& app, const std::string& name, std::string& value,
                      const std::string& help);
// A name of a vm, port, host, site or tenant (base/id.hh), checked before the agent is asked.
CLI::Option* add_name(CLI::App& app, const std::string& name, std::string& value,
                      const std::string& help);

// Vms, and domains of libvirt as "libvirt:NAME".
CLI::Option* add_vms(CLI::App& app, const std::string& name, std::vector<std::string>& values,
                     const std::string& help);

// Sets body[key] when the user gave something.
void set_if_given(json& body, const std::string& key, const std::string& value);
// Likewise for a file of the agent's host, which has another working directory, and may be another
// machine. Throws CLI::ValidationError.
void set_path(const Context& context, json& body, const std::string& key, std::string path);

// The nouns and verbs, one file each; called once by app.cc.
void add_host(CLI::App& app, Context& context);
void add_join(CLI::App& app, Context& context);
void add_port(CLI::App& app, Context& context);
void add_component(CLI::App& app, Context& context);
void add_connect(CLI::App& app, Context& context);
void add_wire(CLI::App& app, Context& context);
void add_topology(CLI::App& app, Context& context);
void add_pool(CLI::App& app, Context& context);
void add_fabric(CLI::App& app, Context& context);
void add_rule(CLI::App& app, Context& context);
void add_rule_plan(CLI::App& noun, Context& context);  // its verb `plan`
void add_image(CLI::App& app, Context& context);
void add_vm(CLI::App& app, Context& context);
void add_disk(CLI::App& app, Context& context);
void add_replica(CLI::App& app, Context& context);
void add_migrate(CLI::App& app, Context& context);
void add_migration(CLI::App& app, Context& context);
void add_user(CLI::App& app, Context& context);
void add_audit(CLI::App& app, Context& context);
void add_completion(CLI::App& app, Context& context);
void add_debug(CLI::App& app, Context& context);
void add_doctor(CLI::App& app, Context& context);
void add_version(CLI::App& app, Context& context);

}  // namespace godwit::cli
