// `godwit debug stream bench` over the stream of a made-up guest.
#include "cli/stream_bench.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "cli/fake_agent.hh"
#include "codec/made_up_guest.hh"
#include "stream/qemu_rebuild.hh"

namespace godwit::cli {
namespace {

using ::testing::HasSubstr;

struct StreamBench : ::testing::Test {
  std::string file(BytesView bytes) {
    const auto path = directory / "guest.stream";
    std::ofstream(path, std::ios::binary) << as_text(bytes);
    return path.string();
  }
  static Ran bench(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"debug", "stream", "bench"});
    return run_cli("", std::move(arguments));
  }

  TestDirectory directory;
  const Bytes guest = codec::MadeUpGuest(7, 100).stream(5);
};

TEST_F(StreamBench, ShowsWhatEachEncodingAndEachCodingLeaves) {
  const auto ran = bench(
      {file(guest), "--cache", "200KiB", "--level", "1", "--level", "5", "--bound", "--json"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  const json result = json::parse(ran.out);
  EXPECT_EQ(result["bytes"], guest.size());
  EXPECT_EQ(result["settings"]["cache_bytes"], 200 << 10);
  EXPECT_EQ(result["settings"]["levels"], json({1, 5}));
  EXPECT_EQ(result["exact"], true);
  std::uint64_t bytes = 0, pages = 0, encoded = 0;
  for (const json& row : result["encodings"]) {
    bytes += row["bytes"].get<std::uint64_t>();
    encoded += row["encoded_bytes"].get<std::uint64_t>();
    if (row["name"] != "opaque") pages += row["pages"].get<std::uint64_t>();
  }
  EXPECT_EQ(bytes, guest.size());
  EXPECT_EQ(pages,
            result["pages"].get<std::uint64_t>() + result["zero_pages"].get<std::uint64_t>());
  const auto& codings = result["codings"];
  ASSERT_EQ(codings.size(), 5U);
  EXPECT_EQ(codings[1]["name"], "pages, zstd -1");
  EXPECT_EQ(codings[2]["name"], "pages, zstd -5");
  const auto left = [&](std::size_t i) { return codings[i]["encoded_bytes"].get<std::uint64_t>(); };
  EXPECT_GT(left(0), encoded) << "and the headers of the batches";
  EXPECT_LT(left(0), guest.size());
  EXPECT_LT(left(1), left(0));
  EXPECT_LT(left(4), left(3));
  for (const json& row : codings) {
    EXPECT_DOUBLE_EQ(row["ratio"].get<double>(),
                     double(guest.size()) / row["encoded_bytes"].get<double>());
    EXPECT_GT(row["encode_gb_per_s"].get<double>(), 0);
    EXPECT_EQ(row["decode_gb_per_s"].is_null(), &row == &codings[4]);
  }
}

TEST_F(StreamBench, PrintsTablesAlsoOfARecordingThatWasCut) {
  const auto ran = bench({file(BytesView(guest).first(guest.size() / 2 + 5))});
  EXPECT_EQ(ran.status, 0) << ran.err;
  for (const char* word :
       {"PAGES BECOME", "delta", "opaque", "pages, zstd -2", "zstd -3 --long=27", "bit for bit"}) {
    EXPECT_THAT(ran.out, HasSubstr(word));
  }
  EXPECT_EQ(ran.err, "") << "no terminal, no progress";
}

TEST_F(StreamBench, WhatIsNoStreamIsNamed) {
  const Bytes header(guest.begin(), guest.begin() + 8);
  for (const auto& [bytes, why] : {std::pair(to_bytes(as_bytes("#!/bin/sh\n")), "23212f62696e2f73"),
                                   {Bytes{}, "it is empty"},
                                   {header, "there is no page in its 8 bytes"}}) {
    const std::string path = file(bytes);
    const auto ran = bench({path});
    EXPECT_EQ(ran.status, 1);
    EXPECT_EQ(ran.out, "");
    EXPECT_THAT(ran.err, HasSubstr(path + " is no recorded migration stream: "));
    EXPECT_THAT(ran.err, HasSubstr(why));
    EXPECT_THAT(ran.err, HasSubstr("QEVM"));
  }
  EXPECT_THAT(bench({directory.path().string()}).err, HasSubstr("not a regular file"));
  EXPECT_THAT(bench({"/nonexistent/file"}).err, HasSubstr("No such file"));
}

// What a decoder gives that has a bug: no more than `until` bytes, or other ones.
struct Wrong final : Coding {
  explicit Wrong(std::size_t until, std::byte change) : until_(until), change_(change) {}
  void encode(BytesView raw, Bytes& coded) override { append(coded, raw); }
  void finish(Bytes&) override {}
  Result<> decode(BytesView coded, Bytes& raw) override {
    append(raw, coded.first(std::min(until_, coded.size())));
    until_ -= raw.size();
    if (!raw.empty()) raw.back() ^= change_;
    return {};
  }
  std::size_t until_;
  std::byte change_;
};

TEST_F(StreamBench, WhatIsDecodedIsCompared) {
  const auto stream = StreamFile::open(file(guest));
  ASSERT_TRUE(stream);
  const auto passes = [&](Wrong coding) { return measure(coding, *stream, [](auto) {}); };
  EXPECT_TRUE(passes(Wrong(SIZE_MAX, std::byte{0})));
  EXPECT_THAT(passes(Wrong(SIZE_MAX, std::byte{1})).error().text, HasSubstr(stream->path()));
  EXPECT_THAT(passes(Wrong(1000, std::byte{0})).error().text, HasSubstr("only 1000 bytes of"));
}

TEST_F(StreamBench, TheBoundIsEachPageOnce) {
  struct Pages final : stream::QemuSink {
    void opaque(BytesView) override {}
    void mark(const stream::QemuMark&) override {}
    void page(const stream::PageRecord& record) override {
      if (record.kind == stream::PageRecord::Kind::kPage) all.emplace(as_text(record.contents));
    }
    std::set<std::string> all;
  } pages;
  stream::QemuParser parser(pages);
  parser.push(guest);
  const auto bound = unique_pages(1);
  Bytes coded, decoded;
  bound->encode(BytesView(guest).first(5000), coded);
  bound->encode(BytesView(guest).subspan(5000), coded);
  bound->finish(coded);
  ASSERT_TRUE(zstd_coding(1)->decode(coded, decoded));
  EXPECT_EQ(decoded.size(), pages.all.size() * codec::MadeUpGuest::kPage);
  std::set<std::string> kept;
  for (std::size_t at = 0; at < decoded.size(); at += codec::MadeUpGuest::kPage) {
    kept.emplace(as_text(BytesView(decoded).subspan(at, codec::MadeUpGuest::kPage)));
  }
  EXPECT_EQ(kept, pages.all);
}

// Each look at it takes a while.
struct SlowClock final : os::Clock {
  Instant now() const override { return now_ += seconds(2); }
  mutable Instant now_{};
};

TEST_F(StreamBench, ShowsProgressOnATerminalWhenItTakesLong) {
  const SlowClock clock;
  std::ostringstream out, err;
  Io io{.out = out, .err = err, .clock = clock, .err_is_terminal = true};
  EXPECT_EQ(run({"debug", "stream", "bench", file(guest)}, io), ExitStatus::done);
  EXPECT_THAT(err.str(), HasSubstr("zstd -3 --long=27  100 %"));
  EXPECT_THAT(err.str(), HasSubstr("/s  ETA "));
}

}  // namespace
}  // namespace godwit::cli
