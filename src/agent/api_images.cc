// Routes of the image library.
#include <algorithm>

#include "agent/api.hh"
#include "agent/api_answers.hh"
#include "agent/api_files.hh"

namespace godwit::agent {
namespace {

using http::Request;
using http::Responder;

constexpr int kAccepted = 202;

// One of its own tenant, or one that is for all.
bool may_use(const Request& request, const nlohmann::json& image) {
  return sees(request, image) || image["public"] == true;
}

bool sees_vm(Parts parts, const Request& request, const std::string& name) {
  const auto vm = parts.host.vms.show(name);
  return vm && sees(request, *vm);
}

// A public image has users of every tenant, who are absent for each other.
nlohmann::json as_seen(Parts parts, const Request& request, nlohmann::json image) {
  nlohmann::json users = nlohmann::json::array();
  for (const auto& vm : texts_field(image, "used_by")) {
    if (sees_vm(parts, request, vm)) users.push_back(vm);
  }
  image["used_by"] = users;
  return image;
}

// The image as the agent knows it, or the 404 was sent.
std::optional<nlohmann::json> image_of(Parts parts, const Request& request, Responder& responder) {
  const std::string& name = request.parameter("name");
  const auto image = parts.host.images.show(name);
  return known(image, image && may_use(request, *image), "image", name, parts.config.name,
               responder);
}

// One that the caller may change, or the 404 or 403 was sent.
std::optional<nlohmann::json> own_image_of(Parts parts, const Request& request,
                                           Responder& responder) {
  auto image = image_of(parts, request, responder);
  if (!image || sees(request, *image)) return image;
  responder.error(kForbidden, fmt::format("image {} is another tenant's: {} may use it only",
                                          request.parameter("name"), request.caller->name));
  return std::nullopt;
}

void add_image(Parts parts, const Request& request, Responder responder) {
  auto body = body_of(request, responder);
  if (!body || !claim_tenant(request, *body, responder)) return;
  const auto files = check_files(parts.config, *request.caller, *body, {"file"});
  if (!files) return responder.error(kForbidden, files.error().text);
  const auto begun = parts.host.images.add(*body);
  if (!begun) return responder.error(kConflict, begun.error().text);
  responder.json(kAccepted, *parts.host.images.show(text_field_or(*body, "name", "")));
}

void verify_image(Parts parts, const Request& request, Responder responder) {
  if (!own_image_of(parts, request, responder)) return;
  const std::string& name = request.parameter("name");
  const auto begun = parts.host.images.verify(name);
  if (!begun) return responder.error(kConflict, begun.error().text);
  responder.json(kAccepted, as_seen(parts, request, *parts.host.images.show(name)));
}

void remove_image(Parts parts, const Request& request, Responder responder) {
  const auto image = own_image_of(parts, request, responder);
  if (!image) return;
  const std::string& name = request.parameter("name");
  const auto users = texts_field(*image, "used_by");
  if (!std::ranges::all_of(users, [&](const auto& vm) { return sees_vm(parts, request, vm); })) {
    return responder.error(kConflict,
                           fmt::format("image {} is used by vms of other tenants too", name));
  }
  answer(responder, parts.host.images.remove(name));
}

}  // namespace

void add_image_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/images", [parts](const Request& request, Responder responder) {
    std::vector<nlohmann::json> seen;
    for (auto& image : parts.host.images.list()) {
      if (may_use(request, image)) seen.push_back(as_seen(parts, request, std::move(image)));
    }
    responder.json(200, seen);
  });
  server.route("GET", "/v1/images/{name}", [parts](const Request& request, Responder responder) {
    if (auto image = image_of(parts, request, responder)) {
      responder.json(200, as_seen(parts, request, *std::move(image)));
    }
  });
  server.route("POST", "/v1/images", [parts](const Request& request, Responder responder) {
    add_image(parts, request, std::move(responder));
  });
  server.route("POST", "/v1/images/{name}/verify",
               [parts](const Request& request, Responder responder) {
                 verify_image(parts, request, std::move(responder));
               });
  server.route("DELETE", "/v1/images/{name}", [parts](const Request& request, Responder responder) {
    remove_image(parts, request, std::move(responder));
  });
}

}  // namespace godwit::agent
