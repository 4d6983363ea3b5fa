// Whatever the system refuses, every public function gives a result or an error, and the same
// process then does the same thing again with the right answer. Each refusal is tried in a process
// of its own: one that dies or hangs is one failure. Arguments: --all tries every request, not a
// sample; or scenario, kind, way and number to try a single one here.
#include "tests/api/refuse.h"

#include <lathe/c.h>
#include <lathe/lathe.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

using namespace lathe;
using refuse::How;
using refuse::What;

namespace {

using Scores = std::vector<float>;
std::string folder; // for this process

void fill(std::span<float> values) {
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(0.37f * float(i % 1000));
}

Result<Scores> answer(const Model &model, const Options &options) {
  auto network = compile(model, options);
  if (!network) return network.error();
  auto request = network->request(2);
  if (!request) return request.error();
  fill(request->input());
  request->run();
  return Scores(request->output().begin(), request->output().end());
}

// Kernels that no network of ours has: made by LLVM.
Result<Model> odd_network() {
  Builder net("odd");
  Value x = net.input("picture", {1, 3, 23, 29});
  x = x.conv("conv1", 20, {3, 5}, {.stride = 2, .pad = {1, 2}, .bias = false});
  x = x.batch_norm("bn1").relu();
  Value both[] = {x.conv("conv2", 12, 3, {.pad = 1}).sigmoid(),
                  x.max_pool(3, {.stride = 1, .pad = 1})};
  auto model = net.build(concat(both).global_average_pool().flatten().dense("fc", 7).softmax());
  if (model)
    if (auto done = model->randomise_weights(7); !done) return done.error();
  return model;
}

Result<Scores> built() {
  auto model = odd_network();
  if (!model) return model.error();
  Options options;
  options.threads = Threads::pool(3);
  return answer(*model, options);
}

Result<Scores> bundled() {
  auto model = Model::load("lenet5");
  if (!model) return model.error();
  Options options;
  options.threads = Threads::pool(2);
  return answer(*model, options);
}

Result<Scores> from_file() {
  auto model = Model::load(LATHE_SOURCE_DIR "/tests/data/tiny.onnx", {.batch = 1});
  if (!model) return model.error();
  return answer(*model, {});
}

Result<Scores> cached() {
  auto model = odd_network();
  if (!model) return model.error();
  Options options;
  options.threads = Threads::pool(2);
  options.cache_directory = folder + "/cache";
  if (auto first = answer(*model, options); !first) return first;
  return answer(*model, options);
}

Result<Scores> in_c() {
  struct Handles {
    lathe_error *error = nullptr;
    lathe_model *model = nullptr;
    lathe_threads *threads = nullptr;
    lathe_network *network = nullptr;
    lathe_request *request = nullptr;
    ~Handles() {
      lathe_request_free(request);
      lathe_network_free(network);
      lathe_threads_free(threads);
      lathe_model_free(model);
      lathe_error_free(error);
    }
  } h;
  lathe_options options;
  lathe_options_init(&options);
  lathe_status status = lathe_model_load("lenet5", nullptr, &h.model, &h.error);
  if (!status) status = lathe_threads_pool(2, &h.threads, &h.error);
  options.threads = h.threads;
  if (!status && (lathe_model_layer_count(h.model) == 0 || lathe_usable_cpus() < 1))
    return Error{.message = "no layers, or no CPUs"};
  if (!status) lathe_model_layer(h.model, 0); // or NULL
  if (!status) status = lathe_compile(h.model, &options, &h.network, &h.error);
  if (!status) status = lathe_request_create(h.network, 2, nullptr, &h.request, &h.error);
  if (status) {
    lathe_error_text(h.error);
    return Error{.code = ErrorCode(status)};
  }
  size_t bytes = 0;
  auto *in = static_cast<float *>(lathe_request_input(h.request, 0, &bytes));
  fill({in, bytes / sizeof(float)});
  lathe_request_run(h.request);
  auto *out = static_cast<const float *>(lathe_request_output(h.request, 0, &bytes));
  return Scores(out, out + bytes / sizeof(float));
}

Result<Scores> picture() {
  Scores pixels(3 * 64 * 64);
  auto read =
      read_picture(LATHE_SOURCE_DIR "/tests/data/crop.jpg", "torchvision", {1, 3, 64, 64}, pixels);
  if (!read) return read.error();
  return pixels;
}

struct Scenario {
  const char *name;
  Result<Scores> (*run)();
};
constexpr Scenario scenarios[] = {{"built", built},   {"bundled", bundled}, {"file", from_file},
                                  {"cached", cached}, {"c", in_c},          {"picture", picture}};

// What a program sees: an answer, an error, or, from what returns values, bad_alloc.
Result<Scores> tried(const Scenario &scenario) {
  try {
    return scenario.run();
  } catch (const std::bad_alloc &) {
    return Error{.code = ErrorCode::limit};
  }
}

bool allowed(What what, ErrorCode code) {
  switch (what) {
  case What::memory:
    return code == ErrorCode::limit;
  case What::pages: // or a system that lets nobody execute new code
    return code == ErrorCode::limit || code == ErrorCode::io || code == ErrorCode::unsupported;
  case What::threads:
    return false; // fewer do the same
  case What::files:
    return code == ErrorCode::io;
  }
  return false;
}

// One refusal, in this process. 0, or what is wrong.
int refused(const Scenario &scenario, What what, How how, long n) {
  const auto fail = [](const char *why, const std::string &more) {
    std::fprintf(stderr, "%s %s\n", why, more.c_str());
    return 1;
  };
  refuse::arm(what, how, n);
  const Result<Scores> first = tried(scenario);
  refuse::disarm();
  if (!first && !allowed(what, first.error().code))
    return fail("an error of a wrong kind:", to_string(first.error()));
  const Result<Scores> again = tried(scenario);
  if (!again) {
    // Where memory stays refused, what LLVM began at its start cannot be ended; developing.md says
    // so.
    if (how != How::once &&
        again.error().message.find("cannot be started again") != std::string::npos)
      return 0;
    return fail("the second time:", to_string(again.error()));
  }
  Scores right(again->size());
  std::ifstream(folder + "/" + scenario.name, std::ios::binary)
      .read(reinterpret_cast<char *>(right.data()), std::streamsize(right.size() * sizeof(float)));
  if (*again != right) return fail("another answer the second time", "");
  if (first && *first != right) return fail("another answer", "");
  return 0;
}

// Runs f in a child, for so many seconds at most; what it returned, or 1000 and its signal.
int in_child(const std::function<int()> &f, unsigned seconds = 60) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(seconds);
    const int code = f();
    std::exit(code); // with what runs at a program's end
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

// How many requests there are, and the right answer into a file.
long count(const Scenario &scenario, What what) {
  const std::string counted = folder + "/count";
  const int code = in_child([&] {
    refuse::arm(what, How::once, -1);
    const Result<Scores> right = tried(scenario);
    refuse::disarm();
    if (!right) {
      std::fprintf(stderr, "%s\n", to_string(right.error()).c_str());
      return 1;
    }
    std::ofstream(counted) << refuse::counted(what);
    std::ofstream(folder + "/" + scenario.name, std::ios::binary)
        .write(reinterpret_cast<const char *>(right->data()),
               std::streamsize(right->size() * sizeof(float)));
    return 0;
  });
  long n = 0;
  std::ifstream(counted) >> n;
  return code == 0 ? n : -1;
}

// Every number up to `all`, or the first few and a sample of the others.
std::vector<long> numbers(long all, size_t sample) {
  std::vector<long> chosen;
  const double step = sample == 0 ? 1 : std::max(1.0, double(all) / double(sample));
  for (double n = 1; n <= double(all); n += n < 3 ? 1 : step) chosen.push_back(long(n));
  return chosen;
}

long seen[std::size(refuse::names)]; // of any scenario

int try_all(const Scenario &scenario, What what, How how, size_t sample) {
  const long all = count(scenario, what);
  if (all < 0) {
    std::printf("FAILED: %s does not work at all\n", scenario.name);
    return 1;
  }
  int failures = 0;
  seen[int(what)] += all;
  const std::vector<long> chosen = numbers(all, sample);
  for (long n : chosen) {
    const int code = in_child([&] {
      std::filesystem::remove_all(folder + "/cache");
      return refused(scenario, what, how, n);
    });
    if (code == 0) continue;
    ++failures;
    std::printf("FAILED: %s %s %s %ld: %d\n", scenario.name, refuse::names[int(what)],
                refuse::how_names[int(how)], n, code);
  }
  std::printf("%-8s %-8s %-5s %6ld requests, %5zu refused, %d failures\n", scenario.name,
              refuse::names[int(what)], refuse::how_names[int(how)], all, chosen.size(), failures);
  return failures;
}

// A limit of the system's own on this process's address space, from little to enough.
int try_limits(const Scenario &scenario, int steps, int step) {
  int failures = 0, refused = 0;
  for (int i = 0; i < steps; ++i) {
    const int code = in_child([&] {
      long pages = 0;
      std::ifstream("/proc/self/statm") >> pages;
      rlimit before{}, limit{};
      getrlimit(RLIMIT_AS, &before);
      limit = before;
      limit.rlim_cur = rlim_t(pages) * 4096 + (rlim_t(i) * step << 20);
      setrlimit(RLIMIT_AS, &limit);
      const Result<Scores> first = tried(scenario);
      setrlimit(RLIMIT_AS, &before);
      if (!first && first.error().code != ErrorCode::limit && first.error().code != ErrorCode::io) {
        std::fprintf(stderr, "%s\n", to_string(first.error()).c_str());
        return 1;
      }
      if (!tried(scenario)) return 1;
      return first ? 0 : 2;
    });
    refused += code == 2;
    if (code == 0 || code == 2) continue;
    ++failures;
    std::printf("FAILED: %s with %d MiB more than at first: %d\n", scenario.name, i * step, code);
  }
  std::printf("%-8s address space of %d sizes, %d too small, %d failures\n", scenario.name, steps,
              refused, failures);
  return failures;
}

int parse(const char *name, const auto &known) {
  for (size_t i = 0; i < std::size(known); ++i)
    if (std::strcmp(name, known[i]) == 0) return int(i);
  return 0;
}

} // namespace

