// lathe profile: where a network's time goes, kernel by kernel, beside what the machine can do.
#include "cli/profile.h"
#include "cli/verbs.h"
#include "ir/system/output_file.h"
#include "runtime/median.h"
#include "runtime/peak.h"

#include <algorithm>
#include <chrono>
#include <numeric>

namespace lathe::core::cli {
namespace {

struct ProfileOptions : ModelOptions {
  double duration = 1;
  size_t top = 0;
  std::string json, trace, html;
};

// Milliseconds of every kernel in every run, one row per run, for about so many seconds.
std::vector<std::vector<double>> measure_runs(Request &request, size_t kernels, double seconds) {
  constexpr size_t fewest_runs = 5, most_samples = 10'000'000;
  std::vector<std::vector<double>> runs;
  request.run();
  const auto start = std::chrono::steady_clock::now();
  const auto end = start + std::chrono::duration<double>(seconds);
  while (runs.size() < fewest_runs ||
         (std::chrono::steady_clock::now() < end && runs.size() * kernels < most_samples))
    request.run_timed(runs.emplace_back(kernels));
  return runs;
}

// The run whose total is the median of the totals.
const std::vector<double> &typical(const std::vector<std::vector<double>> &runs) {
  std::vector<std::pair<double, size_t>> totals;
  for (size_t r = 0; r < runs.size(); ++r)
    totals.emplace_back(std::accumulate(runs[r].begin(), runs[r].end(), 0.0), r);
  auto middle = totals.begin() + int64_t(totals.size() / 2);
  std::ranges::nth_element(totals, middle);
  return runs[middle->second];
}

Result<Profile> measure(const ModelOptions &o, double seconds) {
  LATHE_TRY(Graph graph, load_with_weights(o));
  LATHE_TRY(auto executable, compile(std::move(graph), o));
  const Plan &plan = executable->plan();
  const auto pool = make_pool(o.threads);
  const int64_t images = images_of(plan, o.batch);
  LATHE_TRY(auto request, Request::create(executable, images, pool));
  for (size_t i = 0; i < plan.inputs.size(); ++i)
    LATHE_CHECK(request->set_input(i, random_input(plan, i, images, o.seed)));

  Profile p;
  p.model = o.model;
  p.isa = plan.target.name;
  p.cpu = plan.target.cpu;
  p.batch = o.batch;
  p.threads = pool ? pool->threads() : 1;
  const auto runs = measure_runs(*request, plan.kernels.size(), seconds);
  const std::vector<double> &typical_run = typical(runs);
  p.runs = int64_t(runs.size());
  p.peak_gflops = measure_peak_gflops(plan.target, pool.get());
  p.bandwidth_gbs = measure_bandwidth_gbs(pool.get());
  for (size_t k = 0; k < plan.kernels.size(); ++k) {
    ProfiledKernel kernel;
    kernel.name = kernel_name(plan.kernels[k].spec, plan.target);
    kernel.sources = plan.kernels[k].sources;
    kernel.facts = kernel_facts(plan, executable->graph(), k, images);
    kernel.choice = plan.kernels[k].choice;
    std::vector<double> samples;
    for (const std::vector<double> &run : runs) samples.push_back(run[k]);
    kernel.ms = median(std::move(samples));
    kernel.typical_ms = typical_run[k];
    kernel.roof_ms = 1e-6 * std::max(kernel.facts.product_flops / p.peak_gflops,
                                     double(kernel.facts.bytes()) / p.bandwidth_gbs);
    p.total_ms += kernel.ms;
    p.roof_ms += kernel.roof_ms;
    p.kernels.push_back(std::move(kernel));
  }
  for (ProfiledKernel &kernel : p.kernels) kernel.share = kernel.ms / p.total_ms;
  return p;
}

Result<void> profile(const ProfileOptions &o) {
  LATHE_TRY(Profile p, measure(o, o.duration));
  fmt::print("{}", profile_table(p, o.top));
  auto write = [&](const std::string &path, auto &form) -> Result<void> {
    if (path.empty()) return {};
    const std::string text = form(p);
    return write_file(path, {std::as_bytes(std::span(text))});
  };
  LATHE_CHECK(write(o.json, profile_json));
  LATHE_CHECK(write(o.html, profile_html));
  return write(o.trace, profile_trace);
}

} // namespace

void add_profile(CLI::App &app, Action &action) {
  auto *verb = app.add_subcommand("profile", "where the time goes, kernel by kernel");
  auto o = std::make_shared<ProfileOptions>();
  o->threads = 1;
  add_model_options(*verb, *o);
  verb->add_option("--threads", o->threads, "0: what this process may use")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  verb->add_option("--batch", o->batch, "number of images")->capture_default_str();
  verb->add_option("--duration", o->duration, "seconds")->capture_default_str();
  verb->add_option("--top", o->top, "show only so many kernels, those that take longest");
  verb->add_option("--json", o->json, "also write all that is known to this file");
  verb->add_option("--html", o->html, "also write a page with bars");
  verb->add_option("--trace", o->trace, "also write a typical run as a trace, for Perfetto");
  verb->callback([o, &action] { action = [o] { return profile(*o); }; });
}

} // namespace lathe::core::cli
