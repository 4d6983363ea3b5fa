// lathe bench: latency, compile time and memory of whole networks.
#include "cli/measure.h"
#include "cli/verbs.h"
#include "ir/system/output_file.h"
#include "runtime/peak.h"

#include <chrono>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace lathe::core::cli {
namespace {

struct BenchOptions : ModelOptions {
  std::vector<std::string> models;
  std::vector<int64_t> batches{1};
  std::vector<int> thread_counts{1};
  double duration = 1;
  std::string json;
};

using Json = nlohmann::ordered_json;

Json measure(const BenchOptions &o, const std::string &model, const Executable &e, double parse_ms,
             double multiplies, double peak, int64_t batch, int threads, Request &request,
             double first_ms) {
  Latency l = measure_latency(request, o.duration);
  const Plan &plan = e.plan();
  const CompileTimes &t = e.times();
  double gflops = 2e-6 * multiplies * double(batch) / l.median;
  return {{"model", model},
          {"batch", batch},
          {"threads", threads},
          {"precision", "f32"},
          {"min_ms", l.min},
          {"median_ms", l.median},
          {"p90_ms", l.p90},
          {"p99_ms", l.p99},
          {"mean_ms", l.mean},
          {"stddev_ms", l.stddev},
          {"iterations", l.iterations},
          {"gflops", gflops},
          {"percent_of_peak", 100 * gflops / peak},
          {"peak_gflops", peak},
          {"compile_ms",
           {{"parse", parse_ms},
            {"passes", t.passes + t.plan},
            {"tune", t.tune},
            {"codegen", t.codegen},
            {"link", t.link},
            {"pack", t.pack},
            {"total", t.total}}},
          {"first_run_ms", first_ms},
          {"start_ms", parse_ms + t.total + first_ms},
          {"cache_hit", e.cache_use().code.found},
          {"arena_bytes", plan.arena_bytes.at(images_of(plan, batch))},
          {"arena_lower_bound_bytes", plan.arena_lower_bound_bytes.at(images_of(plan, batch))},
          {"weight_bytes", plan.weight_bytes()},
          {"peak_rss_bytes", peak_resident_bytes()},
          {"cpu", plan.target.cpu},
          {"isa", plan.target.name},
          {"version", LATHE_VERSION}};
}

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

Result<void> bench(BenchOptions &o) {
  Json rows = Json::array();
  LATHE_TRY(CompileOptions options, compile_options(o));
  for (int64_t batch : o.batches)
    if (batch < 1) return fail(ErrorCode::usage, "a batch is at least 1");
  for (int threads : o.thread_counts)
    if (threads < 1) return fail(ErrorCode::usage, "at least 1 thread");
  o.threads = std::ranges::max(o.thread_counts);
  fmt::print("{:<24}{:>6}{:>8}{:>11}{:>11}{:>11}{:>10}{:>8}{:>12}{:>11}\n", "model", "batch",
             "threads", "median ms", "min ms", "p99 ms", "GFLOP/s", "% peak", "compile ms",
             "start ms");
  for (const std::string &model : o.models) {
    o.model = model;
    std::shared_ptr<const Executable> executable;
    double parse_ms = 0, multiplies = 0;
    for (int64_t batch : o.batches) {
      // A plan for one image serves any number; others are made for one number of them.
      auto compile_for = [&](int64_t images) -> Result<void> {
        o.batch = images;
        auto start = std::chrono::steady_clock::now();
        LATHE_TRY(Graph graph, load(o));
        parse_ms = milliseconds_since(start);
        LATHE_TRY(graph, load_with_weights(o)); // random ones take longer than all the rest
        multiplies = double(summarise(graph).multiplies);
        LATHE_TRY(executable, compile(std::move(graph), o));
        return {};
      };
      // A memory limit must hold for the largest number.
      if (!executable) LATHE_CHECK(compile_for(std::ranges::max(o.batches)));
      if (!executable->plan().batched && o.batch != batch) LATHE_CHECK(compile_for(batch));
      const Plan &plan = executable->plan();
      const int64_t images = images_of(plan, batch);
      for (int threads : o.thread_counts) {
        const auto pool = make_pool(threads);
        LATHE_TRY(auto request, Request::create(executable, images, pool));
        for (size_t i = 0; i < plan.inputs.size(); ++i)
          LATHE_CHECK(request->set_input(i, random_input(plan, i, images, o.seed)));
        auto first = std::chrono::steady_clock::now();
        request->run();
        double first_ms = milliseconds_since(first);
        double peak = measure_peak_gflops(options.target, pool.get());
        Json row = measure(o, model, *executable, parse_ms, multiplies, peak, batch, threads,
                           *request, first_ms);
        const CompileTimes &t = executable->times();
        fmt::print(
            "{:<24}{:>6}{:>8}{:>11.3f}{:>11.3f}{:>11.3f}{:>10.1f}{:>8.1f}{:>12.1f}{:>11.1f}\n",
            model, batch, threads, row["median_ms"].get<double>(), row["min_ms"].get<double>(),
            row["p99_ms"].get<double>(), row["gflops"].get<double>(),
            row["percent_of_peak"].get<double>(), t.total, row["start_ms"].get<double>());
        std::fflush(stdout);
        rows.push_back(std::move(row));
      }
    }
  }
  const double fresh = measure_fresh_memory_gbs();
  fmt::print("start: from the model to the first answer, of which {:.3g} ms for every 100 MB of "
             "memory that is touched for the first time\n",
             100 / fresh);
  if (o.json.empty()) return {};
  // Last, since its memory would count among what the networks took at most.
  const double bandwidth = measure_bandwidth_gbs();
  for (Json &row : rows) {
    row["bandwidth_gb_per_s"] = bandwidth;
    row["fresh_memory_gb_per_s"] = fresh;
  }
  std::string text = rows.dump(2) + "\n";
  return write_file(o.json, {std::as_bytes(std::span(text))});
}

} // namespace

void add_bench(CLI::App &app, Action &action) {
  auto *verb = app.add_subcommand("bench", "measure networks: latency, compile time, memory");
  auto o = std::make_shared<BenchOptions>();
  add_model_options(*verb, *o, false);
  verb->remove_option(verb->get_option("MODEL"));
  verb->add_option("MODEL", o->models, "files or bundled networks")->required();
  verb->add_option("--batch", o->batches, "batch sizes, e.g. 1,4,16")->delimiter(',');
  verb->add_option("--threads", o->thread_counts, "thread counts, e.g. 1,2")->delimiter(',');
  verb->add_option("--duration", o->duration, "seconds per measurement")->capture_default_str();
  verb->add_option("--json", o->json, "also write the results to this file");
  verb->callback([o, &action] { action = [o] { return bench(*o); }; });
}

} // namespace lathe::core::cli
