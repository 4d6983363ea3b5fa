// What is no element of an operand holds NaN, so a kernel that computes with it shows in the
// result. Every task runs twice, over two fills of the output: a byte that differs from its fill in
// either run was written, whatever was written there.
#include "runtime/guarded.h"

#include "runtime/views.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

namespace lathe::core {
namespace {

constexpr std::byte nan{0xff}; // four of them: a NaN
constexpr std::array<std::byte, 2> fills{nan, std::byte{0x5a}};

void fill(std::span<std::byte> bytes, std::byte with) {
  std::memset(bytes.data(), int(with), bytes.size());
}

struct Unmap {
  size_t bytes = 0;
  void operator()(std::byte *all) const { munmap(all, bytes); }
};

// Bytes at one end of pages of their own, between two pages that nobody may touch.
class GuardedMemory {
public:
  static Result<GuardedMemory> make(int64_t bytes, Guard guard) {
    const size_t page = size_t(sysconf(_SC_PAGESIZE));
    const size_t room = (size_t(bytes) + page - 1) / page * page;
    void *all = mmap(nullptr, room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return fail(ErrorCode::io, "no memory for a guarded run");
    GuardedMemory memory;
    memory.all_ = {static_cast<std::byte *>(all), Unmap{room + 2 * page}};
    memory.pages_ = {memory.all_.get() + page, room};
    if (room > 0 && mprotect(memory.pages_.data(), room, PROT_READ | PROT_WRITE) != 0)
      return fail(ErrorCode::io, "no memory for a guarded run");
    memory.begin_ = guard == Guard::behind ? room - size_t(bytes) : 0;
    return memory;
  }
  std::byte *data() const { return pages_.data() + begin_; }
  std::span<std::byte> pages() const { return pages_; } // all that does not fault
  size_t begin() const { return begin_; }               // of the bytes, in the pages

private:
  std::unique_ptr<std::byte, Unmap> all_;
  std::span<std::byte> pages_;
  size_t begin_ = 0;
};

// The bytes that a view's elements span.
struct Layout {
  int64_t lowest = 0, bytes = 0; // in the memory that the view is of
  int64_t first = 0;             // the element that kernels are given, from the lowest byte
  int64_t element_bytes = 0;
  std::vector<int64_t> elements; // from the lowest byte, in row-major order
  int64_t address_in(const GuardedMemory &memory) const {
    return reinterpret_cast<int64_t>(memory.data() + first);
  }
};

Layout lay_out(const Shape &dims, const std::vector<int64_t> &strides, int64_t offset,
               int64_t element_bytes) {
  Layout layout{.lowest = offset, .element_bytes = element_bytes, .elements = {}};
  std::vector<int64_t> index(dims.size(), 0);
  for (int64_t n = element_count(dims); n > 0; --n) {
    int64_t byte = 0;
    for (size_t d = 0; d < dims.size(); ++d) byte += index[d] * strides[d] * element_bytes;
    layout.elements.push_back(byte);
    for (size_t d = dims.size(); d-- > 0;) {
      if (++index[d] < dims[d]) break;
      index[d] = 0;
    }
  }
  if (layout.elements.empty()) return layout;
  const auto [low, high] = std::ranges::minmax(layout.elements);
  layout.lowest += low;
  layout.first = -low;
  layout.bytes = high - low + element_bytes;
  for (int64_t &byte : layout.elements) byte -= low;
  return layout;
}

struct Operand {
  Layout layout;
  GuardedMemory memory;
};

// --- One kernel, between operands that are there already

class Watch {
public:
  Watch(const Kernel &kernel, KernelFunction function, int64_t images, std::string where)
      : kernel_(kernel), function_(function), images_(images), where_(std::move(where)) {}

  // Runs all tasks. `operands` are in the plan's order. Returns the bytes of the output.
  Result<std::vector<std::byte>> run(const std::vector<Operand> &operands, Guard guard,
                                     const std::function<void(int64_t task)> &before_task) {
    const Operand &output = operands[size_t(kernel_.output)];
    LATHE_TRY(GuardedMemory second, GuardedMemory::make(output.layout.bytes, guard));
    LATHE_TRY(scratch_, GuardedMemory::make(whole_lines(kernel_.scratch_bytes), guard));
    std::vector<std::vector<std::byte>> before;
    for (const Operand &o : operands)
      before.emplace_back(o.memory.pages().begin(), o.memory.pages().end());
    begin_ = output.memory.begin();
    outputs_ = {output.memory.pages(), second.pages()};
    for (size_t i : {0, 1}) fill(outputs_[i], fills[i]);
    expect_writes(output.layout);

    std::array<std::vector<int64_t>, 2> args{arguments(operands), arguments(operands)};
    args[1][size_t(kernel_.output)] = output.layout.address_in(second);
    for (int64_t task = 0; task < kernel_.tasks.at(images_); ++task) {
      if (before_task) before_task(task);
      for (const std::vector<int64_t> &arg : args) LATHE_CHECK(run_task(arg, task));
      LATHE_CHECK(collect(task));
    }
    for (size_t o = 0; o < operands.size(); ++o)
      if (int(o) != kernel_.output) LATHE_CHECK(unchanged(int(o), operands[o], before[o]));
    LATHE_CHECK(complete());
    const auto first = result_.begin() + int64_t(begin_);
    return std::vector<std::byte>(first, first + output.layout.bytes);
  }

private:
  std::unexpected<Error> complain(std::string message) const {
    return fail(ErrorCode::internal, where_ + ": " + message);
  }

