// The client against played servers of one answer each, on this machine's loopback; the real etcd
// is in test/e2e/test_mapping.py.
#include "etcd/client.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <optional>

#include "base/test_directory.hh"

namespace godwit::etcd {
namespace {

using testing::HasSubstr;

std::string http(int status, const std::string& body) {
  return fmt::format("HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}", status,
                     body.size(), body);
}

// Answers connections with these texts, one each, and hangs up; then nothing answers any more.
class Played {
 public:
  explicit Played(std::vector<std::string> answers)
      : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), answers_(std::move(answers)) {
    sockaddr_in address{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {}, .sin_zero = {}};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    EXPECT_EQ(::listen(socket_, 5), 0);
    url = fmt::format("http://127.0.0.1:{}", ntohs(address.sin_port));
    thread_ = std::thread([this] { run(); });
  }
  ~Played() {
    ::shutdown(socket_, SHUT_RDWR);
    thread_.join();
    if (socket_ >= 0) ::close(socket_);
  }
  std::string url;
  std::vector<std::string> asked() {
    thread_.join();
    thread_ = std::thread([] {});
    return asked_;
  }

 private:
  void run() {
    for (const auto& answer : answers_) {
      const int its = ::accept(socket_, nullptr, nullptr);
      if (its < 0) return;
      std::string request;
      std::array<char, 4096> buffer{};
      while (!is_whole(request)) {
        const ssize_t got = ::read(its, buffer.data(), buffer.size());
        if (got <= 0) break;
        request.append(buffer.data(), static_cast<std::size_t>(got));
      }
      asked_.push_back(request);
      EXPECT_EQ(::write(its, answer.data(), answer.size()), static_cast<ssize_t>(answer.size()));
      ::close(its);
    }
    ::shutdown(socket_, SHUT_RDWR);
  }
  static bool is_whole(const std::string& request) {
    const auto head = request.find("\r\n\r\n");
    const auto length = request.find("Content-Length: ");
    return head != std::string::npos && length != std::string::npos &&
           request.size() >= head + 4 + std::stoul(request.substr(length + 16));
  }

  int socket_;
  std::vector<std::string> answers_, asked_;
  std::thread thread_;
};

struct ClientTest : testing::Test {
  Result<Found> read(Client& client) {
    std::optional<Result<Found>> told;
    client.read({"a"}, [&](Result<Found> result) { told = std::move(result); });
    while (!told) loop.run_once(milliseconds(50));
    return *told;
  }
  os::Loop loop;
  const std::string good = http(
      200,
      R"({"header":{},"responses":[{"response_range":{"kvs":[{"key":"YQ==","value":"eA==","mod_revision":"3"}]}}]})");
  const Found found = {{"a", {.text = "x", .revision = 3}}};
};

TEST_F(ClientTest, AsksTheNextEndpointIfOneIsGoneOrHasNoLeader) {
  std::string gone;
  {
    gone = Played({}).url;
  }
  Played leaderless({http(503, R"({"error":"etcdserver: no leader","code":14})")});
  Played leader({good, good});
  Client client(loop, {.endpoints = {gone, leaderless.url, leader.url}});
  EXPECT_EQ(read(client).value(), found);
  EXPECT_EQ(read(client).value(), found);  // which answered is asked first
  const auto asked = leader.asked();
  ASSERT_EQ(asked.size(), 2U);
  EXPECT_THAT(asked[0], HasSubstr("POST /v3/kv/txn HTTP/1.1\r\n"));
  EXPECT_THAT(asked[0], HasSubstr(R"({"success":[{"requestRange":{"key":"YQ=="}}]})"));
  const auto none = read(client);
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().text, HasSubstr("etcd at http://127.0.0.1"));
}

TEST_F(ClientTest, AuthenticatesAndAgainWhenTheTokenHasEnded) {
  TestDirectory directory;
  std::ofstream(directory.path() / "password") << "s3cret\n";
  const auto token = [](const char* text) {
    return http(200, fmt::format(R"({{"token":"{}"}})", text));
  };
  Played etcd(
      {token("t1"), http(401, R"({"error":"invalid auth token","code":16})"), token("t2"), good});
  Client client(
      loop, {.endpoints = {etcd.url}, .user = "godwit", .password = directory.path() / "password"});
  EXPECT_EQ(read(client).value(), found);
  const auto asked = etcd.asked();
  ASSERT_EQ(asked.size(), 4U);
  EXPECT_THAT(asked[0], HasSubstr(R"({"name":"godwit","password":"s3cret"})"));
  EXPECT_THAT(asked[1], HasSubstr("Authorization: t1\r\n"));
  EXPECT_THAT(asked[3], HasSubstr("Authorization: t2\r\n"));
}

TEST_F(ClientTest, WhatIsNoAnswerIsAnError) {
  for (const std::string& answer :
       {std::string("SSH-2.0-x\r\n"), http(200, "<html>"), http(200, "[]"), http(200, "{}"),
        http(302, "{}"), http(400, R"({"error":"etcdserver: key is not provided","code":3})")}) {
    Played etcd({answer});
    Client client(loop, {.endpoints = {etcd.url}});
    EXPECT_FALSE(read(client)) << answer;
  }
}

TEST_F(ClientTest, WhoDoesNotAnswerIsGivenUpAndWaitsAreBounded) {
  std::string gone;
  {
    gone = Played({}).url;
  }
  Client client(loop, {.endpoints = {gone}, .timeout = milliseconds(200)});
  std::size_t told = 0, refused = 0;
  for (std::size_t i = 0; i < Client::kMostWaiting + 5; ++i) {
    client.read({"a"}, [&](const Result<Found>& answer) {
      ++told;
      if (answer.error().text.find("wait for etcd already") != std::string::npos) ++refused;
    });
  }
  while (told < Client::kMostWaiting + 5) loop.run_once(milliseconds(50));
  EXPECT_EQ(refused, 5U);
}

}  // namespace
}  // namespace godwit::etcd
