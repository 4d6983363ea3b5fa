// Convolution, alone or with its neighbours. A task brings its input rows into zero-padded scratch
// (prologue), where a convolution before this one may compute them; runs register tiles of pixels x
// output channels over all taps (product); then bias, post steps and store, or a pool behind them
// (epilogue). By Winograd, prologue and epilogue also transform, and a product is of tiles x output
// channels, over input channels, once per point.
#include "codegen/emitter.h"

#include <fmt/format.h>
#include <memory>

namespace lathe {
namespace {

using C = ConvSpec;

// Weights come from memory, in the order of use. Measured on Zen 4, 8 to 64 KB do alike.
constexpr int64_t prefetch_ahead = 16 << 10;

// What a register tile is told by the loops around it.
struct TileArguments {
  IrValue source, weights, bias, out;
  IrValues post;         // addresses of the post operands
  IrValue live_channels; // of this panel; only read when the spec is masked
  IrValue pixel_step, tap_rows, tap_row_pitch, tap_cols, tap_col_pitch, depth, out_pixel;
  IrValues post_pixel;
  IrValues list() const {
    IrValues all{source,   weights,       bias,     out,           live_channels, pixel_step,
                 tap_rows, tap_row_pitch, tap_cols, tap_col_pitch, depth,         out_pixel};
    all.insert(all.end(), post.begin(), post.end());
    all.insert(all.end(), post_pixel.begin(), post_pixel.end());
    return all;
  }
};

Target with_lanes(Target target, int64_t lanes) {
  target.vector_bytes = int(lanes * 4);
  return target;
}

// What a task works on.
struct Place {
  IrValue image, group;
};

// Rows of a convolution's result that a task wants: `count` from number `first` on, which may lie
// outside the picture; where to, and how far apart rows and pixels are there.
struct Rows {
  IrValue first, count, to, row_pitch, pixel_pitch;
  bool may_be_outside;
};

// One convolution of a chain.
class Stage {
public:
  // Operands and parameters of the stage begin at these numbers; those of its source follow.
  Stage(const ConvSpec &spec, const Target &target, llvm::Module &module, const std::string &name,
        int first_operand, int first_param)
      : spec_(spec), target_(with_lanes(target, spec.lanes)), module_(module),
        extra_(int(operands_of(spec.post))), operands_(first_operand), params_(first_param) {
    large_ = tile_function(name, spec_.tile_pixels);
    if (spec_.smaller_tile) small_ = tile_function(name, spec_.tile_pixels - 1);
    if (spec_.winograd) {
      winograd_input_.emplace(module, target, *spec_.winograd);
      winograd_output_.emplace(module, target_, name + ".transform_back", spec_);
    }
    if (spec_.prologue == Prologue::convolve)
      source_ = std::make_unique<Stage>(spec.source[0], target, module, name + ".source",
                                        operands_ + int(spec.stage_operands()),
                                        params_ + int(spec.stage_params()));
  }
  int end_of_operands() const { // of the whole chain, before its input
    return source_ ? source_->end_of_operands() : operands_ + int(spec_.stage_operands());
  }
  int end_of_params() const {
    return source_ ? source_->end_of_params() : params_ + int(spec_.stage_params());
  }

  // The source of the product for result rows from `first_row` on; fills scratch.
  void prepare(Emitter &e, const Place &at, IrValue first_row) const {
    if (spec_.prologue == Prologue::none) return;
    if (spec_.winograd) {
      IrValue first_tile = tile_row_of(e, first_row);
      bring_rows(e, at, e.sub(e.mul(first_tile, outputs_h(e)), param(e, C::pad_top)));
      return transform_tiles(e, first_tile);
    }
    bring_rows(e, at, e.sub(e.mul(first_row, param(e, C::row_stride)), param(e, C::pad_top)));
  }