  std::vector<int64_t> arguments(const std::vector<Operand> &operands) const {
    std::vector<int64_t> args;
    for (const Operand &o : operands) args.push_back(o.layout.address_in(o.memory));
    for (const Affine &param : kernel_.params) args.push_back(param.at(images_));
    return args;
  }

  Result<void> run_task(const std::vector<int64_t> &args, int64_t task) {
    std::span<std::byte> pages = scratch_.pages();
    fill(pages, nan);
    function_(args.data(), task, task + 1, scratch_.data());
    // Scratch begins and ends at whole cache lines; a kernel may use only what it asked for.
    const size_t begin = scratch_.begin(), end = begin + size_t(kernel_.scratch_bytes);
    for (auto [from, to] : {std::pair(size_t(0), begin), std::pair(end, pages.size())})
      for (size_t i = from; i < to; ++i)
        if (pages[i] != nan)
          return complain(fmt::format("task {} writes byte {} of {} bytes of scratch", task,
                                      int64_t(i) - int64_t(begin), kernel_.scratch_bytes));
    return {};
  }

  static constexpr int64_t nobody = -1, gap = -2; // no task yet; no element's byte

  void expect_writes(const Layout &layout) {
    result_.assign(outputs_[0].size(), nan);
    writer_.assign(outputs_[0].size(), gap);
    for (int64_t element : layout.elements)
      std::fill_n(writer_.begin() + int64_t(begin_) + element, layout.element_bytes, nobody);
  }

  // Moves what a task wrote to the result, and fills its place again so that another write shows.
  Result<void> collect(int64_t task) {
    constexpr size_t block = 64;
    for (size_t start = 0; start < outputs_[0].size(); start += block) {
      if (filled(0, start, block) && filled(1, start, block)) continue;
      for (size_t i = start; i < start + block; ++i) {
        std::byte &a = outputs_[0][i], &b = outputs_[1][i];
        if (a == fills[0] && b == fills[1]) continue;
        LATHE_CHECK(may_write(task, i));
        if (a != b)
          return complain(
              fmt::format("task {}: byte {} of the output depends on what lay there before", task,
                          int64_t(i) - int64_t(begin_)));
        writer_[i] = task;
        result_[i] = a;
        a = fills[0];
        b = fills[1];
      }
    }
    return {};
  }
  bool filled(size_t run, size_t start, size_t bytes) const {
    const std::byte *p = outputs_[run].data() + start;
    return *p == fills[run] && std::memcmp(p, p + 1, bytes - 1) == 0;
  }
  Result<void> may_write(int64_t task, size_t i) const {
    const int64_t byte = int64_t(i) - int64_t(begin_);
    if (writer_[i] == gap)
      return complain(
          fmt::format("task {} writes byte {} of the output, which is no element's", task, byte));
    if (writer_[i] != nobody)
      return complain(
          fmt::format("tasks {} and {} both write byte {} of the output", writer_[i], task, byte));
    return {};
  }

  Result<void> unchanged(int number, const Operand &operand,
                         const std::vector<std::byte> &before) const {
    std::span<std::byte> now = operand.memory.pages();
    const auto at = std::ranges::mismatch(now, before).in1;
    if (at == now.end()) return {};
    return complain(fmt::format("a task writes byte {} of operand {}, which it should only read",
                                at - now.begin() - int64_t(operand.memory.begin()), number));
  }
  Result<void> complete() const {
    const auto missing = std::ranges::find(writer_, nobody);
    if (missing == writer_.end()) return {};
    return complain(fmt::format("no task writes byte {} of the output",
                                missing - writer_.begin() - int64_t(begin_)));
  }

  const Kernel &kernel_;
  const KernelFunction function_;
  const int64_t images_;
  const std::string where_;
  GuardedMemory scratch_;
  std::array<std::span<std::byte>, 2> outputs_; // the pages of both runs
  size_t begin_ = 0;                            // of the output in its pages
  std::vector<std::byte> result_;               // as the pages
  std::vector<int64_t> writer_;                 // of each byte of them
};

// --- The whole plan

class Runner {
public:
  Runner(const Executable &executable, std::span<const Tensor> inputs, int64_t images,
         const GuardedOptions &options)
      : executable_(executable), plan_(options.plan ? *options.plan : executable.plan()),
        inputs_(inputs), images_(images), options_(options) {}

