// godwit user add|ls|rm
#include <ostream>

#include "cli/options.hh"
#include "cli/table.hh"
#include "crypto/secret_file.hh"
#include "crypto/user.hh"

namespace godwit::cli {
namespace {

struct NewUser {
  std::string name, role, tenant, ttl, file;
};

crypto::UserIdentity::Hosts hosts_of(const json& answer) {
  crypto::UserIdentity::Hosts hosts;
  const json told = answer.value("hosts", json::object());
  for (const auto& [name, addresses] : told.items()) {
    hosts[name] = addresses.get<std::vector<std::string>>();
  }
  return hosts;
}

template <class T>
T must(Result<T> part) {
  if (!part) throw Failure(ExitStatus::failed, "the agent's answer: " + part.error().text);
  return *std::move(part);
}

// The key is made here and goes into the file only: the agent is sent what it certifies.
void certify(Context& context, const NewUser& user) {
  auto key = crypto::PrivateKey::make();
  json body = {{"name", user.name},
               {"role", user.role},
               {"csr", crypto::CertificateRequest::make(key, user.name).pem()}};
  set_if_given(body, "tenant", user.tenant);
  set_if_given(body, "ttl", user.ttl);
  const json made = context.post("/v1/users", body);
  const auto identity = must(crypto::UserIdentity::make(
      std::move(key), must(crypto::Certificate::from_pem(made.value("certificate", ""))),
      must(crypto::Certificate::from_pem(made.value("ca", ""))), hosts_of(made)));
  if (user.file == "-") {
    context.io.out << identity.pem();
    return;
  }
  const std::string file = user.file.empty() ? user.name + ".pem" : user.file;
  if (const auto wrote = crypto::write_file(file, identity.pem(), crypto::kSecretMode); !wrote) {
    throw Failure(ExitStatus::failed, wrote.error().text);
  }
  if (context.as_json) {
    json shown = made;
    shown["file"] = file;
    return context.print_json(shown);
  }
  context.io.out << fmt::format("{} holds the key of {}, {} of {}, until {}\n", file, user.name,
                                user.role,
                                user.tenant.empty() ? "every tenant" : "tenant " + user.tenant,
                                crypto::to_text(identity.certificate().not_after()));
  context.io.err << "Give it to them over a safe way; they keep it as "
                    "~/.config/godwit/identity.pem (mode 0600) and say: godwit -H HOST ...\n";
}

void list_users(Context& context) {
  const json users = context.fetch("/v1/users");
  if (context.as_json) return context.print_json(users);
  Table table({{"USER"}, {"ROLE"}, {"TENANT"}, {"UNTIL"}, {"STATE"}, {"CERTIFICATE"}});
  for (const json& user : users) {
    const std::string tenant = user.value("tenant", "");
    const crypto::WallTime until{std::chrono::seconds(user.value("expires", std::int64_t{0}))};
    table.row({text_of(user, "name"), text_of(user, "role"), tenant.empty() ? "every one" : tenant,
               crypto::to_text(until), user.value("revoked", false) ? "revoked" : "good",
               text_of(user, "serial")});
  }
  context.io.out << table.text("no users");
}

}  // namespace

void add_user(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("user", "Users of the API over the network");
  noun->require_subcommand(1);
  auto* ls = noun->add_subcommand("ls", "List the users that this host certified");
  add_json(*ls, context);
  ls->callback([&context] { list_users(context); });

  auto* add = noun->add_subcommand("add", "Certify a user; on the host that founded the fleet");
  auto user = std::make_shared<NewUser>();
  add_name(*add, "USER", user->name, "Name of the user")->required();
  add->add_option("--role", user->role, "operator: may change things; viewer: may read")
      ->required()
      ->check(CLI::IsMember({"operator", "viewer"}));
  add_name(*add, "--tenant", user->tenant, "The only tenant that exists for them (default: all)")
      ->type_name("TENANT");
  add_duration(*add, "--ttl", user->ttl, "How long the certificate is good for (default 720h)");
  add->add_option("--out", user->file, "File to write, mode 0600 (default USER.pem; - prints it)")
      ->type_name("FILE");
  add_json(*add, context);
  add->callback([&context, user] { certify(context, *user); });

  auto* rm = noun->add_subcommand("rm", "Revoke a user's certificates, on all hosts");
  auto name = std::make_shared<std::string>();
  add_name(*rm, "USER", *name, "User")->required();
  rm->callback([&context, name] {
    context.remove(path_of("users", *name));
    context.say(fmt::format("user {} is revoked", *name));
  });
}

}  // namespace godwit::cli