  // Scratch rows of the source, from its row `first` on.
  void bring_rows(Emitter &e, const Place &at, IrValue first) const {
    if (!source_) return copy_rows(e, at, first);
    source_->prepare(e, at, first);
    IrValue pixel = e.mul(param(e, C::in_channels), e.constant(4));
    IrValue row = e.mul(param(e, C::scratch_cols), pixel);
    e.loop(param(e, C::scratch_rows),
           [&](IrValue r) { border(e, r, e.add(first, r), [](IrValue) {}); });
    Rows rows{first,
              param(e, C::scratch_rows),
              e.offset(scratch(e), e.mul(param(e, C::pad_left), pixel)),
              row,
              pixel,
              true};
    IrValue panels = source_->param(e, C::stage_panels);
    e.loop(panels, [&](IrValue panel) { source_->panel(e, at, panel, rows); });
  }

  // One panel of the result's rows; `prepare` has been there.
  void panel(Emitter &e, const Place &at, IrValue panel, const Rows &rows) const {
    IrValue lanes = e.constant(panel_lanes()), panel_bytes = e.constant(panel_lanes() * 4);
    IrValue panel_index = e.add(e.mul(at.group, param(e, C::stage_panels)), panel);
    IrValue channel_bytes = e.mul(panel, panel_bytes);
    TileArguments a{};
    a.weights = e.offset(operand(e, C::weights), e.mul(panel_index, param(e, C::weight_panel)));
    a.bias = spec_.bias ? e.offset(operand(e, C::first_vector), e.mul(panel_index, panel_bytes))
                        : static_cast<IrValue>(
                              llvm::ConstantPointerNull::get(llvm::cast<llvm::PointerType>(e.ptr)));
    a.live_channels = e.sub(param(e, C::channels), e.mul(panel, lanes));
    a.pixel_step = param(e, C::src_pixel_step);
    a.tap_rows = param(e, C::tap_rows);
    a.tap_row_pitch = param(e, C::tap_row_pitch);
    a.tap_cols = param(e, C::tap_cols);
    a.tap_col_pitch = param(e, C::tap_col_pitch);
    a.depth = param(e, C::depth);
    a.out_pixel = rows.pixel_pitch;
    IrValues post;
    const int first_post = operands_ + int(spec_.stage_operands()) - extra_;
    for (int i = 0; i < extra_; ++i) {
      const int pitches = C::first_post_pitch + 4 * i;
      a.post_pixel.push_back(param(e, pitches + 2));
      post.push_back(e.offset(
          e.operand(first_post + i),
          e.add(e.add(e.mul(at.image, param(e, pitches)), e.mul(at.group, param(e, pitches + 3))),
                channel_bytes)));
    }
    if (spec_.winograd) return winograd_panel(e, a, rows, e.offset(rows.to, channel_bytes), post);
    IrValue source = first_source(e, at, rows.first);
    e.loop(rows.count, [&](IrValue r) {
      IrValue row = e.add(rows.first, r);
      auto compute = [&] {
        IrValues row_post;
        for (int i = 0; i < extra_; ++i)
          row_post.push_back(
              e.offset(post[size_t(i)], e.mul(row, param(e, C::first_post_pitch + 4 * i + 1))));
        tiles(e, a, e.offset(source, e.mul(r, param(e, C::src_row_step))),
              e.offset(e.offset(rows.to, channel_bytes), e.mul(r, rows.row_pitch)), row_post);
      };
      if (!rows.may_be_outside) return compute();
      e.when(e.ir.CreateICmpULT(row, param(e, C::stage_rows)), compute); // negative ones are huge
    });
  }

  int64_t panel_lanes() const { return spec_.panel(); }
  IrValue channels(Emitter &e) const { return param(e, C::channels); } // of a group

private:
  IrValue param(Emitter &e, int index) const { return e.param(params_ + index); }
  IrValue operand(Emitter &e, int index) const { return e.operand(operands_ + index); }
  IrValue scratch(Emitter &e) const { return e.offset(e.scratch, param(e, C::scratch_at)); }
  IrValue input(Emitter &e, const Place &at) const { // of the image and group
    return e.offset(e.operand(end_of_operands()), e.add(e.mul(at.image, param(e, C::in_image)),
                                                        e.mul(at.group, param(e, C::in_group))));
  }
  // Where the product's taps begin for result row `first_row`.
  IrValue first_source(Emitter &e, const Place &at, IrValue first_row) const {
    if (spec_.prologue != Prologue::none) return scratch(e);
    return e.offset(input(e, at), e.mul(first_row, param(e, C::src_row_step)));
  }

