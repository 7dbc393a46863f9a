// The server over in-memory streams and over a real unix socket with the blocking client.
#include "http/server.hh"

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/test_directory.hh"
#include "http/client.hh"
#include "os/memory_stream.hh"

namespace godwit::http {
namespace {

using nlohmann::json;

// A client end of an in-memory stream that gathers what it is sent.
struct Peer {
  explicit Peer(std::unique_ptr<os::ByteStream> from) : stream(std::move(from)) {
    stream->start({.readable = [this] { read(); },
                   .writable = {},
                   .closed = [this](const std::string&) { closed = true; }});
  }
  void read() {
    std::array<std::byte, 4096> buffer;
    while (const std::size_t got = paused ? 0 : stream->read(buffer)) {
      received += as_text(BytesView(buffer).first(got));
    }
  }
  void send(std::string_view text) { ASSERT_EQ(stream->write(as_bytes(text)), text.size()); }

  std::unique_ptr<os::ByteStream> stream;
  std::string received;
  bool closed = false;
  bool paused = false;
};

struct ServerTest : ::testing::Test {
  std::unique_ptr<Peer> connect() {
    auto peer = std::make_unique<Peer>(link.take_a());
    server.serve(link.take_b());
    return peer;
  }
  // Lets everything happen that is due now, in the pipe and in the loop.
  void settle() {
    for (int i = 0; i < 5; ++i) {
      link.settle();
      loop.run_once(Nanoseconds(0));
    }
  }
  static std::string get(std::string_view path) {
    return fmt::format("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path);
  }

  os::Loop loop;
  os::MemoryLink link;
  Server server{loop};
};

TEST_F(ServerTest, RoutesByMethodAndPattern) {
  server.route("GET", "/v1/vms/{name}", [](const Request& request, Responder responder) {
    responder.json(200, {{"name", request.parameter("name")}});
  });
  const auto peer = connect();
  peer->send(get("/v1/vms/we%62"));
  settle();
  EXPECT_TRUE(peer->received.starts_with("HTTP/1.1 200 OK\r\n")) << peer->received;
  EXPECT_TRUE(peer->received.ends_with("{\"name\":\"web\"}\n")) << peer->received;
  peer->send(get("/v1/vms/") + get("/v1/none") + "DELETE /v1/vms/x HTTP/1.1\r\n\r\n");
  settle();
  EXPECT_TRUE(peer->received.contains("there is no /v1/vms/"));
  EXPECT_TRUE(peer->received.contains("there is no /v1/none"));
  EXPECT_TRUE(peer->received.contains("HTTP/1.1 405 "));
  EXPECT_EQ(server.connections(), 1u) << "keep-alive";
}

TEST_F(ServerTest, RemoteConnectionsAreBoundedByCallerAndApartFromLocalOnes) {
  std::vector<std::unique_ptr<os::MemoryLink>> links;
  std::vector<std::unique_ptr<os::ByteStream>> ends;
  const auto connect_as = [&](Role role, const std::string& name) {
    links.push_back(std::make_unique<os::MemoryLink>());
    ends.push_back(links.back()->take_a());
    const std::size_t before = server.connections();
    server.serve(links.back()->take_b(),
                 {.role = role, .name = name, .tenant = {}, .from = {}, .serial = {}});
    return server.connections() > before;
  };
  for (std::size_t i = 0; i < Server::kMaxPerCaller; ++i) {
    EXPECT_TRUE(connect_as(Role::viewer, "vera"));
  }
  EXPECT_FALSE(connect_as(Role::viewer, "vera"));
  std::size_t others = 0;
  while (connect_as(Role::operator_, fmt::format("user-{}", others))) ++others;
  EXPECT_EQ(others, Server::kMaxRemote - Server::kMaxPerCaller);
  for (std::size_t i = 0; i < Server::kMaxConnections; ++i) {
    EXPECT_TRUE(connect_as(Role::root, "uid 0"));
  }
  EXPECT_FALSE(connect_as(Role::root, "uid 0"));
  server.cut([](const Caller& caller) { return caller.name == "vera"; });
  EXPECT_TRUE(connect_as(Role::viewer, "vera"));
}

TEST_F(ServerTest, RolesAreCheckedBeforeTheRoute) {
  int called = 0;
  const auto handler = [&](const Request&, Responder responder) {
    ++called;
    responder.json(200, nullptr);
  };
  server.route("GET", "/read", handler);
  server.route("POST", "/change", handler);
  server.route("GET", "/root", Access::root, handler);
  const auto ask = [&](Role role, std::string_view request) {
    os::MemoryLink own;
    Peer peer(own.take_a());
    server.serve(own.take_b(), {.role = role, .name = "x", .tenant = {}, .from = {}, .serial = {}});
    peer.send(fmt::format("{} HTTP/1.1\r\nHost: x\r\n\r\n", request));
    for (int i = 0; i < 5; ++i) {
      own.settle();
      loop.run_once(Nanoseconds(0));
    }
    server.cut([](const Caller&) { return true; });
    return peer.received.substr(9, 3);
  };
  EXPECT_EQ(ask(Role::viewer, "GET /read"), "200");
  EXPECT_EQ(ask(Role::viewer, "POST /change"), "403");
  EXPECT_EQ(ask(Role::viewer, "GET /root"), "403");
  EXPECT_EQ(ask(Role::operator_, "POST /change"), "200");
  EXPECT_EQ(ask(Role::operator_, "GET /root"), "403");
  EXPECT_EQ(ask(Role::root, "GET /root"), "200");
  EXPECT_EQ(called, 3);
}

TEST_F(ServerTest, PipelinedRequestsAreAnsweredInOrderThoughTheFirstAnswersLater) {
  std::optional<Responder> later;
  server.route("GET", "/slow",
               [&](const Request&, Responder responder) { later.emplace(std::move(responder)); });
  server.route("GET", "/fast",
               [](const Request&, Responder responder) { responder.json(200, "fast"); });
  const auto peer = connect();
  peer->send(get("/slow") + get("/fast"));
  settle();
  EXPECT_EQ(peer->received, "");
  EXPECT_FALSE(later->abandoned());
  later->json(200, "slow");
  settle();
  EXPECT_LT(peer->received.find("\"slow\""), peer->received.find("\"fast\""));
  EXPECT_NE(peer->received.find("\"fast\""), std::string::npos);
  EXPECT_TRUE(later->abandoned()) << "answered once";
}

TEST_F(ServerTest, AHandlerThatThrowsOrForgetsBecomesA500) {
  server.route("GET", "/throw",
               [](const Request&, const Responder&) { fail_setup("cannot make the thing"); });
  server.route("GET", "/forget", [](const Request&, const Responder&) {});
  const auto peer = connect();
  peer->send(get("/throw") + get("/forget"));
  settle();
  EXPECT_TRUE(peer->received.contains("cannot make the thing")) << peer->received;
  EXPECT_TRUE(peer->received.contains("dropped this request")) << peer->received;
}

TEST_F(ServerTest, AClientThatLeftIsNoticedByTheResponder) {
  std::optional<Responder> later;
  server.route("GET", "/slow",
               [&](const Request&, Responder responder) { later.emplace(std::move(responder)); });
  auto peer = connect();
  peer->send(get("/slow"));
  settle();
  link.cut();
  settle();
  EXPECT_TRUE(later->abandoned());
  EXPECT_EQ(server.connections(), 0u);
  later->json(200, "nobody reads this");
}

TEST_F(ServerTest, EventsFlowAndBothEndsCanEndThem) {
  std::shared_ptr<EventStream> events;
  bool closed = false;
  server.route("GET", "/events", [&](const Request&, Responder responder) {
    events = responder.events();
    events->on_closed([&] { closed = true; });
  });
  const auto peer = connect();
  peer->send(get("/events"));
  settle();
  EXPECT_TRUE(peer->received.contains("text/event-stream"));
  EXPECT_TRUE(events->push("progress", {{"round", 1}}));
  settle();
  EXPECT_TRUE(peer->received.ends_with("event: progress\ndata: {\"round\":1}\n\n"));
  link.cut();
  settle();
  EXPECT_TRUE(closed);
  EXPECT_FALSE(events->push("progress", {}));
}

TEST_F(ServerTest, ClosingAStreamDeliversWhatWasPushed) {
  server.route("GET", "/events", [&](const Request&, Responder responder) {
    const auto events = responder.events();
    events->push("done", {{"ok", true}});
  });
  const auto peer = connect();
  peer->send(get("/events"));
  settle();
  EXPECT_TRUE(peer->received.ends_with("event: done\ndata: {\"ok\":true}\n\n"));
  EXPECT_TRUE(peer->closed);
}

TEST_F(ServerTest, AClientThatDoesNotReadItsEventsIsCutOff) {
  std::shared_ptr<EventStream> events;
  bool closed = false;
  server.route("GET", "/events", [&](const Request&, Responder responder) {
    events = responder.events();
    events->on_closed([&] { closed = true; });
  });
  const auto peer = connect();
  peer->send(get("/events"));
  settle();
  peer->paused = true;
  const json large = std::string(10'000, 'x');
  int pushed = 0;
  while (events->push("progress", large) && pushed < 1000) ++pushed, link.settle();
  EXPECT_FALSE(closed) << "not from inside push()";
  EXPECT_GT(pushed, 100);
  EXPECT_LT(pushed, 125);
  settle();
  EXPECT_TRUE(closed);
  EXPECT_EQ(server.connections(), 0u);
}

TEST_F(ServerTest, AnUpgradeHandsTheStreamOnWithWhatWasReadTooFar) {
  std::unique_ptr<os::ByteStream> raw;
  server.route("GET", "/console", [&](const Request& request, Responder responder) {
    EXPECT_EQ(request.upgrade, "console");
    responder.upgrade("console", [&](auto stream) { raw = std::move(stream); });
  });
  const auto peer = connect();
  peer->send(write_request("GET", "/console", "", "console") + "early");
  settle();
  EXPECT_TRUE(peer->received.starts_with("HTTP/1.1 101 "));
  EXPECT_EQ(server.connections(), 0u);
  ASSERT_NE(raw, nullptr);
  Peer console(std::move(raw));
  settle();
  EXPECT_EQ(console.received, "early");
  console.send("login: ");
  peer->send("root");
  settle();
  EXPECT_TRUE(peer->received.ends_with("login: "));
  EXPECT_EQ(console.received, "earlyroot");
}

TEST_F(ServerTest, HostileBytesCostTheirConnectionOnly) {
  const auto peer = connect();
  peer->send("\x16\x03\x01 this is not HTTP\r\n\r\n");
  settle();
  EXPECT_TRUE(peer->received.starts_with("HTTP/1.1 400 ")) << peer->received;
  EXPECT_TRUE(peer->closed);
}

// The real thing: a unix socket, the server in a thread, the blocking client here.
struct SocketTest : ::testing::Test {
  ~SocketTest() override {
    if (thread.joinable()) {
      loop.stop();
      thread.join();
    }
  }
  void run() {
    server.listen_unix(path, 0600);
    thread = std::thread([this] { loop.run(); });
  }

  const TestDirectory directory;
  const std::string path = (directory / "agent.sock").string();
  os::Loop loop;
  Server server{loop};
  // What handlers make lives in the loop's thread, and so ends after it (see the destructor).
  std::shared_ptr<EventStream> events;
  std::unique_ptr<Peer> console;
  std::thread thread;
};

TEST_F(SocketTest, RequestsAndRefusals) {
  server.route("POST", "/echo", [](const Request& request, Responder responder) {
    const auto body = json_body(request);
    if (!body) return responder.error(400, body.error().text, 2);
    responder.json(201, *body);
  });
  run();
  const Client client(path);
  const auto echoed = client.request("POST", "/echo", {{"a", 1}});
  ASSERT_TRUE(echoed) << echoed.error().text;
  EXPECT_EQ(echoed->status, 201);
  EXPECT_EQ(echoed->body, json({{"a", 1}}));
  const auto refused = client.request("POST", "/echo", json::array({1}));
  ASSERT_TRUE(refused);
  EXPECT_FALSE(refused->ok());
  EXPECT_EQ(refused->body.at("exit"), 2);
}

TEST_F(SocketTest, LargeAnswersArriveWhole) {
  const std::string large(5'000'000, 'g');
  server.route("GET", "/large",
               [&](const Request&, Responder responder) { responder.json(200, large); });
  run();
  const auto reply = Client(path).request("GET", "/large");
  ASSERT_TRUE(reply) << reply.error().text;
  EXPECT_EQ(reply->body, large);
}

TEST_F(SocketTest, EventsAreIteratedAndInterrupted) {
  server.route("GET", "/events", [&](const Request&, Responder responder) {
    events = responder.events();
    for (int i = 0; i < 3; ++i) events->push("tick", i);
  });
  server.route("GET", "/refused", [](const Request&, Responder responder) {
    responder.error(404, "no such migration");
  });
  run();
  const Client client(path);
  int seen = 0;
  EXPECT_EQ(client.events("/events", [&](const Event&) { return ++seen < 2; }), EventsEnd::stopped);
  EXPECT_EQ(seen, 2);

  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const os::Fd interrupt(ends[0]), trigger(ends[1]);
  const auto on_event = [&](const Event& event) {
    return event.data != "2" || ::write(trigger.number(), "x", 1) == 1;
  };
  EXPECT_EQ(client.events("/events", on_event, &interrupt), EventsEnd::interrupted);

  const auto refused = client.events("/refused", on_event);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().text, "no such migration");
}

TEST_F(SocketTest, UpgradeGivesARawSocket) {
  server.route("GET", "/console", [&](const Request&, Responder responder) {
    responder.upgrade("console", [&](auto stream) {
      console = std::make_unique<Peer>(std::move(stream));
      console->send("hello");
    });
  });
  run();
  auto upgraded = Client(path).upgrade("/console", "console");
  ASSERT_TRUE(upgraded) << upgraded.error().text;
  std::string text(as_text(upgraded->early));
  while (text.size() < 5) {
    pollfd ready{.fd = upgraded->channel->fd().number(), .events = POLLIN, .revents = 0};
    ASSERT_EQ(::poll(&ready, 1, 10'000), 1);
    std::array<std::byte, 16> some;
    text += as_text(BytesView(some).first(upgraded->channel->receive(some)));
    ASSERT_FALSE(upgraded->channel->ended());
  }
  EXPECT_EQ(text, "hello");
  EXPECT_FALSE(Client(path).upgrade("/none", "console"));
}

TEST(Client, SaysWhatIsWrongWhenNobodyAnswers) {
  const auto reply = Client("/nonexistent/agent.sock").request("GET", "/");
  ASSERT_FALSE(reply);
  EXPECT_TRUE(reply.error().text.contains("is godwitd running?")) << reply.error().text;
}

}  // namespace
}  // namespace godwit::http
