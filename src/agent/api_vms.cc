// Routes of vms and migrations.
#include "agent/api.hh"
#include "agent/api_answers.hh"
#include "agent/api_files.hh"
#include "agent/console.hh"
#include "agent/volumes.hh"

namespace godwit::agent {
namespace {

using http::Access;
using http::Request;
using http::Responder;

// The vm as the API shows it, or the 404 was sent.
std::optional<nlohmann::json> vm_of(Parts parts, const Request& request, Responder& responder) {
  const std::string& name = request.parameter("name");
  const auto vm = parts.host.vms.show(name);
  return known(vm, vm && sees(request, *vm), "vm", name, parts.config.name, responder);
}

std::optional<nlohmann::json> migration_of(Parts parts, const Request& request,
                                           Responder& responder) {
  const std::string& id = request.parameter("id");
  const auto move = parts.host.migrations.show(id);
  return known(move, move && sees(request, *move), "migration", id, parts.config.name, responder);
}

// QEMU ends where it cannot open one, when its vm has long been said to run.
void once_reached(Parts parts, const std::vector<qemu::VolumeSpec>& volumes, Responder responder,
                  std::function<void(Responder&)> then) {
  parts.host.volumes.reach(volumes, [responder = std::make_shared<Responder>(std::move(responder)),
                                     then = std::move(then)](const Result<>& reached) {
    if (!reached) return responder->error(kConflict, reached.error().text);
    then(*responder);
  });
}

void run_vm(Parts parts, const Request& request, Responder responder) {
  auto body = body_of(request, responder);
  if (!body || !claim_tenant(request, *body, responder)) return;
  const auto files =
      check_files(parts.config, *request.caller, *body, {"kernel", "initrd", "image"});
  if (!files) return responder.error(kForbidden, files.error().text);
  if (const auto good = check_volumes(*request.caller, *body); !good) {
    return responder.error(kForbidden, good.error().text);
  }
  const auto volumes = volumes_of(array_field(*body, "disks"));
  if (!volumes) return responder.error(kConflict, volumes.error().text);
  once_reached(parts, *volumes, std::move(responder), [parts, body = *body](Responder& to) {
    const auto vm = parts.host.vms.run(body);
    if (!vm) return to.error(kConflict, vm.error().text);
    to.json(201, *parts.host.vms.show((*vm)->name()));
  });
}

// False: a move has it, which may run elsewhere by now; that was answered.
bool is_at_rest(Parts parts, const std::string& name, Responder& responder) {
  if (!parts.host.migrations.is_moving(name)) return true;
  responder.error(kConflict, fmt::format("vm {} is migrating: abort that first", name));
  return false;
}

// The same, or there is no such vm.
bool is_at_rest(Parts parts, const Request& request, Responder& responder) {
  return vm_of(parts, request, responder) &&
         is_at_rest(parts, request.parameter("name"), responder);
}

// The same, for one that is to go.
bool may_go(Parts parts, const Request& request, Responder& responder) {
  if (!is_at_rest(parts, request, responder)) return false;
  const std::string& name = request.parameter("name");
  if (!parts.host.replicas.has(name)) return true;
  responder.error(kConflict,
                  fmt::format("vm {0} has a replica: first godwit replica rm {0}", name));
  return false;
}

void start_vm(Parts parts, const Request& request, Responder responder) {
  if (!is_at_rest(parts, request, responder)) return;
  const std::string name = request.parameter("name");
  const auto volumes = volumes_of(parts.host.vms.show(name)->at("disks")).value();
  once_reached(parts, volumes, std::move(responder), [parts, name](Responder& to) {
    if (!is_at_rest(parts, name, to)) return;  // a move has begun meanwhile
    const auto vm = parts.host.vms.start(name);
    if (!vm) return to.error(kConflict, vm.error().text);
    to.json(200, *parts.host.vms.show((*vm)->name()));
  });
}

void remove_vm(Parts parts, const Request& request, Responder responder) {
  if (!may_go(parts, request, responder)) return;
  const std::string& name = request.parameter("name");
  const auto disks = request.query.find("disks");
  if (disks == request.query.end())
    return answer(responder, parts.host.vms.remove(name, std::nullopt));
  if (disks->second != "remove" && disks->second != "keep") {
    return responder.error(kBadRequest, "disks: remove or keep", 2);
  }
  answer(responder, parts.host.vms.remove(name, disks->second == "remove"));
}

// What vms of this name left here when they moved away; where there is nothing of the kind, the vm.
// Never both at once: who clears away what was left has another vm of the name, which stays.
void purge_vm(Parts parts, const Request& request, Responder responder) {
  const std::string& name = request.parameter("name");
  bool had_left = false;
  for (const auto& disk : seen(request, parts.host.disks.list_left())) {
    if (disk["vm"] != name) continue;
    parts.host.replicas.make_way(name, disk["tenant"]);
    parts.host.disks.purge_left(name, disk["tenant"]);
    had_left = true;
  }
  if (had_left) return answer(responder, Result<>{});
  if (may_go(parts, request, responder)) answer(responder, parts.host.vms.remove(name, true));
}

using NicRequest = void (VmNics::*)(const std::string& vm, const std::string& port,
                                    VmNics::Answer answer);

VmNics::Answer to(Responder& responder) {
  return
      [later = shared(responder)](const Result<nlohmann::json>& result) { answer(*later, result); };
}

// Of a vm that is at rest, and one of its NICs.
auto of_nic(Parts parts, NicRequest method) {
  return [parts, method](const Request& request, Responder responder) {
    if (!is_at_rest(parts, request, responder)) return;
    (parts.host.nics.*method)(request.parameter("name"), request.parameter("port"), to(responder));
  };
}

void add_nic_routes(http::Server& server, Parts parts) {
  server.route("POST", "/v1/vms/{name}/nics", [parts](const Request& request, Responder responder) {
    const auto body = body_of(request, responder);
    if (!body || !is_at_rest(parts, request, responder)) return;
    parts.host.nics.plug(request.parameter("name"), *body, to(responder));
  });
  server.route("DELETE", "/v1/vms/{name}/nics/{port}", of_nic(parts, &VmNics::unplug));
  server.route("POST", "/v1/vms/{name}/nics/{port}/network",
               [parts](const Request& request, Responder responder) {
                 const auto body = body_of(request, responder);
                 if (!body || !is_at_rest(parts, request, responder)) return;
                 parts.host.nics.configure(request.parameter("name"), request.parameter("port"),
                                           *body, to(responder));
               });
  server.route("DELETE", "/v1/vms/{name}/nics/{port}/network", of_nic(parts, &VmNics::deconfigure));
}

std::vector<nlohmann::json> all_disks(Parts parts) {
  std::vector<nlohmann::json> all;
  for (const auto& vm : parts.host.vms.list()) {
    for (const auto& disk : vm["disks"]) {
      all.push_back(disk);
      all.back()["vm_state"] = vm["state"];
    }
  }
  for (auto& disk : parts.host.disks.list_left()) all.push_back(std::move(disk));
  return all;
}

void attach_console(Parts parts, const Request& request, Responder responder) {
  if (!vm_of(parts, request, responder)) return;
  Vm* vm = parts.host.vms.find(request.parameter("name"));
  if (vm == nullptr) {
    return responder.error(kNotFound,
                           fmt::format("there is no running vm '{}'", request.parameter("name")));
  }
  open_console(parts.loop, vm->paths().console().string(), std::move(responder));
}

}  // namespace

void add_vm_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/vms", [parts](const Request& request, Responder responder) {
    responder.json(200, seen(request, parts.host.vms.list()));
  });
  server.route("GET", "/v1/vms/{name}", [parts](const Request& request, Responder responder) {
    if (const auto vm = vm_of(parts, request, responder)) responder.json(200, *vm);
  });
  server.route("POST", "/v1/vms", [parts](const Request& request, Responder responder) {
    run_vm(parts, request, std::move(responder));
  });
  server.route("POST", "/v1/vms/{name}/stop", [parts](const Request& request, Responder responder) {
    const auto body = body_of(request, responder);
    if (!body || !vm_of(parts, request, responder)) return;
    const bool force = body->contains("force") && (*body)["force"] == true;
    parts.host.vms.stop(request.parameter("name"), force,
                        [to = shared(responder)](const Result<>& result) { answer(*to, result); });
  });
  server.route("POST", "/v1/vms/{name}/start",
               [parts](const Request& request, Responder responder) {
                 start_vm(parts, request, std::move(responder));
               });
  server.route("POST", "/v1/vms/{name}/purge",
               [parts](const Request& request, Responder responder) {
                 purge_vm(parts, request, std::move(responder));
               });
  server.route("GET", "/v1/disks", [parts](const Request& request, Responder responder) {
    responder.json(200, seen(request, all_disks(parts)));
  });
  server.route("DELETE", "/v1/vms/{name}", [parts](const Request& request, Responder responder) {
    remove_vm(parts, request, std::move(responder));
  });
  add_nic_routes(server, parts);
  // What is typed there changes the guest.
  server.route("GET", "/v1/vms/{name}/console", Access::change,
               [parts](const Request& request, Responder responder) {
                 attach_console(parts, request, std::move(responder));
               });
  // All of the guest's memory, and with it its secrets.
  server.route("GET", "/v1/vms/{name}/recording", Access::root,
               [parts](const Request& request, Responder responder) {
                 if (!vm_of(parts, request, responder)) return;
                 parts.host.recordings.open(request.parameter("name"), request,
                                            std::move(responder));
               });
}