  // --- Winograd: tiles of the result, in rows of `tile_cols`

  IrValue winograd_param(Emitter &e, C::WinogradParam index) const {
    return param(e, int(spec_.first_winograd_param()) + index);
  }
  IrValue outputs_h(Emitter &e) const { return e.constant(spec_.winograd->outputs.h); }
  IrValue tile_row_of(Emitter &e, IrValue row) const { // rows before the picture: the first
    return e.div(e.maximum(row, e.constant(0)), outputs_h(e));
  }
  // Rows of tiles in a block that begins with row `first_tile` of them.
  IrValue tile_rows(Emitter &e, IrValue first_tile) const {
    return e.minimum(winograd_param(e, C::block_tile_rows),
                     e.sub(winograd_param(e, C::tile_rows), first_tile));
  }

  // All input tiles of a block, from rows in scratch.
  void transform_tiles(Emitter &e, IrValue first_tile) const {
    IrValue cols = winograd_param(e, C::tile_cols);
    IrValue to = e.offset(e.scratch, winograd_param(e, C::transformed_at));
    e.loop(tile_rows(e, first_tile), [&](IrValue r) {
      IrValue row = e.offset(scratch(e), e.mul(r, param(e, C::src_row_step)));
      e.loop(cols, [&](IrValue c) {
        IrValue tile = e.mul(e.add(e.mul(r, cols), c), winograd_param(e, C::transformed_tile));
        winograd_input_->call(e, e.offset(row, e.mul(c, param(e, C::src_pixel_step))),
                              param(e, C::tap_row_pitch), param(e, C::tap_col_pitch),
                              param(e, C::in_channels), e.offset(to, tile),
                              winograd_param(e, C::transformed_point));
      });
    });
  }

  // The panel's products for every point, and back: the wanted rows of the result, `to` being the
  // place of the first of them, `post` that of row 0 of the picture.
  void winograd_panel(Emitter &e, TileArguments a, const Rows &rows, IrValue to,
                      const IrValues &post) const {
    IrValue first_tile = tile_row_of(e, rows.first);
    IrValue cols = winograd_param(e, C::tile_cols);
    IrValue tile_count = e.mul(tile_rows(e, first_tile), cols);
    IrValue products = e.offset(e.scratch, winograd_param(e, C::products_at));
    IrValue products_point = winograd_param(e, C::products_point);
    const Size2 points = spec_.winograd->points();
    IrValue weights_point = e.mul(a.depth, e.constant(panel_lanes() * 4));
    TileArguments p = a;
    p.pixel_step = winograd_param(e, C::transformed_tile);
    p.out_pixel = e.constant(panel_lanes() * 4);
    p.post_pixel.clear();
    e.loop(e.constant(points.h * points.w), [&](IrValue point) {
      IrValue source = e.add(winograd_param(e, C::transformed_at),
                             e.mul(point, winograd_param(e, C::transformed_point)));
      p.weights = e.offset(a.weights, e.mul(point, weights_point));
      tiles(e, p, e.offset(e.scratch, source), e.offset(products, e.mul(point, products_point)), {},
            tile_count);
    });
    e.loop(tile_rows(e, first_tile), [&](IrValue r) {
      IrValue row = e.mul(e.add(first_tile, r), outputs_h(e)); // of the picture
      IrValue wanted = e.sub(rows.first, row);                 // from here to the wanted ones
      IrValue end = e.minimum(e.add(wanted, rows.count), e.sub(param(e, C::stage_rows), row));
      e.loop(cols, [&](IrValue c) {
        IrValue tile = e.add(e.mul(r, cols), c);
        IrValue col = e.mul(c, e.constant(spec_.winograd->outputs.w));
        WinogradOutput::Arguments w{};
        w.from = e.offset(products, e.mul(tile, p.out_pixel));
        w.point = products_point;
        w.row = rows.row_pitch;
        w.pixel = rows.pixel_pitch;
        w.to = e.offset(to, e.sub(e.mul(col, w.pixel), e.mul(wanted, w.row)));
        w.first_row = wanted;
        w.end_row = end;
        w.cols = e.sub(winograd_param(e, C::result_cols), col);
        w.bias = a.bias;
        w.live_channels = a.live_channels;
        for (int i = 0; i < extra_; ++i) {
          IrValue row_pitch = param(e, C::first_post_pitch + 4 * i + 1);
          IrValue pixel_pitch = a.post_pixel[size_t(i)];
          w.post.push_back(
              e.offset(post[size_t(i)], e.add(e.mul(row, row_pitch), e.mul(col, pixel_pitch))));
          w.post_row.push_back(row_pitch);
          w.post_pixel.push_back(pixel_pitch);
        }
        winograd_output_->call(e, w);
      });
    });
  }

