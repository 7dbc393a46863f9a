#include "etcd/messages.hh"

#include <gtest/gtest.h>

#include <random>

namespace godwit::etcd {
namespace {

using nlohmann::json;

// docs/protocol/mapping.md
TEST(Messages, AreAsDocumented) {
  EXPECT_EQ(read_request({"a", "b"}).dump(),
            R"({"success":[{"requestRange":{"key":"YQ=="}},{"requestRange":{"key":"Yg=="}}]})");
  EXPECT_EQ(list_request("/g/", 7).dump(), R"({"key":"L2cv","limit":"7","range_end":"L2cw"})");
  EXPECT_EQ(
      write_request({.unchanged = {{"a", 5}, {"b", 0}}, .changes = {{"c", "x"}, {"d", {}}}}).dump(),
      R"({"compare":[{"key":"YQ==","mod_revision":"5","result":"EQUAL","target":"MOD"},)"
      R"({"key":"Yg==","mod_revision":"0","result":"EQUAL","target":"MOD"}],)"
      R"("success":[{"requestPut":{"key":"Yw==","value":"eA=="}},)"
      R"({"requestDeleteRange":{"key":"ZA=="}}]})");
}

// As etcd 3.4.23 answered.
TEST(Messages, ReadWhatEtcdAnswers) {
  const json header = {{"cluster_id", "14841639068965178418"}, {"revision", "5"}};
  const json pair = {{"key", "YQ=="},
                     {"create_revision", "2"},
                     {"mod_revision", "4"},
                     {"version", "2"},
                     {"value", "eA=="}};
  const Found found = {{"a", {.text = "x", .revision = 4}}};
  EXPECT_EQ(list_answer({{"header", header}, {"kvs", {pair}}, {"count", "1"}}).value(), found);
  EXPECT_EQ(list_answer({{"header", header}}).value(), Found{});
  const json range = {{"response_range", {{"header", header}, {"kvs", {pair}}}}};
  const json empty = {{"response_range", {{"header", header}}}};
  EXPECT_EQ(
      read_answer({{"header", header}, {"succeeded", true}, {"responses", {range, empty}}}).value(),
      found);
  EXPECT_TRUE(write_answer({{"header", header}, {"succeeded", true}}).value());
  EXPECT_FALSE(write_answer({{"header", header}}).value());  // false is absent
  EXPECT_EQ(authenticate_answer({{"token", "abc.7"}}).value(), "abc.7");
  EXPECT_EQ(error_text({{"error", "etcdserver: no leader"}, {"code", 14}}),
            "etcdserver: no leader");
}

TEST(Messages, RefuseWhatIsNoAnswer) {
  const json header = json::object();
  for (const json& wrong :
       {json(), json("x"), json::array(), json::object(), json{{"header", 7}},
        json{{"header", header}, {"kvs", 7}}, json{{"header", header}, {"kvs", {1}}},
        json{{"header", header}, {"kvs", {{{"key", "YQ=="}, {"value", "eA=="}}}}},
        json{{"header", header},
             {"kvs", {{{"key", "YQ=="}, {"value", "?"}, {"mod_revision", "1"}}}}},
        json{{"header", header},
             {"kvs", {{{"key", "YQ=="}, {"value", ""}, {"mod_revision", "1x"}}}}}}) {
    EXPECT_FALSE(list_answer(wrong)) << wrong;
    EXPECT_FALSE(read_answer(wrong)) << wrong;
  }
  EXPECT_FALSE(write_answer({{"succeeded", true}}));
  EXPECT_FALSE(authenticate_answer({{"token", "a\r\nX: y"}})) << "it becomes a header";
  EXPECT_EQ(error_text({{"error", "\x1b[2J" + std::string(1000, 'x')}}).size(), 300U);
  EXPECT_EQ(error_text({{"error", "\x1b[2J"}}), "?[2J");
  EXPECT_EQ(error_text(json(7)), "");
}

// Whatever JSON comes.
json by_chance(std::mt19937& random, int depth) {
  static const std::vector<std::string> kWords = {
      "header",         "kvs",  "key", "value", "mod_revision", "responses",
      "response_range", "YQ==", "1",   ""};
  const auto word = [&] { return kWords[random() % kWords.size()]; };
  json made;
  switch (random() % (depth > 0 ? 6 : 4)) {
    case 0:
      return nullptr;
    case 1:
      return word();
    case 2:
      return random() % 3;
    case 3:
      return random() % 2 == 0;
    case 4:
      made = json::array();
      for (auto i = random() % 3; i > 0; --i) made.push_back(by_chance(random, depth - 1));
      return made;
    default:
      made = json::object();
      for (auto i = random() % 5; i > 0; --i) made[word()] = by_chance(random, depth - 1);
      return made;
  }
}

TEST(Messages, SurviveAnyAnswer) {
  std::mt19937 random(7);
  for (int i = 0; i < 20'000; ++i) {
    const json answer = by_chance(random, 5);
    (void)list_answer(answer);
    (void)read_answer(answer);
    (void)write_answer(answer);
    (void)authenticate_answer(answer);
    (void)error_text(answer);
  }
}

}  // namespace
}  // namespace godwit::etcd
