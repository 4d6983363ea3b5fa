// Direct convolution. A task brings its input rows into zero-padded scratch (prologue), then runs
// register tiles of pixels x output channels over all taps (product), then bias, post steps and
// store (epilogue).
#include "codegen/emitter.h"

namespace lathe {
namespace {

using C = ConvSpec;

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

class ConvEmitter {
public:
  ConvEmitter(const ConvSpec &spec, const Target &target, llvm::Module &module)
      : spec_(spec), target_(target), module_(module), extra_(post_operands(spec.post)) {}

  void emit(const std::string &name) {
    large_ = tile_function(name + ".tile", spec_.tile_pixels);
    small_ =
        spec_.smaller_tile ? tile_function(name + ".tile_small", spec_.tile_pixels - 1) : nullptr;
    kernel(name);
  }

private:
  int64_t panel_lanes() const { return spec_.tile_vectors * target_.lanes(); }

  // One register tile of `pixels` x tile_vectors vectors, over all of K.
  llvm::Function *tile_function(const std::string &name, int64_t pixels) {
    llvm::LLVMContext &context = module_.getContext();
    llvm::Type *p = llvm::PointerType::get(context, 0), *w = llvm::Type::getInt64Ty(context);
    std::vector<llvm::Type *> types{p, p, p, p, w, w, w, w, w, w, w, w};
    types.insert(types.end(), size_t(extra_), p);
    types.insert(types.end(), size_t(extra_), w);
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
    for (int i = 0; i < extra_; ++i) a.post.push_back(take());
    for (int i = 0; i < extra_; ++i) a.post_pixel.push_back(take());
    tile_body(e, a, pixels);
    e.ir.CreateRetVoid();
    return function;
  }

  void tile_body(Emitter &e, const TileArguments &a, int64_t pixels) {
    const int64_t vectors = spec_.tile_vectors;
    IrValues sums;
    for (int64_t i = 0; i < pixels; ++i)
      for (int64_t v = 0; v < vectors; ++v)
        sums.push_back(spec_.bias ? e.load(e.vector(), e.offset(a.bias, v * target_.vector_bytes))
                                  : e.zero(e.vector()));
    sums = product(e, a, pixels, std::move(sums));
    epilogue(e, a, pixels, sums);
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
          state.push_back(e.offset(source, e.mul(a.pixel_step, e.constant(int64_t(h) * group))));
        auto step = [&](IrValue, const IrValues &carried) {
          IrValues next = carried;
          IrValue weights = carried[0];
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
        IrValue value = emit_post(e, spec_.post, sums[size_t(i * vectors + v)], [&](int operand) {
          return e.load(e.vector(), address(a.post[size_t(operand)], a.post_pixel[size_t(operand)]),
                        mask);
        });
        e.store(value, address(a.out, a.out_pixel), mask);
      }
  }

  // Copies the input rows of one block into scratch, with zeros around the picture.
  void prologue(Emitter &e, IrValue input, IrValue block) {
    IrValue first_row = e.sub(e.mul(block, e.param(C::block_row_step)), e.param(C::pad_top));
    IrValue channels = e.param(C::in_channels), columns = e.param(C::in_cols);
    IrValue pixel_bytes = e.mul(channels, e.constant(4));
    IrValue row_bytes = e.mul(e.param(C::scratch_cols), pixel_bytes);
    IrValue left = e.mul(e.param(C::pad_left), pixel_bytes);
    IrValue copied = e.mul(columns, pixel_bytes);
    auto fill = [&](IrValue from, IrValue bytes) {
      e.for_lanes(e.div(bytes, e.constant(4)), [&](IrValue first, IrValue mask) {
        e.store(e.zero(e.vector()), e.offset(from, e.mul(first, e.constant(4))), mask);
      });
    };
    e.loop(e.param(C::scratch_rows), [&](IrValue r) {
      IrValue row = e.add(first_row, r);
      IrValue to = e.offset(e.scratch, e.mul(r, row_bytes));
      IrValue inside = e.ir.CreateICmpULT(row, e.param(C::in_rows)); // a negative one is huge
      e.when(
          inside,
          [&] {
            IrValue from = e.offset(input, e.mul(row, e.param(C::in_row)));
            fill(to, left);
            IrValue middle = e.offset(to, left);
            copy_row(e, from, middle, columns, channels);
            fill(e.offset(middle, copied), e.sub(e.sub(row_bytes, left), copied));
          },
          [&] { fill(to, row_bytes); });
    });
  }