  // One register tile of `pixels` x tile_vectors vectors, over all of K. Kernels of a module that
  // go by Winograd share theirs, for they do nothing else.
  llvm::Function *tile_function(const std::string &kernel, int64_t pixels) {
    const std::string name =
        fmt::format("{}.tile_{}x{}", spec_.winograd ? "product" : kernel, pixels, spec_.panel());
    if (llvm::Function *known = module_.getFunction(name)) return known;
    llvm::LLVMContext &context = module_.getContext();
    llvm::Type *p = llvm::PointerType::get(context, 0), *w = llvm::Type::getInt64Ty(context);
    std::vector<llvm::Type *> types{p, p, p, p, w, w, w, w, w, w, w, w};
    const int extra = spec_.winograd ? 0 : extra_;
    types.insert(types.end(), size_t(extra), p);
    types.insert(types.end(), size_t(extra), w);
    auto *function = llvm::Function::Create(
        llvm::FunctionType::get(llvm::Type::getVoidTy(context), types, false),
        llvm::Function::InternalLinkage, name, module_);
    function->addFnAttr(llvm::Attribute::NoInline);
    Emitter e(module_, target_, function);
    int next = 0;
    auto take = [&] { return static_cast<IrValue>(function->getArg(unsigned(next++))); };
    TileArguments a{};
    for (IrValue *field :
         {&a.source, &a.weights, &a.bias, &a.out, &a.live_channels, &a.pixel_step, &a.tap_rows,
          &a.tap_row_pitch, &a.tap_cols, &a.tap_col_pitch, &a.depth, &a.out_pixel})
      *field = take();
    for (int i = 0; i < extra; ++i) a.post.push_back(take());
    for (int i = 0; i < extra; ++i) a.post_pixel.push_back(take());
    tile_body(e, a, pixels);
    e.ir.CreateRetVoid();
    return function;
  }

  void tile_body(Emitter &e, const TileArguments &a, int64_t pixels) {
    const int64_t vectors = spec_.tile_vectors;
    if (!spec_.winograd) fetch_results(e, a, pixels);
    IrValues sums;
    for (int64_t i = 0; i < pixels; ++i)
      for (int64_t v = 0; v < vectors; ++v)
        sums.push_back(spec_.bias && !spec_.winograd
                           ? e.load(e.vector(), e.offset(a.bias, v * target_.vector_bytes))
                           : e.zero(e.vector()));
    sums = product(e, a, pixels, std::move(sums));
    if (spec_.winograd) // the epilogue is the transform's
      store_sums(e, a, pixels, sums);
    else
      epilogue(e, a, pixels, sums);
  }

  // What the epilogue reads and writes is on its way while the product runs.
  void fetch_results(Emitter &e, const TileArguments &a, int64_t pixels) {
    auto fetch = [&](IrValue base, IrValue pitch, bool write) {
      for (int64_t i = 0; i < pixels; ++i)
        for (int64_t line = 0; line < panel_lanes() * 4; line += 64)
          e.prefetch(e.offset(e.offset(base, e.mul(pitch, e.constant(i))), line),
                     write ? Emitter::Fetch::to_write : Emitter::Fetch::to_read);
    };
    fetch(a.out, a.out_pixel, true);
    for (size_t i = 0; i < a.post.size(); ++i) fetch(a.post[i], a.post_pixel[i], false);
  }