void add_migration_routes(http::Server& server, Parts parts) {
  server.route("POST", "/v1/migrations", [parts](const Request& request, Responder responder) {
    if (const auto body = body_of(request, responder)) {
      parts.host.migrations.add(*body, *request.caller, std::move(responder));
    }
  });
  server.route("GET", "/v1/migrations", [parts](const Request& request, Responder responder) {
    responder.json(200, seen(request, parts.host.migrations.list()));
  });
  server.route("GET", "/v1/migrations/{id}", [parts](const Request& request, Responder responder) {
    if (const auto migration = migration_of(parts, request, responder)) {
      responder.json(200, *migration);
    }
  });
  server.route("GET", "/v1/migrations/{id}/events",
               [parts](const Request& request, Responder responder) {
                 if (!migration_of(parts, request, responder)) return;
                 const auto followed =
                     parts.host.migrations.follow(request.parameter("id"), responder.events());
                 (void)followed;  // known a moment ago; a target's stream just ends
               });
  const auto steer = [&](const char* verb, auto method) {
    server.route("POST", std::string("/v1/migrations/{id}/") + verb,
                 [parts, method](const Request& request, Responder responder) {
                   const auto body = body_of(request, responder);
                   if (!body || !migration_of(parts, request, responder)) return;
                   answer(responder, method(parts.host.migrations, request.parameter("id"), *body));
                 });
  };
  using Json = nlohmann::json;
  steer("cutover", [](Migrations& m, const std::string& id, const Json&) { return m.cutover(id); });
  steer("abort", [](Migrations& m, const std::string& id, const Json&) { return m.abort(id); });
  steer("set", [](Migrations& m, const std::string& id, const Json& b) { return m.set(id, b); });
  steer("resolve", [](Migrations& m, const std::string& id, const Json& b) {
    const auto said = [&](const char* word) { return b.contains(word) && b[word] == true; };
    using enum Migrations::Destroyed;
    return m.resolve(id, said("target_destroyed")   ? target
                         : said("source_destroyed") ? source
                                                    : none);
  });
}

}  // namespace godwit::agent
