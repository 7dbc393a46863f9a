#include "http/codec.hh"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace godwit::http {
namespace {

// Feeds `text` in pieces as a connection does, and returns what is left unread.
std::string feed_in_pieces(RequestParser& parser, std::string_view text, std::size_t piece) {
  Bytes input;
  while (!text.empty() && !parser.complete() && !parser.refusal()) {
    append(input, as_bytes(text.substr(0, piece)));
    text.remove_prefix(std::min(piece, text.size()));
    const std::size_t used = parser.feed(input);
    input.erase(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(used));
  }
  return std::string(as_text(input)) + std::string(text);
}

TEST(RequestParser, ARequestIsReadHoweverItIsCut) {
  const std::string text = write_request("POST", "/v1/vms?dry=1&x=a%20b", R"({"name":"web"})", "");
  for (std::size_t piece = 1; piece <= text.size(); ++piece) {
    RequestParser parser;
    EXPECT_EQ(feed_in_pieces(parser, text + "GET /next", piece).back(), 't');
    ASSERT_TRUE(parser.complete()) << "pieces of " << piece;
    const Request request = parser.take();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.path, "/v1/vms");
    EXPECT_EQ(request.query.at("dry"), "1");
    EXPECT_EQ(request.query.at("x"), "a b");
    EXPECT_EQ(request.body, R"({"name":"web"})");
    EXPECT_FALSE(request.keep_alive);
  }
}

TEST(RequestParser, WhatFollowsARequestStaysUnread) {
  RequestParser parser;
  const std::string one = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
  EXPECT_EQ(feed_in_pieces(parser, one + one, 10'000), one);
  EXPECT_EQ(parser.take().path, "/a");
  EXPECT_EQ(feed_in_pieces(parser, one, 10'000), "");
  EXPECT_TRUE(parser.complete());
}

TEST(RequestParser, AnUpgradeIsSeen) {
  RequestParser parser;
  feed_in_pieces(parser, write_request("GET", "/v1/vms/web/console", "", "console"), 10'000);
  EXPECT_EQ(parser.take().upgrade, "console");
}

TEST(RequestParser, GarbageIsRefused) {
  for (const std::string_view text :
       {"\r\n\r\n\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\x00\x01",
        "GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"}) {
    RequestParser parser;
    feed_in_pieces(parser, std::string(text) + "\r\n\r\n", 10'000);
    ASSERT_TRUE(parser.refusal()) << text;
    EXPECT_EQ(parser.refusal()->status, 400);
  }
}

TEST(RequestParser, LargeHeadersAndBodiesAreRefusedBeforeTheyAreKept) {
  RequestParser header;
  feed_in_pieces(header, "GET / HTTP/1.1\r\nX: " + std::string(2 * kMaxHeaderBytes, 'x'), 1000);
  ASSERT_TRUE(header.refusal());
  EXPECT_EQ(header.refusal()->status, 431);

  RequestParser body;
  const std::string length = std::to_string(kMaxRequestBody + 1);
  feed_in_pieces(body, "POST / HTTP/1.1\r\nContent-Length: " + length + "\r\n\r\n", 1000);
  ASSERT_TRUE(body.refusal());
  EXPECT_EQ(body.refusal()->status, 413);
}

// A last chunk with a broken line after it ended the process by an assertion in the library.
TEST(RequestParser, RefusesABodyInChunksWhateverIsInIt) {
  const std::string text = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nhlka\n";
  for (const std::size_t piece : {std::size_t{1}, std::size_t{18}, text.size()}) {
    RequestParser parser;
    feed_in_pieces(parser, text, piece);
    ASSERT_TRUE(parser.refusal()) << piece;
    EXPECT_EQ(parser.refusal()->status, 411);
  }
}

TEST(ResponseParser, ReadsWhatIsWritten) {
  ResponseParser parser;
  const std::string text = write_response(error_response(409, "no", 3), true);
  EXPECT_LT(parser.feed(as_bytes(text)), text.size());
  ASSERT_TRUE(parser.header_complete());
  EXPECT_EQ(parser.status(), 409);
  EXPECT_EQ(parser.content_type(), "application/json");
  parser.read_body();
  Bytes rest = to_bytes(as_bytes(text.substr(text.find("\r\n\r\n") + 4)));
  EXPECT_EQ(parser.feed(rest), rest.size());
  ASSERT_TRUE(parser.complete());
  EXPECT_EQ(nlohmann::json::parse(parser.body()), nlohmann::json({{"error", "no"}, {"exit", 3}}));
}

TEST(Message, PercentEncodingGoesBothWays) {
  const std::string odd = "a/b c%\xff?&=~";
  EXPECT_EQ(percent_encode("web-1"), "web-1");
  EXPECT_EQ(percent_encode("a/b"), "a%2Fb");
  EXPECT_EQ(percent_decode(percent_encode(odd)), odd);
  EXPECT_EQ(percent_decode("%zz%4"), "%zz%4");
}

TEST(Message, JsonBodies) {
  const auto parse = [](std::string text) {
    Request request;
    request.body = std::move(text);
    return json_body(request);
  };
  EXPECT_EQ(parse(""), nlohmann::json::object());
  EXPECT_FALSE(parse("[1]"));
  EXPECT_FALSE(parse("{"));
  EXPECT_EQ(parse(R"({"a":1})")->at("a"), 1);
}

}  // namespace
}  // namespace godwit::http