  // sums[pixel][vector] += source[pixel][k] * weights[k][vector], rows, then columns, then depth.
  // Addresses: one running pointer for every five pixels, the others at 1, 2, 3, 4 steps from it,
  // so that x86 needs three address registers and no vector reload.
  IrValues product(Emitter &e, const TileArguments &a, int64_t pixels, IrValues sums) {
    constexpr int64_t group = 5;
    const int64_t vectors = spec_.tile_vectors;
    auto rows = [&](IrValue row, const IrValues &row_state) {
      IrValue row_source = e.offset(a.source, e.mul(row, a.tap_row_pitch));
      auto columns = [&](IrValue column, const IrValues &column_state) {
        IrValue source = e.offset(row_source, e.mul(column, a.tap_col_pitch));
        IrValues state = column_state;
        const size_t heads = size_t((pixels + group - 1) / group);
        for (size_t h = 0; h < heads; ++h)
          // Frozen, or LLVM makes one chain of additions of them, longer than the product.
          state.push_back(e.ir.CreateFreeze(
              e.offset(source, e.mul(a.pixel_step, e.constant(int64_t(h) * group)))));
        auto step = [&](IrValue, const IrValues &carried) {
          IrValues next = carried;
          IrValue weights = carried[0];
          for (int64_t line = 0; line < vectors * target_.vector_bytes; line += 64)
            e.prefetch(e.offset(weights, prefetch_ahead + line), Emitter::Fetch::into_l2);
          IrValues w;
          for (int64_t v = 0; v < vectors; ++v)
            w.push_back(e.load(e.vector(), e.offset(weights, v * target_.vector_bytes)));
          for (int64_t i = 0; i < pixels; ++i) {
            IrValue head = carried[1 + sums.size() + size_t(i / group)];
            IrValue address = e.offset(head, e.mul(a.pixel_step, e.constant(i % group)));
            IrValue x = e.broadcast(e.load(e.f32, address), target_.lanes());
            for (int64_t v = 0; v < vectors; ++v) {
              IrValue &sum = next[size_t(1 + i * vectors + v)];
              sum = e.fma(x, w[size_t(v)], sum);
            }
          }
          next[0] = e.offset(weights, vectors * target_.vector_bytes);
          for (size_t h = 0; h < heads; ++h)
            next[1 + sums.size() + h] = e.offset(carried[1 + sums.size() + h], 4);
          return next;
        };
        IrValues done = e.loop_nonempty(a.depth, state, step);
        done.resize(1 + sums.size());
        return done;
      };
      return e.loop_nonempty(a.tap_cols, row_state, columns);
    };
    IrValues state{a.weights};
    state.insert(state.end(), sums.begin(), sums.end());
    state = e.loop_nonempty(a.tap_rows, state, rows);
    return IrValues(state.begin() + 1, state.end());
  }

  void store_sums(Emitter &e, const TileArguments &a, int64_t pixels, const IrValues &sums) {
    const int64_t vectors = spec_.tile_vectors;
    for (int64_t i = 0; i < pixels * vectors; ++i)
      e.store(sums[size_t(i)], e.offset(a.out, i * target_.vector_bytes));
  }

  void epilogue(Emitter &e, const TileArguments &a, int64_t pixels, const IrValues &sums) {
    const int64_t vectors = spec_.tile_vectors, lanes = target_.lanes();
    IrValues masks(size_t(vectors), nullptr);
    if (spec_.masked)
      for (int64_t v = 0; v < vectors; ++v)
        masks[size_t(v)] = e.lane_mask(e.sub(a.live_channels, e.constant(v * lanes)), lanes);
    for (int64_t i = 0; i < pixels; ++i)
      for (int64_t v = 0; v < vectors; ++v) {
        auto address = [&](IrValue base, IrValue pitch) {
          return e.offset(e.offset(base, e.mul(pitch, e.constant(i))), v * target_.vector_bytes);
        };
        IrValue mask = masks[size_t(v)];
        IrValue value = emit_steps(e, spec_.post, sums[size_t(i * vectors + v)], [&](int operand) {
          return e.load(e.vector(), address(a.post[size_t(operand)], a.post_pixel[size_t(operand)]),
                        mask);
        });
        e.store(value, address(a.out, a.out_pixel), mask);
      }
  }