int main(int argc, char **argv) {
  std::string made = (std::filesystem::temp_directory_path() / "lathe-refusal-XXXXXX").string();
  folder = mkdtemp(made.data());
  int failures = 0;
  if (argc == 5) {
    for (const Scenario &s : scenarios)
      if (std::strcmp(s.name, argv[1]) == 0) {
        count(s, What::memory);
        failures += refused(s, What(parse(argv[2], refuse::names)),
                            How(parse(argv[3], refuse::how_names)), std::atol(argv[4]));
      }
  } else {
    const bool all = argc == 2 && std::strcmp(argv[1], "--all") == 0;
    for (const Scenario &s : scenarios) {
      for (How how : {How::once, How::on, How::full})
        failures += try_all(s, What::memory, how, all ? 0 : 24);
      for (What what : {What::pages, What::threads, What::files})
        for (How how : {How::once, How::on}) failures += try_all(s, what, how, all ? 0 : 6);
      failures += try_limits(s, all ? 200 : 10, all ? 1 : 16);
    }
  }
  if (argc != 5)
    for (size_t i = 0; i < std::size(seen); ++i)
      if (seen[i] == 0) {
        std::printf("FAILED: no request for %s was seen\n", refuse::names[i]);
        ++failures;
      }
  std::filesystem::remove_all(folder);
  std::printf(failures ? "%d failures\n" : "every refusal is survived\n", failures);
  return failures != 0;
}
