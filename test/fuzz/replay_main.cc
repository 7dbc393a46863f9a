// Stands in for libFuzzer where it is not linked: runs every corpus file and then a fixed, seeded
// set of random and mutated inputs, so that each decoder meets hostile bytes in every test run.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

constexpr int kRandomInputs = 500;
// A large corpus brings variety by itself: the time stays the same.
constexpr std::size_t kMutations = 3000;
constexpr std::size_t kMostMutationsPerSeed = 500;
constexpr std::size_t kMaxRandomBytes = 512;

using Input = std::vector<std::uint8_t>;

std::vector<Input> read_corpus(const std::filesystem::path& directory) {
  std::vector<Input> corpus;
  if (!std::filesystem::is_directory(directory)) return corpus;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    std::ifstream file(entry.path(), std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return corpus;
}

void run(const Input& input) { LLVMFuzzerTestOneInput(input.data(), input.size()); }

Input mutate(Input input, std::mt19937& random) {
  const int edits = 1 + static_cast<int>(random() % 4);
  for (int i = 0; i < edits && !input.empty(); ++i) {
    const std::size_t at = random() % input.size();
    switch (random() % 3) {
      case 0:
        input[at] = static_cast<std::uint8_t>(random());
        break;
      case 1:
        input.resize(at);
        break;
      default:
        input.insert(input.begin() + static_cast<std::ptrdiff_t>(at),
                     static_cast<std::uint8_t>(random()));
    }
  }
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  const auto corpus = argc > 1 ? read_corpus(argv[1]) : std::vector<Input>{};
  std::mt19937 random(20260101);
  const std::size_t mutations =
      corpus.empty() ? 0 : std::min(kMostMutationsPerSeed, kMutations / corpus.size());
  for (const auto& input : corpus) {
    run(input);
    for (std::size_t i = 0; i < mutations; ++i) run(mutate(input, random));
  }
  for (int i = 0; i < kRandomInputs; ++i) {
    Input input(random() % kMaxRandomBytes);
    for (auto& byte : input) byte = static_cast<std::uint8_t>(random());
    run(input);
  }
  std::printf("%zu corpus files, %d random inputs: no fault\n", corpus.size(), kRandomInputs);
  return 0;
}