  // Scratch row `r` of a source whose picture has `row`: zeros outside and around the picture,
  // fill(address of the first pixel) inside.
  void border(Emitter &e, IrValue r, IrValue row, const std::function<void(IrValue)> &fill) const {
    IrValue pixel = e.mul(param(e, C::in_channels), e.constant(4));
    IrValue row_bytes = e.mul(param(e, C::scratch_cols), pixel);
    IrValue left = e.mul(param(e, C::pad_left), pixel), inner = e.mul(param(e, C::in_cols), pixel);
    IrValue to = e.offset(scratch(e), e.mul(r, row_bytes));
    auto zeros = [&](IrValue from, IrValue bytes) {
      e.for_lanes(e.div(bytes, e.constant(4)), [&](IrValue first, IrValue mask) {
        e.store(e.zero(e.vector()), e.offset(from, e.mul(first, e.constant(4))), mask);
      });
    };
    e.when(
        e.ir.CreateICmpULT(row, param(e, C::in_rows)), // a negative one is huge
        [&] {
          zeros(to, left);
          IrValue middle = e.offset(to, left);
          fill(middle);
          zeros(e.offset(middle, inner), e.sub(e.sub(row_bytes, left), inner));
        },
        [&] { zeros(to, row_bytes); });
  }

  // The input rows of one block, from number `first` on, with `pre` applied.
  void copy_rows(Emitter &e, const Place &at, IrValue first) const {
    IrValue from = input(e, at);
    e.loop(param(e, C::scratch_rows), [&](IrValue r) {
      IrValue row = e.add(first, r);
      border(e, r, row, [&](IrValue to) {
        copy_row(e, at, e.offset(from, e.mul(row, param(e, C::in_row))), to);
      });
    });
  }

  void copy_row(Emitter &e, const Place &at, IrValue from, IrValue to) const {
    IrValue channels = param(e, C::in_channels), columns = param(e, C::in_cols);
    IrValue pixel = param(e, C::in_pixel), four = e.constant(4);
    IrValue pixel_bytes = e.mul(channels, four);
    IrValues vectors; // of this group
    for (size_t i = 0; i < operands_of(spec_.pre); ++i)
      vectors.push_back(e.offset(operand(e, C::first_vector + spec_.bias + int(i)),
                                 e.mul(at.group, pixel_bytes)));
    // `count` channels of one pixel, or, without `pre`, of several that follow each other.
    auto copy = [&](IrValue source, IrValue target, IrValue count) {
      e.for_lanes(count, [&](IrValue first, IrValue mask) {
        IrValue bytes = e.mul(first, four);
        auto load = [&](IrValue base) { return e.load(e.vector(), e.offset(base, bytes), mask); };
        IrValue value =
            emit_steps(e, spec_.pre, load(source), [&](int i) { return load(vectors[size_t(i)]); });
        e.store(value, e.offset(target, bytes), mask);
      });
    };
    if (spec_.prologue == Prologue::copy) {
      auto pixel_by_pixel = [&] {
        e.loop(columns, [&](IrValue x) {
          copy(e.offset(from, e.mul(x, pixel)), e.offset(to, e.mul(x, pixel_bytes)), channels);
        });
      };
      if (!spec_.pre.empty()) return pixel_by_pixel();
      return e.when(
          e.ir.CreateICmpEQ(pixel, pixel_bytes), [&] { copy(from, to, e.mul(columns, channels)); },
          pixel_by_pixel);
    }
    IrValue first = spec_.gathered > 0 ? interleave(e, from, to, vectors) : e.constant(0);
    IrValue channel = param(e, C::in_channel);
    e.loop(channels, [&](IrValue c) {
      IrValue bytes = e.mul(c, four);
      IrValue source = e.offset(from, e.mul(c, channel)), target = e.offset(to, bytes);
      IrValues factors;
      for (IrValue vector : vectors) factors.push_back(e.load(e.f32, e.offset(vector, bytes)));
      e.loop(first, columns, e.constant(1), [&](IrValue x) {
        IrValue value = e.load(e.f32, e.offset(source, e.mul(x, pixel)));
        value = emit_steps(e, spec_.pre, value, [&](int i) { return factors[size_t(i)]; });
        e.store(value, e.offset(target, e.mul(x, pixel_bytes)));
      });
    });
  }

