#include "etcd/gateway.hh"

#include <curl/curl.h>
#include <sys/socket.h>

#include <array>
#include <fstream>

#include "etcd/messages.hh"

namespace godwit::etcd {

using nlohmann::json;

namespace {

// A list of 10,000 mappings has 5 MB.
constexpr std::size_t kMostAnswer = 16U << 20U;
constexpr long kUnauthorized = 401, kServerError = 500;
constexpr int kUnauthenticated = 16;  // gRPC's code, of a token that has ended

void set_up_curl() {
  static const CURLcode done = ::curl_global_init(CURL_GLOBAL_DEFAULT);
  if (done != CURLE_OK) fail_setup("libcurl: {}", ::curl_easy_strerror(done));
}

std::size_t receive(const char* data, std::size_t size, std::size_t count, void* answer) {
  auto& text = *static_cast<std::string*>(answer);
  if (text.size() + size * count > kMostAnswer) return 0;  // curl ends the request
  text.append(data, size * count);
  return size * count;
}

// None of ours may be a child's: QEMU is started by other threads meanwhile.
curl_socket_t open_socket(void*, curlsocktype, curl_sockaddr* address) {
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

int stop_if_told(void* stops, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const std::atomic<bool>*>(stops)->load() ? 1 : 0;
}

Result<std::string> first_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line) || line.empty()) {
    return fail("no password can be read from {}", path.string());
  }
  return line;
}

bool is_about_token(long status, const json& body) {
  const auto code = body.is_object() ? body.find("code") : body.end();
  return status == kUnauthorized || (code != body.end() && *code == kUnauthenticated);
}

}  // namespace

struct Gateway::Curl {
  CURL* easy = ::curl_easy_init();
  curl_slist* headers = nullptr;
  std::array<char, CURL_ERROR_SIZE> error{};

  Curl() {
    if (easy == nullptr) fail_setup("libcurl cannot be set up");
  }
  Curl(const Curl&) = delete;
  Curl& operator=(const Curl&) = delete;
  ~Curl() {
    ::curl_easy_cleanup(easy);
    ::curl_slist_free_all(headers);
  }
  template <class T>
  void set(CURLoption option, T value) {
    const CURLcode done = ::curl_easy_setopt(easy, option, value);
    if (done != CURLE_OK) fail_setup("libcurl: {}", ::curl_easy_strerror(done));
  }
  void set_headers(const std::string& token) {
    ::curl_slist_free_all(std::exchange(headers, nullptr));
    headers = ::curl_slist_append(headers, "Content-Type: application/json");
    headers = ::curl_slist_append(headers, "Expect:");  // no round trip to ask whether it may
    if (!token.empty()) headers = ::curl_slist_append(headers, ("Authorization: " + token).c_str());
    set(CURLOPT_HTTPHEADER, headers);
  }
};

Gateway::Gateway(Access access, const std::atomic<bool>& stops) : access_(std::move(access)) {
  set_up_curl();
  curl_ = std::make_unique<Curl>();
  curl_->set(CURLOPT_NOSIGNAL, 1L);
  curl_->set(CURLOPT_PROXY, "");  // whatever the environment says
  curl_->set(CURLOPT_PROTOCOLS_STR, "http,https");
  curl_->set(CURLOPT_TIMEOUT_MS, static_cast<long>(to_ms(access_.timeout)));
  curl_->set(CURLOPT_WRITEFUNCTION, &receive);
  curl_->set(CURLOPT_OPENSOCKETFUNCTION, &open_socket);
  curl_->set(CURLOPT_NOPROGRESS, 0L);
  curl_->set(CURLOPT_XFERINFOFUNCTION, &stop_if_told);
  curl_->set(CURLOPT_XFERINFODATA, &stops);
  curl_->set(CURLOPT_ERRORBUFFER, curl_->error.data());
  set_access();
}

Gateway::~Gateway() = default;

void Gateway::set_access() {
  curl_->set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!access_.ca.empty()) {
    curl_->set(CURLOPT_CAINFO, access_.ca.c_str());
    curl_->set(CURLOPT_CAPATH, static_cast<const char*>(nullptr));  // not the system's as well
  }
  if (!access_.certificate.empty()) {
    curl_->set(CURLOPT_SSLCERT, access_.certificate.c_str());
    curl_->set(CURLOPT_SSLKEY, access_.key.c_str());
  }
}

Result<Gateway::Reply> Gateway::ask(const std::string& endpoint, const std::string& path,
                                    const std::string& body) {
  std::string answer;
  curl_->error[0] = '\0';
  curl_->set(CURLOPT_URL, (endpoint + path).c_str());
  curl_->set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_->set(CURLOPT_POSTFIELDS, body.data());
  curl_->set(CURLOPT_WRITEDATA, &answer);
  const CURLcode done = ::curl_easy_perform(curl_->easy);
  if (done != CURLE_OK) {
    const char* why = curl_->error[0] == '\0' ? ::curl_easy_strerror(done) : curl_->error.data();
    return fail("etcd at {}: {}", endpoint, why);
  }
  Reply reply{.body = json::parse(answer, nullptr, false)};
  ::curl_easy_getinfo(curl_->easy, CURLINFO_RESPONSE_CODE, &reply.status);
  // One that has no leader, or no quorum, says so: another may have.
  if (reply.status >= kServerError) {
    return fail("etcd at {}: status {} {}", endpoint, reply.status, error_text(reply.body));
  }
  return reply;
}

Result<Gateway::Reply> Gateway::ask_any(const std::string& path, const std::string& body) {
  curl_->set_headers(token_);
  Result<Reply> reply = fail("etcd has no endpoints");
  for (std::size_t i = 0; i < access_.endpoints.size(); ++i) {
    const std::size_t which = (preferred_ + i) % access_.endpoints.size();
    reply = ask(access_.endpoints[which], path, body);
    if (!reply) continue;
    preferred_ = which;
    return reply;
  }
  return reply;
}

Result<> Gateway::authenticate() {
  token_.clear();
  const auto password = first_line(access_.password);
  if (!password) return std::unexpected(password.error());
  const auto reply =
      ask_any("/v3/auth/authenticate", authenticate_request(access_.user, *password).dump());
  if (!reply) return std::unexpected(reply.error());
  auto token = authenticate_answer(reply->body);
  if (!token) {
    return fail("etcd does not take user {}: {}", access_.user, error_text(reply->body));
  }
  token_ = *std::move(token);
  return {};
}

Result<json> Gateway::call(const std::string& path, const json& body) {
  const std::string text = body.dump();
  for (int attempt = 0;; ++attempt) {
    if (!access_.user.empty() && token_.empty()) {
      if (const auto done = authenticate(); !done) return std::unexpected(done.error());
    }
    auto reply = ask_any(path, text);
    if (!reply) return std::unexpected(reply.error());
    // A token ends five minutes after its last use.
    if (attempt == 0 && !token_.empty() && is_about_token(reply->status, reply->body)) {
      token_.clear();
      continue;
    }
    if (reply->status == 200 && reply->body.is_object()) return std::move(reply->body);
    return fail("etcd at {} refuses: status {} {}", access_.endpoints[preferred_], reply->status,
                error_text(reply->body));
  }
}

}  // namespace godwit::etcd
