// The C++ interface as a program sees it: lathe/lathe.h and nothing else of ours, C++20.
#include <lathe/lathe.h>

#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>
#include <vector>

using namespace lathe;

namespace {

void fill(std::span<float> values, int seed = 0) {
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = std::sin(0.37f * float(i % 1000) + float(seed));
}

std::vector<float> scores(Request &request) {
  request.run();
  return {request.output().begin(), request.output().end()};
}

Executable small_network(const Options &options = {}) {
  Builder net("small");
  Value x = net.input("picture", {1, 3, 20, 20});
  x = x.conv("conv1", 16, 3, {.stride = 2, .pad = 1, .bias = false}).batch_norm("bn1").relu();
  Value y = x.conv("conv2", 16, 3, {.pad = 1}).relu();
  Value both[] = {x + y, x.max_pool(3, {.stride = 1, .pad = 1})};
  Model model =
      net.build(concat(both).global_average_pool().flatten().dense("fc", 10).softmax()).value();
  model.randomise_weights(7).value();
  return compile(model, options).value();
}

} // namespace

TEST_CASE("a network by name, compiled and run") {
  const Executable network = compile(Model::load("lenet5").value()).value();
  REQUIRE(network.inputs().size() == 1);
  CHECK(network.inputs()[0].shape == Shape{1, 1, 32, 32});
  CHECK(network.inputs()[0].bytes == 32 * 32 * sizeof(float));
  CHECK(network.outputs()[0].shape == Shape{1, 10});
  CHECK(network.find_input(network.inputs()[0].name) == 0u);
  CHECK(!network.find_input("nothing"));
  Request request = network.request().value();
  CHECK(request.output().size() == 10);
  fill(request.input());
  const std::vector<float> result = scores(request);
  CHECK(std::accumulate(result.begin(), result.end(), 0.f) == doctest::Approx(1));
  CHECK(request.input<std::int64_t>().empty()); // another element type
  CHECK(request.input(1).empty());
}

TEST_CASE("memory is known exactly, for any number of images and threads") {
  const Executable network = small_network();
  const MemoryUse one = network.memory(1, 1), four = network.memory(4, 2);
  CHECK(one.weights > 0);
  CHECK(four.weights == one.weights);
  CHECK(four.arena == 4 * one.arena);
  CHECK(four.scratch == 2 * one.scratch);
  CHECK(four.tensors == 4 * (3 * 20 * 20 + 10) * 4);
  Options limited;
  limited.memory_limit = one.total() - one.scratch / 2;
  limited.threads = Threads::pool(1);
  const auto refused = compile(Model::load("lenet5").value(), {.memory_limit = 1000});
  REQUIRE(!refused);
  CHECK(refused.error().code == ErrorCode::limit);
  CHECK(refused.error().expected.find("1000") != std::string::npos);
}

TEST_CASE("the same bits at any number of threads, in a host's threads, and anywhere in a batch") {
  const Executable network = small_network();
  Request alone = network.request(1, Threads::pool(1)).value();
  fill(alone.input());
  const std::vector<float> expected = scores(alone);
  for (int count : {2, 3, 8}) {
    Request request = network.request(1, Threads::pool(count)).value();
    fill(request.input());
    CHECK(scores(request) == expected);
  }
  // A host that runs its jobs backwards, on threads of its own.
  auto backwards = [](void *calls, int jobs, void (*job)(void *, int), void *context) {
    ++*static_cast<std::atomic<int> *>(calls);
    std::vector<std::thread> threads;
    for (int i = jobs; i-- > 0;) threads.emplace_back(job, context, i);
    for (std::thread &thread : threads) thread.join();
  };
  std::atomic<int> calls = 0;
  const Executable large = compile(Model::load("squeezenet1_1").value().name() == "squeezenet1_1"
                                       ? [] {
                                           Model m = Model::load("squeezenet1_1").value();
                                           m.randomise_weights(1).value();
                                           return m;
                                         }()
                                       : Model::load("lenet5").value())
                               .value();
  Request pooled = large.request(1, Threads::pool(1)).value();
  Request hosted = large.request(1, Threads::host(backwards, &calls, 3)).value();
  fill(pooled.input());
  fill(hosted.input());
  CHECK(scores(hosted) == scores(pooled));
  CHECK(calls > 0);

  Request batch = network.request(5).value();
  fill(batch.input());
  std::ranges::copy(alone.input(), batch.input().begin() + 3 * 1200);
  batch.run();
  CHECK(std::ranges::equal(batch.output().subspan(30, 10), expected));
}

