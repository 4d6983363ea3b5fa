// Lathe's side of ./dev compare: reads commands on stdin and answers on stdout, a line of JSON each
// (engines.py has the other end, peers.py the same for other engines).
#include "frontend/formats.h"
#include "frontend/npy.h"
#include "ir/evaluate.h"
#include "runtime/executable.h"
#include "runtime/peak.h"

#include <chrono>
#include <fmt/format.h>
#include <iostream>
#include <nlohmann/json.hpp>

using namespace lathe::core;
using Json = nlohmann::ordered_json;

namespace {

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

// ---- the engine ---------------------------------------------------------------------------------

struct Loaded {
  std::shared_ptr<const Executable> executable;
  std::unique_ptr<Request> request;
};

// Compiles the file, and binds the input that all runs use.
Result<Json> load(const Json &command, Loaded &loaded) {
  const auto start = std::chrono::steady_clock::now();
  LATHE_TRY(Graph graph, load_model(command.at("model")));
  LATHE_TRY(loaded.executable, Executable::compile(std::move(graph)));
  LATHE_TRY(Tensor input, read_npy(command.at("input")));
  const Plan &plan = loaded.executable->plan();
  const int64_t images = plan.batched ? input.shape()[0] : 1; // else the file says how many
  const int threads = command.at("threads");
  auto pool = threads > 1 ? std::make_shared<ThreadPool>(threads) : nullptr;
  LATHE_TRY(loaded.request, Request::create(loaded.executable, images, std::move(pool)));
  LATHE_CHECK(loaded.request->set_input(0, input));
  return Json{{"load_ms", milliseconds_since(start)},
              {"version", LATHE_VERSION},
              {"settings", fmt::format("{} for {}", plan.target.name, plan.target.cpu)}};
}

Json time(const Json &command, Request &request) {
  const double budget = 1000 * command.at("seconds").get<double>();
  const size_t least = command.at("least"), most = command.at("most");
  request.run(); // wakes threads and caches
  std::vector<double> milliseconds;
  const auto start = std::chrono::steady_clock::now();
  while (milliseconds.size() < least ||
         (milliseconds.size() < most && milliseconds_since(start) < budget)) {
    const auto run_start = std::chrono::steady_clock::now();
    request.run();
    milliseconds.push_back(milliseconds_since(run_start));
  }
  return {{"ms", milliseconds}};
}

// ---- the yardsticks -----------------------------------------------------------------------------

// What the definition of every op says, in float64, image by image.
Result<Json> reference(const Json &command) {
  LATHE_TRY(Graph graph, load_model(command.at("model")));
  LATHE_TRY(Tensor input, read_npy(command.at("input")));
  LATHE_TRY(auto outputs, evaluate(graph, std::span(&input, 1)));
  LATHE_CHECK(write_npy(command.at("output"), outputs.at(0)));
  return Json::object();
}

// What the threads can do at best when all are at work.
Json machine(const Json &command) {
  ThreadPool pool(command.at("threads").get<int>());
  return {{"gflops", measure_peak_gflops(host_target(), &pool)},
          {"gbytes", measure_bandwidth_gbs(&pool)}};
}

// ---- commands -----------------------------------------------------------------------------------

Result<Json> answer(const Json &command, Loaded &loaded) {
  const std::string verb = command.at("do");
  if (verb == "load") return load(command, loaded);
  if (verb == "reference") return reference(command);
  if (verb == "machine") return machine(command);
  if (!loaded.request) return fail(ErrorCode::usage, "nothing is loaded");
  if (verb == "time") return time(command, *loaded.request);
  if (verb != "output") return fail(ErrorCode::usage, "no such command: " + verb);
  loaded.request->run();
  LATHE_CHECK(write_npy(command.at("output"), loaded.request->output(0)));
  return Json::object();
}

} // namespace

int main() {
  Loaded loaded;
  for (std::string line; std::getline(std::cin, line);) {
    Result<Json> result = answer(Json::parse(line), loaded);
    const Json said = result ? *result : Json{{"error", to_string(result.error())}};
    std::cout << said.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
  }
}
