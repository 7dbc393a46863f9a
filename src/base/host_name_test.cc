#include "base/host_name.hh"

#include <gtest/gtest.h>

namespace godwit {
namespace {

TEST(HostNameTest, AHostOfAnotherFleetIsQualified) {
  EXPECT_EQ(host_of_fleet("b1", "beta"), "b1@beta");
  EXPECT_EQ(fleet_of("b1@beta"), "beta");
  EXPECT_EQ(name_in_fleet("b1@beta"), "b1");
  EXPECT_EQ(fleet_of("b1"), "");
  EXPECT_EQ(name_in_fleet("b1"), "b1");
  EXPECT_TRUE(is_foreign("b1@beta"));
  EXPECT_FALSE(is_foreign("b1"));
}

TEST(HostNameTest, WhatIsNoName) {
  for (const char* good : {"b1", "b1@beta"}) EXPECT_TRUE(is_valid_host(good)) << good;
  for (const char* bad : {"", "@", "b1@", "@beta", "b1@beta@gamma", "b1@be/ta", "B@beta"}) {
    EXPECT_FALSE(is_valid_host(bad)) << bad;
  }
}

}  // namespace
}  // namespace godwit