  void copy_row(Emitter &e, IrValue from, IrValue to, IrValue columns, IrValue channels) {
    IrValue pixel = e.param(C::in_pixel), four = e.constant(4);
    IrValue pixel_bytes = e.mul(channels, four);
    if (spec_.prologue == Prologue::copy) {
      auto copy = [&](IrValue source, IrValue target, IrValue count) {
        e.for_lanes(count, [&](IrValue first, IrValue mask) {
          IrValue bytes = e.mul(first, four);
          e.store(e.load(e.vector(), e.offset(source, bytes), mask), e.offset(target, bytes), mask);
        });
      };
      e.when(
          e.ir.CreateICmpEQ(pixel, pixel_bytes), [&] { copy(from, to, e.mul(columns, channels)); },
          [&] {
            e.loop(columns, [&](IrValue x) {
              copy(e.offset(from, e.mul(x, pixel)), e.offset(to, e.mul(x, pixel_bytes)), channels);
            });
          });
      return;
    }
    IrValue channel = e.param(C::in_channel);
    e.loop(channels, [&](IrValue c) {
      IrValue source = e.offset(from, e.mul(c, channel));
      IrValue target = e.offset(to, e.mul(c, four));
      e.loop(columns, [&](IrValue x) {
        e.store(e.load(e.f32, e.offset(source, e.mul(x, pixel))),
                e.offset(target, e.mul(x, pixel_bytes)));
      });
    });
  }

  void kernel(const std::string &name) {
    Emitter e(module_, target_, name, size_t(C::bias_operand) + spec_.bias + size_t(extra_));
    const int first_post = C::bias_operand + spec_.bias;
    IrValue none = e.constant(-1);
    e.loop(e.begin, e.end, e.constant(1), {none}, [&](IrValue task, const IrValues &state) {
      IrValue panel_group = e.rem(task, e.param(C::panel_groups));
      IrValue source_id = e.div(task, e.param(C::panel_groups)); // image, group, block
      IrValue block = e.rem(source_id, e.param(C::row_blocks));
      IrValue image_group = e.div(source_id, e.param(C::row_blocks));
      IrValue group = e.rem(image_group, e.param(C::groups));
      IrValue image = e.div(image_group, e.param(C::groups));
      auto place = [&](IrValue base, int pitches) { // of image and group
        return e.offset(base,
                        e.add(e.mul(image, e.param(pitches)), e.mul(group, e.param(pitches + 3))));
      };
      IrValue input = e.offset(e.operand(C::input), e.add(e.mul(image, e.param(C::in_image)),
                                                          e.mul(group, e.param(C::in_group))));
      IrValue source = input;
      if (spec_.prologue == Prologue::none) {
        source =
            e.offset(input, e.mul(e.mul(block, e.param(C::block_rows)), e.param(C::src_row_step)));
      } else {
        // Consecutive tasks of one thread often share their input rows.
        e.when(e.ir.CreateICmpNE(source_id, state[0]), [&] { prologue(e, input, block); });
        source = e.scratch;
      }
      panels(e, group, panel_group, block, source, place(e.operand(C::output), C::out_image), [&] {
        IrValues post;
        for (int i = 0; i < extra_; ++i)
          post.push_back(place(e.operand(first_post + i), C::first_post_pitch + 4 * i));
        return post;
      }());
      return IrValues{source_id};
    });
    e.ir.CreateRetVoid();
  }

