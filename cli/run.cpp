// lathe run: pictures or tensors in, top classes or tensors out.
#include "cli/verbs.h"
#include "frontend/mapped_file.h"
#include "frontend/npy.h"
#include "frontend/preprocess.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <numeric>
#include <sstream>

namespace lathe::cli {
namespace {

struct RunOptions : ModelOptions {
  std::vector<std::string> inputs, outputs; // [NAME=]FILE
  std::string preset, labels;
  size_t top = 5;
};

struct Binding {
  std::string file;
  size_t index;
};
// "[NAME=]FILE" to the model's inputs or outputs: by name, or in order.
Result<std::vector<Binding>> bind_names(const std::vector<std::string> &arguments,
                                        const std::vector<std::string> &names,
                                        std::string_view what) {
  std::vector<Binding> bindings;
  std::vector<bool> taken(names.size());
  for (const std::string &argument : arguments) {
    size_t equals = argument.find('=');
    auto found = std::ranges::find(names, argument.substr(0, equals));
    bool named = equals != std::string::npos && found != names.end();
    size_t index = named ? size_t(found - names.begin())
                         : size_t(std::ranges::find(taken, false) - taken.begin());
    if (index >= names.size() || taken[index])
      return fail(Error{.code = ErrorCode::usage,
                        .message = fmt::format("no {} is left for '{}'", what, argument),
                        .expected = fmt::format("{} of {}", names.size(), fmt::join(names, ", "))});
    taken[index] = true;
    bindings.push_back({named ? argument.substr(equals + 1) : argument, index});
  }
  return bindings;
}

Result<Preset> choose_preset(const RunOptions &o) {
  if (!o.preset.empty()) {
    if (auto preset = find_preset(o.preset)) return *preset;
    return fail(Error{.code = ErrorCode::usage,
                      .message = "unknown preset",
                      .expected = "torchvision, caffe-bgr, fashion-mnist or raw",
                      .found = o.preset});
  }
  bool own = o.weights.empty() && std::filesystem::path(o.model).stem() == "lenet5";
  Preset preset = own ? Preset::fashion_mnist : Preset::torchvision;
  note("preprocessing: {}\n", to_string(preset));
  return preset;
}

Result<Tensor> read_input(const RunOptions &o, const std::string &file, const Type &type,
                          const std::string &name) {
  std::string extension = std::filesystem::path(file).extension().string();
  if (extension == ".npy") {
    LATHE_TRY(Tensor tensor, read_npy(file));
    Shape expected = type.shape;
    if (!expected.empty() && !tensor.shape().empty()) expected[0] = tensor.shape()[0];
    if (tensor.shape() != expected || tensor.dtype() != type.dtype)
      return fail(Error{
          .code = ErrorCode::invalid,
          .message = "the tensor does not fit the input",
          .file = file,
          .node = name,
          .expected = fmt::format("{} {}", to_string(type.dtype), to_string(type.shape)),
          .found = fmt::format("{} {}", to_string(tensor.dtype()), to_string(tensor.shape()))});
    return tensor;
  }
  if (type.shape.size() != 4)
    return fail(Error{.code = ErrorCode::invalid,
                      .message = "a picture does not fit the input",
                      .file = file,
                      .node = name,
                      .expected = to_string(type.shape)});
  LATHE_TRY(Preset preset, choose_preset(o));
  LATHE_TRY(Image image, read_image(file));
  auto tensor = preprocess(image, preset, type.shape[1], type.shape[2], type.shape[3]);
  if (!tensor && tensor.error().file.empty()) tensor.error().file = file;
  return tensor;
}

Result<std::vector<std::string>> read_labels(const std::string &path, int64_t classes) {
  std::vector<std::string> labels;
  if (path.empty()) return labels;
  LATHE_TRY(std::string text, read_text_file(path, 16 << 20));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    for (char &c : line)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    labels.push_back(line);
  }
  if (int64_t(labels.size()) != classes)
    return fail(Error{.code = ErrorCode::invalid,
                      .message = "wrong number of labels",
                      .file = path,
                      .expected = fmt::format("{}", classes),
                      .found = fmt::format("{}", labels.size())});
  return labels;
}

Result<void> print_top(const Tensor &scores, const RunOptions &o) {
  const int64_t images = scores.shape()[0], classes = scores.size() / images;
  LATHE_TRY(auto labels, read_labels(o.labels, classes));
  for (int64_t n = 0; n < images; ++n) {
    auto row = scores.f32().subspan(size_t(n * classes), size_t(classes));
    std::vector<size_t> order(row.size());
    std::iota(order.begin(), order.end(), size_t{0});
    size_t top = std::min(o.top, order.size());
    std::partial_sort(
        order.begin(), order.begin() + int64_t(top), order.end(),
        [&](size_t a, size_t b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
    if (images > 1) fmt::print("image {}\n", n);
    for (size_t i = 0; i < top; ++i)
      fmt::print("{:9.6f}  {:4}{}{}\n", row[order[i]], order[i], labels.empty() ? "" : "  ",
                 labels.empty() ? "" : labels[order[i]]);
  }
  return {};
}

Result<void> run(const RunOptions &o) {
  LATHE_TRY(Graph graph, load_with_weights(o));
  std::vector<std::string> input_names, output_names;
  for (ValueId id : graph.inputs) input_names.push_back(graph.values[id].name);
  for (ValueId id : graph.outputs) output_names.push_back(graph.values[id].name);
  LATHE_TRY(auto inputs, bind_names(o.inputs, input_names, "input"));
  LATHE_TRY(auto outputs, bind_names(o.outputs, output_names, "output"));

  std::vector<Tensor> tensors(graph.inputs.size());
  int64_t images = o.batch;
  for (const Binding &binding : inputs) {
    LATHE_TRY(tensors[binding.index],
              read_input(o, binding.file, graph.type(graph.inputs[binding.index]),
                         input_names[binding.index]));
    images = tensors[binding.index].shape().empty() ? 1 : tensors[binding.index].shape()[0];
  }
  LATHE_TRY(auto executable, compile(std::move(graph), o));
  LATHE_TRY(auto request, Request::create(executable, images, make_pool(o.threads)));
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].defined()) {
      note("input {}: random, seed {}\n", input_names[i], o.seed);
      tensors[i] = random_input(executable->plan(), i, images, o.seed);
    }
    if (tensors[i].bytes() != request->input(i).bytes())
      return fail(Error{.code = ErrorCode::invalid,
                        .message = "inputs disagree about the number of images",
                        .node = input_names[i],
                        .expected = to_string(request->input(i).shape()),
                        .found = to_string(tensors[i].shape())});
    LATHE_CHECK(request->set_input(i, tensors[i]));
  }
  request->run();
  for (const Binding &binding : outputs)
    LATHE_CHECK(write_npy(binding.file, request->output(binding.index)));
  if (outputs.empty()) return print_top(request->output(0), o);
  return {};
}

} // namespace

void add_run(CLI::App &app, Action &action) {
  auto *verb = app.add_subcommand("run", "run a network on pictures or tensors");
  auto o = std::make_shared<RunOptions>();
  add_model_options(*verb, *o);
  verb->add_option("-i,--input", o->inputs,
                   "[NAME=]FILE: .npy, .png, .jpg, .ppm; without it: random");
  verb->add_option("-o,--output", o->outputs,
                   "[NAME=]FILE.npy; without it the top classes are printed");
  verb->add_option("--preset", o->preset,
                   "how pictures are prepared: torchvision, caffe-bgr, fashion-mnist, raw");
  verb->add_option("--labels", o->labels, "a file with one class name per line");
  verb->add_option("--top", o->top, "how many classes to print")->capture_default_str();
  verb->add_option("--threads", o->threads, "default: what this process may use")
      ->check(CLI::Range(0, 1024));
  verb->add_option("--batch", o->batch, "number of images, for random input")
      ->capture_default_str();
  verb->callback([o, &action] { action = [o] { return run(*o); }; });
}

} // namespace lathe::cli