  Result<std::vector<Tensor>> run() {
    LATHE_CHECK(check_inputs());
    arena_.assign(size_t(plan_.arena_bytes.at(images_)), nan);
    for (const Type &type : plan_.outputs) {
      outputs_.emplace_back(type.dtype, with_images(plan_, type.shape, images_));
      fill({outputs_.back().raw_mutable(), outputs_.back().bytes()}, nan);
    }
    FlushSubnormals mode; // as a Request runs
    for (number_ = 0; number_ < plan_.kernels.size(); ++number_)
      LATHE_CHECK(step(plan_.kernels[number_]));
    return std::move(outputs_);
  }

private:
  Result<void> check_inputs() const {
    LATHE_CHECK(plan_.sized(images_, 1));
    bool fit = inputs_.size() == plan_.inputs.size();
    for (size_t i = 0; fit && i < inputs_.size(); ++i)
      fit = inputs_[i].dtype() == plan_.inputs[i].dtype &&
            inputs_[i].shape() == with_images(plan_, plan_.inputs[i].shape, images_);
    if (fit) return {};
    return fail(ErrorCode::invalid, "the tensors do not fit the inputs");
  }

  std::string where() const {
    const Kernel &kernel = plan_.kernels[number_];
    return fmt::format("kernel {} ({}: {})", number_, kernel_name(kernel.spec, plan_.target),
                       fmt::join(kernel.sources, " + "));
  }

  Result<void> step(const Kernel &kernel) {
    std::vector<Operand> operands;
    for (size_t o = 0; o < kernel.operands.size(); ++o) {
      const View &view = kernel.operands[o];
      LATHE_TRY(Layout layout, layout_of(view));
      LATHE_TRY(GuardedMemory memory, GuardedMemory::make(layout.bytes, options_.guard));
      fill(memory.pages(), nan);
      if (int(o) != kernel.output)
        copy(layout, memory_of(view).data() + layout.lowest, memory.data());
      operands.push_back({std::move(layout), std::move(memory)});
    }
    LATHE_TRY(std::byte * target, writable(kernel.operands[size_t(kernel.output)]));
    const Layout &layout = operands[size_t(kernel.output)].layout;
    std::function<void(int64_t)> before_task;
    if (options_.before_task)
      before_task = [&](int64_t task) { options_.before_task(number_, task); };
    Watch watch(kernel, executable_.function(number_), images_, where());
    LATHE_TRY(auto written, watch.run(operands, options_.guard, before_task));
    copy(layout, written.data(), target + layout.lowest);
    return {};
  }

  static void copy(const Layout &layout, const std::byte *from, std::byte *to) {
    for (int64_t element : layout.elements)
      std::memcpy(to + element, from + element, size_t(layout.element_bytes));
  }

  Result<Layout> layout_of(const View &view) const {
    Layout layout =
        is_packed(plan_, view)
            ? lay_out({1}, {1}, view.offset.at(images_), plan_.weights[size_t(view.index)].bytes)
            : lay_out(dims_for(plan_, view, images_), view.strides, view.offset.at(images_),
                      int64_t(size_of(element_type(plan_, executable_.graph(), view))));
    if (layout.lowest < 0 || layout.lowest + layout.bytes > int64_t(memory_of(view).size()))
      return fail(ErrorCode::internal,
                  fmt::format("{}: bytes {} to {} of an operand leave its memory of {} bytes",
                              where(), layout.lowest, layout.lowest + layout.bytes,
                              memory_of(view).size()));
    return layout;
  }

  std::span<const std::byte> memory_of(const View &view) const {
    const size_t i = size_t(view.index);
    switch (view.space) {
    case Space::weights:
      return {executable_.weights().address(view.index), size_t(plan_.weights[i].bytes)};
    case Space::input:
      return {inputs_[i].raw(), inputs_[i].bytes()};
    case Space::output:
      return {outputs_[i].raw(), outputs_[i].bytes()};
    case Space::arena:
      break;
    }
    return arena_;
  }
  Result<std::byte *> writable(const View &view) {
    if (view.space == Space::arena) return arena_.data();
    if (view.space == Space::output) return outputs_[size_t(view.index)].raw_mutable();
    return fail(ErrorCode::internal, where() + ": its output lies in memory that is only read");
  }

  const Executable &executable_;
  const Plan &plan_;
  const std::span<const Tensor> inputs_;
  const int64_t images_;
  const GuardedOptions &options_;
  size_t number_ = 0; // of the kernel that runs
  std::vector<std::byte> arena_;
  std::vector<Tensor> outputs_;
};

} // namespace

Result<std::vector<Tensor>> run_guarded(const Executable &executable,
                                        std::span<const Tensor> inputs, int64_t images,
                                        const GuardedOptions &options) {
  return Runner(executable, inputs, images, options).run();
}

} // namespace lathe::core