  void panels(Emitter &e, IrValue group, IrValue panel_group, IrValue block, IrValue source,
              IrValue out, const IrValues &post) {
    IrValue first_panel = e.mul(panel_group, e.param(C::panels_per_task));
    IrValue last_panel =
        e.minimum(e.add(first_panel, e.param(C::panels_per_task)), e.param(C::panels));
    IrValue first_row = e.mul(block, e.param(C::block_rows));
    IrValue rows = e.minimum(e.param(C::block_rows), e.sub(e.param(C::rows), first_row));
    IrValue lanes = e.constant(panel_lanes()), panel_bytes = e.constant(panel_lanes() * 4);
    e.loop(first_panel, last_panel, e.constant(1), [&](IrValue panel) {
      IrValue panel_index = e.add(e.mul(group, e.param(C::panels)), panel);
      IrValue channel_bytes = e.mul(panel, panel_bytes);
      TileArguments a{};
      a.weights = e.offset(e.operand(C::weights), e.mul(panel_index, e.param(C::weight_panel)));
      a.bias = spec_.bias ? e.offset(e.operand(C::bias_operand), e.mul(panel_index, panel_bytes))
                          : static_cast<IrValue>(llvm::ConstantPointerNull::get(
                                llvm::cast<llvm::PointerType>(e.ptr)));
      a.live_channels = e.sub(e.param(C::channels), e.mul(panel, lanes));
      a.pixel_step = e.param(C::src_pixel_step);
      a.tap_rows = e.param(C::tap_rows);
      a.tap_row_pitch = e.param(C::tap_row_pitch);
      a.tap_cols = e.param(C::tap_cols);
      a.tap_col_pitch = e.param(C::tap_col_pitch);
      a.depth = e.param(C::depth);
      a.out_pixel = e.param(C::out_pixel);
      for (int i = 0; i < extra_; ++i)
        a.post_pixel.push_back(e.param(C::first_post_pitch + 4 * i + 2));
      e.loop(rows, [&](IrValue r) {
        IrValue row = e.add(first_row, r);
        IrValue row_source = e.offset(source, e.mul(r, e.param(C::src_row_step)));
        IrValue row_out = e.offset(e.offset(out, e.mul(row, e.param(C::out_row))), channel_bytes);
        IrValues row_post;
        for (int i = 0; i < extra_; ++i)
          row_post.push_back(e.offset(
              e.offset(post[size_t(i)], e.mul(row, e.param(C::first_post_pitch + 4 * i + 1))),
              channel_bytes));
        tiles(e, a, row_source, row_out, row_post);
      });
    });
  }

  // One output row: large tiles, then small ones.
  void tiles(Emitter &e, TileArguments a, IrValue source, IrValue out, const IrValues &post) {
    IrValue large_tiles = e.param(C::large_tiles);
    auto call = [&](llvm::Function *function, IrValue first_pixel) {
      a.source = e.offset(source, e.mul(first_pixel, a.pixel_step));
      a.out = e.offset(out, e.mul(first_pixel, a.out_pixel));
      a.post.clear();
      for (int i = 0; i < extra_; ++i)
        a.post.push_back(e.offset(post[size_t(i)], e.mul(first_pixel, a.post_pixel[size_t(i)])));
      e.ir.CreateCall(function, a.list());
    };
    e.loop(large_tiles, [&](IrValue t) { call(large_, e.mul(t, e.constant(spec_.tile_pixels))); });
    if (!small_) return;
    e.loop(large_tiles, e.param(C::tiles), e.constant(1), [&](IrValue t) {
      call(small_, e.add(e.mul(t, e.constant(spec_.tile_pixels - 1)), large_tiles));
    });
  }

  const ConvSpec &spec_;
  const Target &target_;
  llvm::Module &module_;
  const int extra_;
  llvm::Function *large_ = nullptr, *small_ = nullptr;
};

} // namespace

void emit(const ConvSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  ConvEmitter(spec, target, module).emit(name);
}

} // namespace lathe
