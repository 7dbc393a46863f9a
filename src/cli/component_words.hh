#pragma once
// Parts of components as words of the command line: "web,access=10,isolated" is a port, and
// "10.8.0.0/16,via=10.7.0.3" a route. What they mean is for the agent to say.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace godwit::cli {

// "10", "yes", "10+20" (a list) or a text.
nlohmann::json value_of(const std::string& text);
// The first word is that of `first`; others are KEY=VALUE, or KEY for yes. Keys as the API has
// them, or as people write them: lease=1h, flood=500, dhcp-relay=...
nlohmann::json object_of(const std::string& text, std::string_view first);
// "52:54:00:12:34:56@web,10": an address that stays.
nlohmann::json pinned_mac_of(const std::string& text);
// The same back, without what people did not write: "access=10,isolated".
std::string as_words(const nlohmann::json& object);

}  // namespace godwit::cli
