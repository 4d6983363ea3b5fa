// The transforms of Winograd's minimal filtering, over vectors of channels: what stands before and
// behind the matrix products.
#include "codegen/emitter.h"

#include <cmath>
#include <fmt/format.h>

namespace lathe::core {
namespace {

// Vectors that are spilled stay within cache lines.
constexpr const char *aligned_stack = "stackrealign";

bool near(double a, double b) { return std::abs(a - b) <= 1e-12 * (1 + std::abs(a)); }

// Terms of a sum: coefficient times vector.
struct Term {
  double factor;
  IrValue value;
};

// sum of the terms, or null without any. The last one's factor is taken out; `scale` returns it.
IrValue sum_of(Emitter &e, const std::vector<Term> &terms, double &scale) {
  if (terms.empty()) return nullptr;
  scale = terms.back().factor;
  IrValue sum = terms.back().value;
  for (size_t i = terms.size() - 1; i-- > 0;) {
    const double factor = terms[i].factor / scale;
    llvm::Type *type = sum->getType();
    if (near(factor, 1))
      sum = e.ir.CreateFAdd(sum, terms[i].value);
    else if (near(factor, -1))
      sum = e.ir.CreateFSub(sum, terms[i].value);
    else
      sum = e.fma(e.splat(type, factor), terms[i].value, sum);
  }
  return sum;
}
IrValue scaled(Emitter &e, IrValue value, double scale) {
  return near(scale, 1) ? value : e.ir.CreateFMul(e.splat(value->getType(), scale), value);
}
// a + scale * b; either may be null.
IrValue add_scaled(Emitter &e, IrValue a, double scale, IrValue b) {
  if (!b) return a;
  if (!a) return scaled(e, b, scale);
  if (near(scale, 1)) return e.ir.CreateFAdd(a, b);
  if (near(scale, -1)) return e.ir.CreateFSub(a, b);
  return e.fma(e.splat(b->getType(), scale), b, a);
}

// Points come as p and -p, so that their rows or columns of a matrix agree but for signs. Where two
// columns do, the sum and the difference of their vectors take their places.
void pair_columns(Emitter &e, Matrix &m, IrValues &x) {
  for (int64_t a = 0; a < m.cols; ++a)
    for (int64_t b = a + 1; b < m.cols; ++b) {
      bool agree = true, somewhere_same = false, somewhere_opposite = false;
      for (int64_t i = 0; i < m.rows; ++i) {
        const double p = m.at(i, a), q = m.at(i, b);
        agree &= near(std::abs(p), std::abs(q));
        somewhere_same |= p != 0 && near(p, q);
        somewhere_opposite |= p != 0 && near(p, -q);
      }
      if (!agree || !somewhere_same || !somewhere_opposite) continue;
      IrValue sum = e.ir.CreateFAdd(x[size_t(a)], x[size_t(b)]);
      IrValue difference = e.ir.CreateFSub(x[size_t(a)], x[size_t(b)]);
      x[size_t(a)] = sum;
      x[size_t(b)] = difference;
      for (int64_t i = 0; i < m.rows; ++i)
        if (near(m.at(i, a), m.at(i, b)))
          m.at(i, b) = 0;
        else
          m.at(i, b) = std::exchange(m.at(i, a), 0);
    }
}

// matrix * x.
IrValues transform(Emitter &e, Matrix m, IrValues x) {
  pair_columns(e, m, x);
  IrValues y(static_cast<size_t>(m.rows));
  for (int64_t i = 0; i < m.rows; ++i) {
    if (y[size_t(i)]) continue;
    // Another row with the same coefficients, some of opposite sign: they share both parts.
    int64_t pair = -1;
    for (int64_t k = i + 1; k < m.rows && pair < 0; ++k) {
      bool agree = true, opposite = false;
      for (int64_t j = 0; j < m.cols; ++j) {
        agree &= near(std::abs(m.at(i, j)), std::abs(m.at(k, j)));
        opposite |= m.at(i, j) != 0 && near(m.at(i, j), -m.at(k, j));
      }
      if (agree && opposite) pair = k;
    }
    std::vector<Term> same, opposite;
    for (int64_t j = 0; j < m.cols; ++j) {
      if (m.at(i, j) == 0) continue;
      const bool shared = pair < 0 || near(m.at(i, j), m.at(pair, j));
      (shared ? same : opposite).push_back({m.at(i, j), x[size_t(j)]});
    }
    double same_scale = 1, opposite_scale = 1;
    IrValue even = sum_of(e, same, same_scale), odd = sum_of(e, opposite, opposite_scale);
    if (even) even = scaled(e, even, same_scale);
    y[size_t(i)] = add_scaled(e, even, opposite_scale, odd);
    if (pair >= 0) y[size_t(pair)] = add_scaled(e, even, -opposite_scale, odd);
  }
  return y;
}

// columns * x * rows^T, for x as rows of vectors: height (down the columns) before width.
std::vector<IrValues> transform_tile(Emitter &e, const Matrix &columns, const Matrix &rows,
                                     const std::function<IrValue(int64_t, int64_t)> &x) {
  std::vector<IrValues> half(static_cast<size_t>(columns.rows));
  for (int64_t j = 0; j < rows.cols; ++j) {
    IrValues column;
    for (int64_t i = 0; i < columns.cols; ++i) column.push_back(x(i, j));
    column = transform(e, columns, std::move(column));
    for (size_t i = 0; i < column.size(); ++i) half[i].push_back(column[i]);
  }
  std::vector<IrValues> whole;
  for (IrValues &row : half) whole.push_back(transform(e, rows, std::move(row)));
  return whole;
}

} // namespace

// The same for all filters with so many points. Whole vectors, also at the last channels: lanes
// behind them are neither kept apart nor used.
llvm::Function *WinogradInput::function(llvm::Module &module, const Target &target, Size2 points,
                                        Size2 first) {
  std::string name = fmt::format("winograd_{}x{}", points.h, points.w);
  if (first != points) name += fmt::format("_first{}x{}", first.h, first.w);
  name += fmt::format("__{}.transform", target.name);
  return shared_function(module, target, name, type(module), [&](Emitter &e) {
    e.function->addFnAttr(aligned_stack);
    WinogradInput a{};
    unsigned next = 0;
    for (IrValue *field : {&a.from, &a.to, &a.row, &a.pixel, &a.point, &a.channels})
      *field = e.function->getArg(next++);
    const Matrix &columns = winograd_matrices(points.h, 1, first.h).input;
    const Matrix &rows = winograd_matrices(points.w, 1, first.w).input;
    e.loop(e.constant(0), a.channels, e.constant(target.lanes()), [&](IrValue channel) {
      IrValue bytes = e.mul(channel, e.constant(4));
      IrValue source = e.offset(a.from, bytes), target_tile = e.offset(a.to, bytes);
      auto y = transform_tile(e, columns, rows, [&](int64_t i, int64_t j) {
        IrValue at = e.add(e.mul(a.row, e.constant(i)), e.mul(a.pixel, e.constant(j)));
        return e.load(e.vector(), e.offset(source, at));
      });
      for (int64_t i = 0; i < first.h; ++i)
        for (int64_t j = 0; j < first.w; ++j) {
          IrValue place = e.mul(a.point, e.constant(i * points.w + j));
          e.store(y[size_t(i)][size_t(j)], e.offset(target_tile, place));
        }
    });
  });
}

llvm::FunctionType *WinogradInput::type(llvm::Module &module) { return shared_type(module, 2, 4); }

void WinogradInput::call(Emitter &e, IrValue function) const {
  e.ir.CreateCall(type(e.module), function, {from, to, row, pixel, point, channels});
}

llvm::FunctionType *WinogradFilters::type(llvm::Module &module) {
  return shared_type(module, 2, 4);
}

llvm::Function *WinogradFilters::function(llvm::Module &module, const Target &target,
                                          const Winograd &winograd) {
  const auto &[outputs, kernel, _] = winograd;
  const std::string name = fmt::format("winograd_{}x{}_of_{}x{}__{}_{}.filters", outputs.h,
                                       outputs.w, kernel.h, kernel.w, target.name, target.lanes());
  return shared_function(module, target, name, type(module), [&](Emitter &e) {
    WinogradFilters a{};
    unsigned next = 0;
    for (IrValue *field : {&a.from, &a.to, &a.row, &a.point, &a.panel, &a.channels})
      *field = e.function->getArg(next++);
    const Matrix &columns = winograd_matrices(outputs.h, kernel.h).filter;
    const Matrix &rows = winograd_matrices(outputs.w, kernel.w).filter;
    IrValue coefficients =
        e.offset(e.table(columns.elements), e.mul(a.row, e.constant(kernel.h * 4)));
    IrValues factors; // of the row
    for (int64_t i = 0; i < kernel.h; ++i)
      factors.push_back(e.broadcast(e.load(e.f32, e.offset(coefficients, i * 4)), target.lanes()));
    IrValue taps = e.mul(a.panel, e.constant(kernel.h * kernel.w)); // bytes
    e.loop(a.channels, [&](IrValue channel) {
      IrValue from = e.offset(a.from, e.mul(channel, taps));
      IrValue to = e.offset(a.to, e.mul(channel, a.panel));
      e.loop(e.constant(0), a.panel, e.constant(target.vector_bytes), [&](IrValue bytes) {
        IrValues half;
        for (int64_t j = 0; j < kernel.w; ++j) {
          IrValue sum = nullptr;
          for (int64_t i = 0; i < kernel.h; ++i) {
            IrValue tap = e.mul(a.panel, e.constant(i * kernel.w + j));
            IrValue g = e.load(e.vector(), e.offset(e.offset(from, bytes), tap));
            sum = sum ? e.fma(factors[size_t(i)], g, sum) : e.ir.CreateFMul(factors[size_t(i)], g);
          }
          half.push_back(sum);
        }
        const IrValues line = transform(e, rows, std::move(half));
        for (size_t j = 0; j < line.size(); ++j)
          e.store(line[j], e.offset(e.offset(to, bytes), e.mul(a.point, e.constant(int64_t(j)))));
      });
    });
  });
}

void WinogradFilters::call(Emitter &e, IrValue function) const {
  e.ir.CreateCall(type(e.module), function, {from, to, row, point, panel, channels});
}

namespace {

llvm::FunctionType *output_type(llvm::Module &module, size_t extra) {
  return shared_type(module, 3 + extra, 6 + 2 * extra);
}

// The fields in the order of the function's arguments; their lists must be as long as they will be.
std::vector<IrValue *> fields_of(WinogradOutput &a) {
  std::vector<IrValue *> all{&a.from, &a.to, &a.bias};
  for (IrValue &each : a.post) all.push_back(&each);
  for (IrValue *each : {&a.point, &a.row, &a.pixel, &a.first_row, &a.end_row, &a.live_channels})
    all.push_back(each);
  for (IrValue &each : a.post_row) all.push_back(&each);
  for (IrValue &each : a.post_pixel) all.push_back(&each);
  return all;
}

void transform_back(Emitter &e, const ConvSpec &spec, Size2 outputs, const WinogradOutput &a) {
  const Target &target = e.target;
  const auto &[of_tile, kernel, _] = *spec.winograd;
  const Matrix &columns = winograd_matrices(of_tile.h, kernel.h, outputs.h).output;
  const Matrix &rows = winograd_matrices(of_tile.w, kernel.w, outputs.w).output;
  const int64_t points_w = spec.winograd->points().w;
  // What it reads and writes at the end is on its way meanwhile.
  auto fetch = [&](IrValue base, IrValue row_pitch, IrValue pixel_pitch, Emitter::Fetch what) {
    for (int64_t i = 0; i < outputs.h; ++i)
      for (int64_t j = 0; j < outputs.w; ++j) {
        IrValue pixel = e.add(e.mul(row_pitch, e.constant(i)), e.mul(pixel_pitch, e.constant(j)));
        for (int64_t line = 0; line < spec.tile_vectors * target.vector_bytes; line += 64)
          e.prefetch(e.offset(e.offset(base, pixel), line), what);
      }
  };
  fetch(a.to, a.row, a.pixel, Emitter::Fetch::to_write);
  for (size_t i = 0; i < a.post.size(); ++i)
    fetch(a.post[i], a.post_row[i], a.post_pixel[i], Emitter::Fetch::to_read);
  e.loop(e.constant(spec.tile_vectors), [&](IrValue v) {
    IrValue bytes = e.mul(v, e.constant(target.vector_bytes));
    IrValue lane = e.mul(v, e.constant(target.lanes()));
    IrValue mask =
        spec.masked ? e.lane_mask(e.sub(a.live_channels, lane), target.lanes()) : nullptr;
    IrValue from = e.offset(a.from, bytes);
    auto y = transform_tile(e, columns, rows, [&](int64_t i, int64_t j) {
      IrValue place = e.offset(from, e.mul(a.point, e.constant(i * points_w + j)));
      // Where the next tile's products lie.
      e.prefetch(e.offset(place, spec.tile_vectors * target.vector_bytes), Emitter::Fetch::to_read);
      return e.load(e.vector(), place);
    });
    IrValue bias = spec.bias ? e.load(e.vector(), e.offset(a.bias, bytes)) : nullptr;
    for (int64_t i = 0; i < outputs.h; ++i) {
      IrValue row = e.constant(i);
      IrValue wanted =
          e.ir.CreateAnd(e.ir.CreateICmpSGE(row, a.first_row), e.ir.CreateICmpSLT(row, a.end_row));
      e.when(wanted, [&] {
        for (int64_t j = 0; j < outputs.w; ++j) {
          auto at = [&](IrValue base, IrValue row_pitch, IrValue pixel_pitch) {
            IrValue pixel = e.add(e.mul(row_pitch, row), e.mul(pixel_pitch, e.constant(j)));
            return e.offset(e.offset(base, bytes), pixel);
          };
          IrValue value = y[size_t(i)][size_t(j)];
          if (bias) value = e.ir.CreateFAdd(value, bias);
          value = emit_steps(e, spec.post, value, [&](int k) {
            const size_t o = size_t(k);
            return e.load(e.vector(), at(a.post[o], a.post_row[o], a.post_pixel[o]), mask);
          });
          e.store(value, at(a.to, a.row, a.pixel), mask);
        }
      });
    }
  });
}

} // namespace

llvm::Function *WinogradOutput::function(llvm::Module &module, const Target &whole,
                                         const ConvSpec &spec, Size2 outputs) {
  const ConvSpec own{.tile_vectors = spec.tile_vectors,
                     .lanes = spec.lanes,
                     .masked = spec.masked,
                     .bias = spec.bias,
                     .winograd = spec.winograd,
                     .edge_outputs = outputs,
                     .post = spec.post};
  const size_t extra = operands_of(spec.post);
  const Target target = with_lanes(whole, spec.lanes);
  return shared_function(module, target, kernel_symbol(own, target) + ".transform_back",
                         output_type(module, extra), [&](Emitter &e) {
                           e.function->addFnAttr(aligned_stack);
                           WinogradOutput a{};
                           for (IrValues *list : {&a.post, &a.post_row, &a.post_pixel})
                             list->resize(extra);
                           unsigned next = 0;
                           for (IrValue *field : fields_of(a)) *field = e.function->getArg(next++);
                           transform_back(e, own, outputs, a);
                         });
}

void WinogradOutput::call(Emitter &e, IrValue function) const {
  WinogradOutput copy = *this;
  IrValues all;
  for (IrValue *field : fields_of(copy)) all.push_back(*field);
  e.ir.CreateCall(output_type(e.module, post.size()), function, all);
}

} // namespace lathe::core
