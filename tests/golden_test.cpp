// Golden files: every pass on graphs written as text, against the text of what it shall leave.
// tests/golden/PASS.txt holds the cases of one pass, each as
//
//   # case: what it shows, in plain words
//   # passes: fuse_early_bias, fold_batch_norm
//   graph "g" { ... }
//   ---
//   graph "g" { ... }
//
// These passes alone run, in this order (`all`: the whole pipeline); "unchanged" stands for the
// graph as it was. To add a case, write it as far as its input and run `./dev golden`, which writes
// what comes out in place of all that stands behind a "---". Then read it: this program can say
// whether the result computes the same, not whether it is what you wanted.
#include "frontend/constants.h"
#include "frontend/weights.h"
#include "ir/compare.h"
#include "ir/evaluate.h"
#include "passes/pipeline.h"
#include "tests/tensors.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

using namespace lathe::core;
namespace fs = std::filesystem;

namespace {

const fs::path folder = fs::path(LATHE_SOURCE_DIR) / "tests" / "golden";

// --- The files

struct Case {
  std::string title, passes = {}, input = {}, expected = {};
};
struct Golden {
  std::string comment; // before the first case
  std::vector<Case> cases;
};

Golden read(const fs::path &path) {
  const std::string title = "# case: ", passes = "# passes: ";
  Golden golden;
  std::ifstream file(path);
  std::string *part = &golden.comment;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(title)) {
      golden.cases.push_back({.title = line.substr(title.size())});
      part = &golden.cases.back().input;
    } else if (line.starts_with(passes) && !golden.cases.empty()) {
      golden.cases.back().passes = line.substr(passes.size());
    } else if (line == "---" && !golden.cases.empty()) {
      part = &golden.cases.back().expected;
    } else if (!line.empty()) {
      *part += line + "\n";
    }
  }
  return golden;
}

void write(const fs::path &path, const Golden &golden) {
  std::ofstream file(path);
  file << golden.comment;
  for (const Case &c : golden.cases)
    file << "\n# case: " << c.title << "\n# passes: " << c.passes << "\n"
         << c.input << "---\n"
         << c.expected;
  CHECK(file.flush().good());
}

std::set<fs::path> golden_files() {
  std::set<fs::path> files; // in the same order everywhere
  for (const fs::directory_entry &entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".txt") files.insert(entry.path());
  return files;
}

// --- A case

std::vector<const Pass *> passes_of(const Case &c) {
  std::string names = c.passes;
  std::ranges::replace(names, ',', ' ');
  std::istringstream words(names);
  std::vector<const Pass *> passes;
  for (std::string name; words >> name;) {
    const size_t before = passes.size();
    for (const Pass &pass : pipeline())
      if (name == "all" || name == pass.name) passes.push_back(&pass);
    CHECK_MESSAGE(passes.size() > before, "no pass has the name ", name);
  }
  return passes;
}

// As run_passes does it.
void run(const Pass &pass, Graph &graph) {
  CAPTURE(pass.name);
  const std::string before = print(graph);
  const bool changed = pass.run(graph, {}).value() > 0;
  if (changed) remove_dead_code(graph);
  auto whole = verify(graph);
  REQUIRE_MESSAGE(whole, to_string(whole.error()));
  CHECK(changed == (print(graph) != before));
}

// Random, and the same for the same name: so a graph may be bound before and after a pass. Passes
// see constants without data, as they stand in the text.
Tensor data_for(const Type &type, const std::string &name) {
  Tensor data = random_tensor(type, name, 1);
  const bool variance = name.ends_with("var") || name.ends_with("variance");
  if (variance && type.dtype == DType::f32)
    for (float &x : data.f32_mutable()) x = 0.5f + std::abs(x);
  return data;
}

std::vector<Tensor> results(Graph graph) {
  for (Value &value : graph.values)
    if (value.constant)
      value.constant = with_data(value.constant, [](const Constant &wanted) {
        return data_for(wanted.type, wanted.name);
      });
  std::vector<Tensor> inputs;
  for (ValueId id : graph.inputs) inputs.push_back(data_for(graph.type(id), graph.values[id].name));
  auto outputs = evaluate(graph, inputs);
  REQUIRE_MESSAGE(outputs, to_string(outputs.error()));
  return *outputs;
}

// So that no golden file can make a wrong rewrite right.
void check_same_results(const Graph &before, const Graph &after) {
  const std::vector<Tensor> wanted = results(before), found = results(after);
  REQUIRE(found.size() == wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    CAPTURE(i);
    REQUIRE(found[i].dtype() == wanted[i].dtype());
    REQUIRE(found[i].shape() == wanted[i].shape());
    if (wanted[i].dtype() == DType::f32)
      CHECK(compare(found[i], wanted[i]).within(2e-5));
    else
      CHECK(same_bits(found[i], wanted[i]));
  }
}

// What the passes make of the input, as text.
std::string outcome(const Case &c) {
  auto before = parse_graph(c.input, "<input>");
  REQUIRE_MESSAGE(before, to_string(before.error()));
  Graph after = *before;
  const std::vector<const Pass *> passes = passes_of(c);
  CHECK_FALSE(passes.empty());
  for (const Pass *pass : passes) run(*pass, after);
  check_same_results(*before, after);
  return equal(*before, after) ? "unchanged\n" : print(after);
}

// The text, with a mark before each line that the other has not.
std::string marked(const std::string &text, const std::string &other) {
  std::string result;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const bool both = ("\n" + other).find("\n" + line + "\n") != std::string::npos;
    result += (both ? "    " : "  > ") + line + "\n";
  }
  return result;
}

} // namespace

TEST_CASE("passes make of the graphs in tests/golden what stands there") {
  const bool rewrite = std::getenv("LATHE_REWRITE_GOLDEN") != nullptr;
  for (const fs::path &path : golden_files()) {
    CAPTURE(path.filename().string());
    Golden golden = read(path);
    for (Case &c : golden.cases) {
      CAPTURE(c.title);
      const std::string actual = outcome(c);
      if (rewrite) c.expected = actual;
      const bool as_expected = actual == c.expected;
      CHECK_MESSAGE(as_expected, "\nexpected:\n", marked(c.expected, actual), "actual:\n",
                    marked(actual, c.expected), "(./dev golden makes the actual the expected)");
    }
    if (rewrite) write(path, golden);
  }
}

TEST_CASE("every pass has a golden file, and every golden file a pass") {
  auto cases_in_file_of = [](const Pass &pass) {
    const Golden golden = read(folder / (std::string(pass.name) + ".txt"));
    return std::ranges::count_if(golden.cases, [&](const Case &c) {
      return std::ranges::count(passes_of(c), pass.run, &Pass::run) > 0;
    });
  };
  for (const Pass &pass : pipeline()) {
    CAPTURE(pass.name);
    int64_t most = 0; // rows of the table that share a function share a file
    for (const Pass &row : pipeline())
      if (row.run == pass.run) most = std::max<int64_t>(most, cases_in_file_of(row));
    CHECK(most >= 3);
  }
  for (const fs::path &path : golden_files()) {
    const std::string name = path.stem().string();
    CAPTURE(name);
    CHECK((name == "all" || std::ranges::count(pipeline(), name, &Pass::name) > 0));
  }
}
