// godwit completion: what a shell evaluates. The words come from `godwit complete` (complete.cc).
#include <ostream>

#include "cli/options.hh"

namespace godwit::cli {
namespace {

constexpr const char* kBash = R"sh(# bash completion of godwit: eval "$(godwit completion bash)"
_godwit() {
  local line words cur=${COMP_WORDS[COMP_CWORD]} prefix candidate
  # Bash cuts words at '=' and ':' too: the tool gets what was typed, bash gets the last piece.
  line=${COMP_LINE:0:COMP_POINT}
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  cur=${words[-1]##*[=:]}
  prefix=${words[-1]%"$cur"}
  COMPREPLY=()
  while IFS=$'\t' read -r candidate _; do
    if [[ $candidate == :file ]]; then
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "$cur")
      return
    fi
    [[ $candidate == */ ]] && compopt -o nospace 2>/dev/null
    COMPREPLY+=("${candidate#"$prefix"}")
  done < <("${words[0]}" complete "${words[@]:1}" 2>/dev/null)
}
complete -F _godwit godwit
)sh";

constexpr const char* kZsh = R"sh(#compdef godwit
# zsh completion of godwit: eval "$(godwit completion zsh)", or as _godwit in a directory of fpath.
_godwit() {
  local -a lines found
  local line name
  lines=("${(@f)$(${words[1]} complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  for line in $lines; do
    if [[ $line == :file ]]; then
      _files
      return
    fi
    name=${line%%$'\t'*}
    found+=("${name//:/\\:}:${line#*$'\t'}")
  done
  _describe 'godwit' found
}
if [[ $funcstack[1] == _godwit ]]; then _godwit "$@"; else compdef _godwit godwit; fi
)sh";

constexpr const char* kFish = R"sh(# fish completion of godwit: godwit completion fish | source
function __godwit_complete
  set -l words (commandline -opc)
  set -l current (commandline -ct)
  set -l found ($words[1] complete $words[2..-1] "$current" 2>/dev/null)
  if test "$found[1]" = :file
    __fish_complete_path "$current"
  else
    printf '%s\n' $found
  end
end
complete -c godwit -f -a '(__godwit_complete)'
)sh";

}  // namespace

void add_completion(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand("completion", "Print what makes a shell complete godwit's words");
  auto shell = std::make_shared<std::string>();
  verb->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  verb->callback([&context, shell] {
    context.io.out << (*shell == "bash" ? kBash : *shell == "zsh" ? kZsh : kFish);
  });
}

}  // namespace godwit::cli
