#include "runtime/c_header.h"

#include "runtime/executable.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lathe::core {
namespace {

std::string in_capitals(std::string name) {
  for (char &c : name)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return name;
}

// Text from a model's file, so that it neither ends the comment nor means anything to a compiler.
std::string in_comment(std::string_view text) {
  std::string safe;
  for (char c : text.substr(0, 200)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    safe += plain || std::string_view("_.:,-+() ").contains(c) ? c : '_';
  }
  return safe;
}

// "int64_t", as the caller's array would be declared.
std::string_view c_type(DType dtype) {
  switch (dtype) {
  case DType::f32:
    return "float";
  case DType::i64:
    return "int64_t";
  case DType::i32:
    return "int32_t";
  case DType::boolean:
    return "uint8_t";
  case DType::f16:
  case DType::bf16:
    return "uint16_t";
  case DType::f64:
    return "double";
  }
  return "";
}

// One line for each input or output: number, name, type and shape as the model declares it.
std::string describe(const NetworkLibrary &library, const std::vector<Type> &types,
                     const std::vector<std::string> &names) {
  std::string text;
  for (size_t i = 0; i < types.size(); ++i) {
    const Shape shape = with_images(library.interface(), types[i].shape, library.images);
    text += fmt::format(" *   {}  {}  {} {}\n", i, in_comment(names[i]), c_type(types[i].dtype),
                        to_string(shape));
  }
  return text;
}

std::string constants(const NetworkLibrary &library, const std::string &capitals) {
  const Plan &plan = library.interface();
  std::string text = fmt::format("#define {0}_BATCH {1}\n"
                                 "#define {0}_INPUT_COUNT {2}\n"
                                 "#define {0}_OUTPUT_COUNT {3}\n",
                                 capitals, library.images, plan.inputs.size(), plan.outputs.size());
  for (size_t i = 0; i < plan.inputs.size(); ++i)
    text += fmt::format("#define {}_INPUT_{}_BYTES {}\n", capitals, i, library.input_bytes(i));
  for (size_t j = 0; j < plan.outputs.size(); ++j)
    text += fmt::format("#define {}_OUTPUT_{}_BYTES {}\n", capitals, j, library.output_bytes(j));
  return text;
}

std::string statuses(const std::string &capitals) {
  std::string text;
  size_t number = 0;
  for (const LibraryStatusText &status : library_statuses())
    text +=
        fmt::format("#define {}_{} {} /* {} */\n", capitals, status.name, number++, status.meaning);
  return text;
}

} // namespace

std::string c_header(const NetworkLibrary &library, std::string_view model,
                     std::string_view compiler, std::string_view weights_file) {
  const Plan &plan = library.interface();
  const std::string &name = library.name, capitals = in_capitals(name);
  const bool own = !library.own_weights.empty();
  std::vector<std::string> targets;
  for (const NetworkLibrary::Variant &v : library.variants) targets.push_back(v.plan->target.name);
  std::string text = fmt::format("/* {}, compiled by {} for {}.\n"
                                 " *\n"
                                 " * Inputs, dense and row-major:\n"
                                 "{}"
                                 " * Outputs, likewise:\n"
                                 "{}"
                                 " */\n",
                                 in_comment(model), in_comment(compiler), fmt::join(targets, ", "),
                                 describe(library, plan.inputs, plan.input_names),
                                 describe(library, plan.outputs, plan.output_names));
  text += fmt::format("#ifndef {0}_LATHE_H\n"
                      "#define {0}_LATHE_H\n"
                      "\n"
                      "#include <stddef.h>\n"
                      "\n"
                      "#ifdef __cplusplus\n"
                      "extern \"C\" {{\n"
                      "#endif\n"
                      "\n",
                      capitals);
  text += constants(library, capitals);
  text += fmt::format(
      "\n"
      "/* Weights and arena start at a multiple of so many bytes; inputs and outputs at one of\n"
      " * their elements' size. */\n"
      "#define {0}_ALIGNMENT 64\n"
      "/* Of all weights; {1}. */\n"
      "#define {0}_WEIGHTS_BYTES {2}\n"
      "#define {0}_WEIGHTS_IN_OBJECT {3}\n"
      "/* What a run on so many threads works in; 1 to 1024. */\n"
      "#define {0}_ARENA_BYTES(threads) ((size_t){4} + (size_t){5} * (size_t)(threads))\n"
      "\n"
      "/* What the functions return. */\n",
      capitals,
      own ? std::string("the code has them")
          : fmt::format("they are in the file {}", in_comment(weights_file)),
      library.weights.bytes, int(own), library.arena_bytes(), library.scratch_per_thread());
  text += statuses(capitals);
  text += fmt::format(
      "const char *{0}_error(int status);\n"
      "\n"
      "/* A network that is ready to run. Filled by {0}_init, not to be changed, and shared by "
      "any\n"
      " * number of threads. It points to the weights, and owns nothing. */\n"
      "typedef struct {0}_network {{\n"
      "  const void *weights;\n"
      "  int variant;\n"
      "}} {0}_network;\n"
      "\n"
      "/* Chooses the code for this CPU and asks whether the weights are this network's: by their\n"
      " * size and identifier, without reading all of them. `weights`: {2}. */\n"
      "int {0}_init({0}_network *network, const void *weights, size_t weights_bytes);\n"
      "/* The same question by every byte. */\n"
      "int {0}_check_weights(const void *weights, size_t weights_bytes);\n"
      "/* What the chosen code is for, \"{3}\" say; null before {0}_init. */\n"
      "const char *{0}_target(const {0}_network *network);\n"
      "\n"
      "/* How to use several threads. `parallel_for` calls job(context, i) exactly once for every "
      "i\n"
      " * from 0 to jobs - 1, in any order and on any threads, and returns when all calls have\n"
      " * returned. {0}_run calls it, with jobs = threads, for each layer that is worth it; "
      "results\n"
      " * do not depend on the number of threads. */\n"
      "typedef struct {0}_parallel {{\n"
      "  void (*parallel_for)(void *pool, int jobs, void (*job)(void *context, int index),\n"
      "                       void *context);\n"
      "  void *pool;\n"
      "  int threads;\n"
      "}} {0}_parallel;\n"
      "\n"
      "/* Runs the network on {1}_BATCH images. inputs[i] and outputs[j] are the addresses of the\n"
      " * tensors above, which may not overlap; the arena needs no initialisation and keeps "
      "nothing;\n"
      " * `parallel` may be null: this thread only. Several threads may run a network at once, "
      "each\n"
      " * with an arena of its own. Allocates nothing, takes no lock, makes no system call. */\n"
      "int {0}_run(const {0}_network *network, void *arena, size_t arena_bytes,\n"
      "    const void *const *inputs, void *const *outputs, const {0}_parallel *parallel);\n"
      "\n"
      "#ifdef __cplusplus\n"
      "}}\n"
      "#endif\n"
      "\n"
      "#endif\n",
      name, capitals,
      own ? "null, for those in the code" : "the whole file, mapped or\n * read, which must stay",
      targets.front());
  return text;
}

} // namespace lathe::core
