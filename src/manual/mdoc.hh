#pragma once
// Manual pages from the same source as --help: the commands and options of a CLI11 app as mdoc(7),
// put into a page of prose that is kept beside (docs/man/*.in). There, a line `.\" @commands@` is
// replaced by all subcommands, `.\" @options@` by the app's own options, and `.\" @made@` by a
// remark that the page is generated.
#include <CLI/CLI.hpp>
#include <string>
#include <string_view>

namespace godwit::manual {

std::string page(const CLI::App& app, std::string_view prose);

}  // namespace godwit::manual
