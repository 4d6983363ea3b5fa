// lathe run: pictures or tensors in, top classes or tensors out.
#include "cli/verbs.h"
#include "data/preprocess.h"
#include "frontend/elements.h"
#include "ir/system/mapped_file.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <numeric>
#include <sstream>

namespace lathe::core::cli {
namespace {

struct RunOptions : ModelOptions {
  std::vector<std::string> inputs, outputs; // [NAME=]FILE
  std::string preset, labels;
  size_t top = 5;
};

Result<Preset> choose_preset(const RunOptions &o) {
  if (!o.preset.empty()) {
    if (auto preset = find_preset(o.preset)) return *preset;
    return fail(Error{.code = ErrorCode::usage,
                      .message = "unknown preset",
                      .expected = preset_names(),
                      .found = o.preset});
  }
  const bool own = o.weights.empty() && !o.random_weights && o.model == "lenet5";
  Preset preset = own ? Preset::fashion_mnist : Preset::torchvision;
  note("preprocessing: {}\n", to_string(preset));
  return preset;
}

// A tensor of the input's type, of any number of images.
Result<void> check_tensor(const Tensor &tensor, const Type &type, const std::string &name,
                          const std::string &file) {
  Shape expected = type.shape;
  if (!expected.empty() && !tensor.shape().empty() && expected[0] == 1)
    expected[0] = tensor.shape()[0];
  const bool fits =
      tensor.dtype() == type.dtype || (is_float(tensor.dtype()) && is_float(type.dtype));
  if (tensor.shape() == expected && fits) return {};
  return fail(
      Error{.code = ErrorCode::invalid,
            .message = "the tensor does not fit the input",
            .file = file,
            .node = name,
            .expected = fmt::format("{} {}", to_string(type.dtype), to_string(type.shape)),
            .found = fmt::format("{} {}", to_string(tensor.dtype()), to_string(tensor.shape()))});
}

Result<Tensor> read_picture(const RunOptions &o, const std::string &file, const Type &type,
                            const std::string &name) {
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

// What is no list of scores: type, shape and the first elements.
void print_tensor(const std::string &name, const Tensor &tensor) {
  fmt::print("{}: {} {}", name, to_string(tensor.dtype()), to_string(tensor.shape()));
  const Tensor numbers = to_f32(tensor);
  const auto shown = size_t(std::min<int64_t>(numbers.size(), 10));
  for (float x : numbers.f32().first(shown)) fmt::print(" {:g}", x);
  fmt::print("{}\n", int64_t(shown) < numbers.size() ? " ..." : "");
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

Result<void> run(RunOptions o) {
  LATHE_TRY(std::vector<std::string> names, input_names(o));
  LATHE_TRY(auto given, bind_names(o.inputs, names, "input"));
  for (const Binding &binding : given)
    if (is_tensor_file(binding.file)) {
      LATHE_TRY(o.values[names[binding.index]], read_tensor_file(binding.file));
    }
  LATHE_TRY(Graph graph, load_with_weights(o));
  std::vector<std::string> output_names;
  for (ValueId id : graph.outputs) output_names.push_back(graph.values[id].name);
  LATHE_TRY(auto outputs, bind_names(o.outputs, output_names, "output"));
  for (const Binding &b : outputs) LATHE_CHECK(check_tensor_output(b.file));

  int64_t images = o.batch;
  std::vector<Tensor> tensors(graph.inputs.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::string &name = graph.values[graph.inputs[i]].name;
    const Type &type = graph.type(graph.inputs[i]);
    auto file =
        std::ranges::find_if(given, [&](const Binding &b) { return names[b.index] == name; });
    if (file == given.end()) continue;
    if (auto known = o.values.find(name); known != o.values.end()) {
      tensors[i] = known->second;
      LATHE_CHECK(check_tensor(tensors[i], type, name, file->file));
    } else {
      LATHE_TRY(tensors[i], read_picture(o, file->file, type, name));
    }
    images = tensors[i].shape().empty() ? 1 : tensors[i].shape()[0];
  }
  LATHE_TRY(auto executable, compile(std::move(graph), o));
  images = images_of(executable->plan(), images);
  LATHE_TRY(auto request, Request::create(executable, images, make_pool(o.threads)));
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::string &name = executable->plan().input_names[i];
    if (!tensors[i].defined()) {
      note("input {}: random, seed {}\n", name, o.seed);
      tensors[i] = random_input(executable->plan(), i, images, o.seed);
    }
    if (tensors[i].shape() != request->input(i).shape())
      return fail(Error{.code = ErrorCode::invalid,
                        .message = "inputs disagree about the number of images",
                        .node = name,
                        .expected = to_string(request->input(i).shape()),
                        .found = to_string(tensors[i].shape())});
    // A file's floats are read as f32; the model says how wide it takes them.
    if (is_float(tensors[i].dtype())) tensors[i] = to_floats(tensors[i], request->input(i).dtype());
    LATHE_CHECK(request->set_input(i, tensors[i]));
  }
  request->run();
  for (const Binding &b : outputs)
    LATHE_CHECK(write_tensor_file(b.file, output_names[b.index], request->output(b.index)));
  if (!outputs.empty()) return {};
  const Tensor &declared = request->output(0);
  const Tensor first = is_float(declared.dtype()) ? to_f32(declared) : declared;
  if (first.dtype() == DType::f32 && !first.shape().empty() && first.size() > 0)
    return print_top(first, o);
  for (size_t j = 0; j < output_names.size(); ++j)
    print_tensor(output_names[j], request->output(j));
  return {};
}

} // namespace

void add_run(CLI::App &app, Action &action) {
  auto *verb = app.add_subcommand("run", "run a network on pictures or tensors");
  auto o = std::make_shared<RunOptions>();
  add_model_options(*verb, *o);
  verb->add_option("-i,--input", o->inputs,
                   "[NAME=]FILE: .npy, ONNX .pb, .png, .jpg, .ppm; without it: random");
  verb->add_option("-o,--output", o->outputs,
                   "[NAME=]FILE, .npy or ONNX .pb; without it the top classes are printed");
  verb->add_option("--preset", o->preset,
                   fmt::format("how pictures are prepared: {}", preset_names()));
  verb->add_option("--labels", o->labels, "a file with one class name per line");
  verb->add_option("--top", o->top, "how many classes to print")->capture_default_str();
  verb->add_option("--threads", o->threads, "default: what this process may use")
      ->check(CLI::Range(0, 1024));
  verb->add_option("--batch", o->batch, "number of images, for random input")
      ->capture_default_str();
  verb->callback([o, &action] { action = [o] { return run(*o); }; });
}

} // namespace lathe::core::cli