  // Gathers a few channels of a picture whose columns are contiguous, a vector of columns at a
  // time. Returns how many columns it did: none where they are not contiguous.
  IrValue interleave(Emitter &e, IrValue from, IrValue to, const IrValues &pre) const {
    const int64_t lanes = e.target.lanes(), count = spec_.gathered;
    IrValue contiguous = e.ir.CreateICmpEQ(param(e, C::in_pixel), e.constant(4));
    IrValue columns = e.mul(e.div(param(e, C::in_cols), e.constant(lanes)), e.constant(lanes));
    IrValue done = e.ir.CreateSelect(contiguous, columns, e.constant(0));
    e.loop(e.constant(0), done, e.constant(lanes), [&](IrValue x) {
      IrValues values;
      for (int64_t c = 0; c < count; ++c) {
        IrValue at = e.add(e.mul(e.constant(c), param(e, C::in_channel)), e.mul(x, e.constant(4)));
        IrValue value =
            emit_steps(e, spec_.pre, e.load(e.vector(), e.offset(from, at)), [&](int i) {
              return e.broadcast(e.load(e.f32, e.offset(pre[size_t(i)], c * 4)), lanes);
            });
        values.push_back(value);
      }
      IrValue row = e.offset(to, e.mul(x, e.constant(count * 4)));
      IrValues mixed = e.interleave(values);
      for (int64_t c = 0; c < count; ++c) e.store(mixed[size_t(c)], e.offset(row, c * lanes * 4));
    });
    return done;
  }

  // One output row: large tiles, then small ones; those that begin before `end`, if that is given.
  void tiles(Emitter &e, TileArguments a, IrValue source, IrValue out, const IrValues &post,
             IrValue end = nullptr) const {
    IrValue large_tiles = param(e, C::large_tiles);
    auto run = [&](llvm::Function *function, IrValue first_pixel) {
      a.source = e.offset(source, e.mul(first_pixel, a.pixel_step));
      a.out = e.offset(out, e.mul(first_pixel, a.out_pixel));
      a.post.clear();
      for (size_t i = 0; i < post.size(); ++i)
        a.post.push_back(e.offset(post[i], e.mul(first_pixel, a.post_pixel[i])));
      e.ir.CreateCall(function, a.list());
    };
    auto call = [&](llvm::Function *function, IrValue first) {
      if (!end) return run(function, first);
      e.when(e.ir.CreateICmpULT(first, end), [&] { run(function, first); });
    };
    e.loop(large_tiles, [&](IrValue t) { call(large_, e.mul(t, e.constant(spec_.tile_pixels))); });
    if (!small_) return;
    e.loop(large_tiles, param(e, C::tiles), e.constant(1), [&](IrValue t) {
      call(small_, e.add(e.mul(t, e.constant(spec_.tile_pixels - 1)), large_tiles));
    });
  }

  const ConvSpec &spec_;
  const Target target_; // with vectors as wide as the tiles'
  llvm::Module &module_;
  const int extra_; // post operands
  const int operands_, params_;
  llvm::Function *large_ = nullptr, *small_ = nullptr;
  std::optional<WinogradInput> winograd_input_;
  std::optional<WinogradOutput> winograd_output_;
  std::unique_ptr<Stage> source_;
};

// The loop over tasks.
class ConvEmitter {
public:
  ConvEmitter(const ConvSpec &spec, const Target &target, llvm::Module &module,
              const std::string &name)
      : spec_(spec),
        stage_(spec, target, module, name, int(spec.first_stage_operand()), C::first_stage_param),
        e_(module, target, name, size_t(stage_.end_of_operands() + 1)) {}