TEST_CASE("inputs and outputs in the caller's memory") {
  const Executable network = small_network();
  Request own = network.request().value();
  fill(own.input());
  const std::vector<float> expected = scores(own);
  Request bound = network.request().value();
  std::vector<float> x(1200), y(10);
  fill(x);
  bound.bind_input(0, std::as_bytes(std::span(x))).value();
  bound.bind_output(0, std::as_writable_bytes(std::span(y))).value();
  bound.run();
  CHECK(y == expected);
  CHECK(bound.output().data() == y.data());
  std::vector<float> small(9);
  const auto refused = bound.bind_output(0, std::as_writable_bytes(std::span(small)));
  REQUIRE(!refused);
  CHECK(refused.error().expected.find("40 bytes") != std::string::npos);
  CHECK(refused.error().found.find("36 bytes") != std::string::npos);
  CHECK(!bound.bind_input(1, std::as_bytes(std::span(x))));
  std::ranges::fill(y, 0.f);
  bound.run(); // still bound as before
  CHECK(y == expected);
}

TEST_CASE("eight threads, one executable, one pool") {
  const Executable network = small_network({.threads = Threads::pool(2)});
  std::vector<std::vector<float>> expected;
  for (int i = 0; i < 8; ++i) {
    Request request = network.request().value();
    fill(request.input(), i);
    expected.push_back(scores(request));
  }
  CHECK(expected[0] != expected[1]);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&, i] {
      Request request = network.request().value();
      fill(request.input(), i);
      for (int run = 0; run < 300; ++run) {
        request.run();
        wrong += !std::ranges::equal(request.output(), expected[size_t(i)]);
      }
    });
  for (std::thread &thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("an inner value as an output") {
  Model model = Model::load("squeezenet1_1").value();
  model.randomise_weights(1).value();
  const std::vector<std::string> layers = model.layers();
  REQUIRE(layers.size() > 10);
  const std::string names[] = {layers[4], layers.back()};
  Model features = model; // the model itself stays
  features.set_outputs(names).value();
  CHECK(features.outputs().size() == 2);
  CHECK(features.outputs()[0].name == layers[4]);
  CHECK(model.outputs().size() == 1);
  const Executable both = compile(features).value(), whole = compile(model).value();
  Request a = both.request().value(), b = whole.request().value();
  fill(a.input());
  fill(b.input());
  const std::vector<float> expected = scores(b);
  a.run();
  CHECK(std::ranges::equal(a.output(1), expected, [](float x, float y) {
    return std::abs(x - y) <= 1e-4f * std::max(1.f, std::abs(y));
  }));
  const std::string unknown[] = {layers[4] + "x"};
  const auto refused = features.set_outputs(unknown);
  REQUIRE(!refused);
  CHECK(refused.error().code == ErrorCode::usage);
  CHECK(refused.error().expected == "perhaps '" + layers[4] + "'");
}

TEST_CASE("errors are values that say where") {
  const auto missing = Model::load("no/such/model.onnx");
  REQUIRE(!missing);
  CHECK(missing.error().code == ErrorCode::io);
  CHECK(missing.error().file == "no/such/model.onnx");
  CHECK_THROWS_AS(missing.value(), BadResult);

  const std::string text = "network n {\n  input x 1x8x8\n  conv1: conv 4 9x9\n}\n";
  const auto wrong = Model::parse(std::as_bytes(std::span(text)), Format::net);
  REQUIRE(!wrong);
  CHECK(wrong.error().code == ErrorCode::invalid);
  CHECK(wrong.error().line == 3);
  CHECK(wrong.error().node == "conv1");
  CHECK(to_string(wrong.error()).find("conv1") != std::string::npos);

  Model bare = Model::load("resnet18").value(); // no weights come with it
  const auto unbound = compile(bare);
  REQUIRE(!unbound);
  CHECK(unbound.error().code == ErrorCode::invalid);

  const auto large = Model::load("../CMakeLists.txt", {.largest_file = 1});
  CHECK(!large);
  const auto target = compile(Model::load("lenet5").value(), {.target = "z80"});
  REQUIRE(!target);
  CHECK(target.error().code == ErrorCode::usage);
}

TEST_CASE("compiling stops when its time is over") {
  Model model = Model::load("inception_v3").value();
  model.randomise_weights(1).value();
  const auto late = compile(model, {.time_limit = 1e-3});
  REQUIRE(!late);
  CHECK(late.error().code == ErrorCode::limit);
  CHECK(late.error().expected.find("0.001") != std::string::npos);
  CHECK(compile(model, {.time_limit = 0}));
}

TEST_CASE("loading and compiling keep a limit of memory") {
  const std::string text = "network n { input x 3x500x500; conv 64 3x3; relu; global_avgpool }";
  const auto bytes = std::as_bytes(std::span(text));
  Model small = Model::parse(bytes, Format::net, {.compile_memory = 30'000'000}).value();
  const auto refused = small.randomise_weights(1); // calibrated on 64 MB
  REQUIRE(!refused);
  CHECK(refused.error().code == ErrorCode::limit);
  Model model = Model::parse(bytes, Format::net).value();
  model.randomise_weights(1).value();
  const auto narrow = compile(model, {.compile_memory = 1000});
  REQUIRE(!narrow);
  CHECK(narrow.error().code == ErrorCode::limit);
  CHECK(compile(model, {.compile_memory = 30'000'000}));
}

TEST_CASE("sizes for numbers of images that there are not are larger than any memory") {
  const Executable network = small_network();
  for (std::int64_t images : {INT64_MIN, std::int64_t{0}, std::int64_t{1} << 40, INT64_MAX}) {
    CHECK(network.memory(images).total() > std::int64_t{1} << 60);
    const auto request = network.request(images);
    REQUIRE(!request);
    CHECK(request.error().code == ErrorCode::usage);
    const auto limited =
        compile(Model::load("lenet5").value(), {.memory_limit = 1, .batch = images});
    REQUIRE(!limited);
    CHECK(limited.error().code == ErrorCode::usage);
  }
}

TEST_CASE("a second time from the cache") {
  const auto folder = std::filesystem::temp_directory_path() / "lathe-api-cache";
  std::filesystem::remove_all(folder);
  const Options options{.cache_directory = folder.string()};
  const Executable first = small_network(options), second = small_network(options);
  CHECK(!first.cached());
  CHECK(second.cached());
  Request a = first.request().value(), b = second.request().value();
  fill(a.input());
  fill(b.input());
  CHECK(scores(a) == scores(b));
  std::filesystem::remove_all(folder);
}

TEST_CASE("a builder remembers its first error") {
  Builder net("broken");
  Value x = net.input("x", {1, 3, 8, 8});
  x = x.conv("conv1", 8, 3).conv("conv2", 8, 11).relu(); // 6x6 is too small for 11x11
  CHECK(x.shape().empty());
  const auto model = net.build(x);
  REQUIRE(!model);
  CHECK(model.error().node == "conv2");
  CHECK(model.error().op == "conv");

  Builder twice("twice");
  Value y = twice.input("y", {1, 8});
  CHECK(twice.build(y.dense("fc", 4).dense("fc", 4)).error().node == "fc");
  Builder other("other");
  CHECK(!other.build(y));
  CHECK(!other.build(y + other.input("z", {1, 8})));
  CHECK(!net.build(concat({})));
}

TEST_CASE("weights from memory") {
  Builder net("scale");
  const Model built = net.build(net.input("x", {1, 2}).dense("fc", 1)).value();
  const std::vector<float> weight{2, 3}, bias{10};
  Model model = built;
  model
      .bind_weights({{"fc.weight", {DType::f32, {1, 2}, weight.data()}},
                     {"fc.bias", {DType::f32, {1}, bias.data()}}})
      .value();
  Request request = compile(model).value().request().value();
  request.input()[0] = 1;
  request.input()[1] = 100;
  CHECK(scores(request)[0] == 312);
  const auto refused =
      Model(built).bind_weights({{"fc.weight", {DType::f32, {1, 3}, weight.data()}}});
  REQUIRE(!refused);
  CHECK(refused.error().detail.find("fc.weight") != std::string::npos);
  CHECK(refused.error().detail.find("fc.bias") != std::string::npos);
}

TEST_CASE("weights that are given are used, also over a bundled model's own") {
  auto scores_of = [](const Model &model) {
    Request request = compile(model).value().request().value();
    fill(request.input());
    return scores(request);
  };
  const Model trained = Model::load("lenet5").value();
  Model random = Model::load("lenet5", {.parameters = {{"classes", 10}}}).value(); // has none
  const auto unbound = compile(random);
  REQUIRE(!unbound);
  CHECK(unbound.error().code == ErrorCode::invalid);
  CHECK(unbound.error().message == "the model has no weights yet");
  CHECK(unbound.error().expected.find("bind_weights") != std::string::npos);
  random.randomise_weights(3).value();
  CHECK(scores_of(random) != scores_of(trained));
  // There and back: the bundled file over random weights, and other numbers over the bundled.
  const std::string file = LATHE_SOURCE_DIR "/models/lenet5.safetensors";
  CHECK(random.bind_weights(file).value().kept.empty());
  CHECK(scores_of(random) == scores_of(trained));
  std::vector<float> bias(10);
  std::iota(bias.begin(), bias.end(), -5.f);
  const std::map<std::string, TensorView> one{{"fc3.bias", {DType::f32, {10}, bias.data()}}};
  Model changed = trained;
  CHECK(!changed.bind_weights(one));
  CHECK(scores_of(changed) == scores_of(trained));
  const BindReport report = changed.bind_weights(one, {.partial = true}).value();
  CHECK(report.kept.size() == 9);
  CHECK(report.missing.empty());
  CHECK(scores_of(changed) != scores_of(trained));
  CHECK(scores_of(trained) == scores_of(Model::load("lenet5").value())); // copies part
  const auto unknown = changed.bind_weights({{"fc3.bias", {DType::f32, {10}, bias.data()}},
                                             {"fc3.bios", {DType::f32, {10}, bias.data()}}},
                                            {.partial = true});
  REQUIRE(!unknown);
  CHECK(unknown.error().detail.find("fc3.bios: no weight has this name; perhaps 'fc3.bias'") !=
        std::string::npos);
}

TEST_CASE("a model warns of what looks wrong") {
  const std::string text = "network n {\n  input x 8x8x3\n  conv 4 3x3\n}\n";
  const Model model = Model::parse(std::as_bytes(std::span(text)), Format::net).value();
  REQUIRE(model.warnings().size() == 1);
  CHECK(model.warnings()[0].starts_with("<memory>:2:11: warning: "));
  CHECK(Model::load("lenet5").value().warnings().empty());
}

TEST_CASE("kernels tell what they are") {
  const Executable network = small_network({.numerics = Numerics::strict});
  const std::vector<KernelInfo> kernels = network.kernels();
  REQUIRE(!kernels.empty());
  CHECK(std::ranges::none_of(
      kernels, [](auto &k) { return k.algorithm.find("winograd") != std::string::npos; }));
  CHECK(std::ranges::any_of(
      kernels, [](auto &k) { return std::ranges::count(k.layers, "conv2") > 0 && k.flops > 0; }));
  Request request = network.request().value();
  std::vector<double> ms(kernels.size(), -1);
  request.run_timed(ms);
  CHECK(std::ranges::all_of(ms, [](double t) { return t >= 0; }));
}