  void emit() {
    Emitter &e = e_;
    // Consecutive tasks of one thread often share their source.
    e.loop(
        e.begin, e.end, e.constant(1), {e.constant(-1)}, [&](IrValue task, const IrValues &state) {
          IrValue panel_group = e.rem(task, e.param(C::panel_groups));
          IrValue source = e.div(task, e.param(C::panel_groups)); // image, group, block
          IrValue block = e.rem(source, e.param(C::row_blocks));
          IrValue image_group = e.div(source, e.param(C::row_blocks));
          Place at{e.div(image_group, e.param(C::groups)), e.rem(image_group, e.param(C::groups))};
          IrValue first = e.mul(block, e.param(C::block_rows));
          IrValue rows = e.minimum(e.param(C::block_rows), e.sub(e.param(C::rows), first));
          e.when(e.ir.CreateICmpNE(source, state[0]),
                 [&] { stage_.prepare(e, at, spec_.pool ? first_conv_row(first) : first); });
          IrValue first_panel = e.mul(panel_group, e.param(C::panels_per_task));
          IrValue last_panel =
              e.minimum(e.add(first_panel, e.param(C::panels_per_task)), e.param(C::panels));
          e.loop(first_panel, last_panel, e.constant(1), [&](IrValue panel) {
            spec_.pool ? pool(at, panel, first, rows) : store(at, panel, first, rows);
          });
          return IrValues{source};
        });
    e.ir.CreateRetVoid();
  }

private:
  IrValue scratch_param(C::PoolParam index) { return e_.param(stage_.end_of_params() + index); }
  int first_pool_param() const { return stage_.end_of_params() + C::first_pool_param; }
  IrValue pool_param(PoolSpec::Param index) { return e_.param(first_pool_param() + index); }
  IrValue first_conv_row(IrValue first_pool_row) {
    return e_.sub(e_.mul(first_pool_row, pool_param(PoolSpec::stride_h)),
                  pool_param(PoolSpec::pad_top));
  }
  IrValue output(const Place &at, IrValue row) {
    Emitter &e = e_;
    return e.offset(e.operand(C::output), e.add(e.add(e.mul(at.image, e.param(C::out_image)),
                                                      e.mul(at.group, e.param(C::out_group))),
                                                e.mul(row, e.param(C::out_row))));
  }

  void store(const Place &at, IrValue panel, IrValue first, IrValue rows) {
    stage_.panel(
        e_, at, panel,
        {first, rows, output(at, first), e_.param(C::out_row), e_.param(C::out_pixel), false});
  }

  // The panel's rows go into scratch, and from there as pooled rows into the output.
  void pool(const Place &at, IrValue panel, IrValue first, IrValue rows) {
    Emitter &e = e_;
    IrValue first_conv = first_conv_row(first);
    IrValue channel_bytes = e.mul(panel, e.constant(stage_.panel_lanes() * 4));
    IrValue row_pitch = pool_param(PoolSpec::in_row);
    IrValue to = e.offset(e.scratch, scratch_param(C::pool_at));
    // The stage adds the panel's place among the channels, scratch holds one panel.
    stage_.panel(e, at, panel,
                 {first_conv, scratch_param(C::conv_rows),
                  e.offset(to, e.sub(e.constant(0), channel_bytes)), row_pitch,
                  pool_param(PoolSpec::in_pixel), true});
    IrValue lanes = e.constant(stage_.panel_lanes());
    IrValue live = e.minimum(e.sub(stage_.channels(e), e.mul(panel, lanes)), lanes);
    PoolRow pooled{e, *spec_.pool, first_pool_param()};
    if (spec_.pool->bias) {
      IrValue channel = e.mul(e.mul(at.group, stage_.channels(e)), e.constant(4));
      pooled.bias = e.offset(e.operand(C::pool_bias), e.add(channel, channel_bytes));
    }
    IrValue picture = e.offset(to, e.sub(e.constant(0), e.mul(first_conv, row_pitch)));
    e.loop(rows, [&](IrValue r) {
      IrValue row = e.add(first, r);
      pooled.emit(row, picture, e.offset(output(at, row), channel_bytes), live);
    });
  }

  const ConvSpec &spec_;
  Stage stage_;
  Emitter e_;
};

} // namespace

void emit(const ConvSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  ConvEmitter(spec, target, module, name).emit();
}

} // namespace lathe
