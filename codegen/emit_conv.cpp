// Convolution, alone or with its neighbours. A task brings its input rows into zero-padded scratch
// (prologue), where a convolution before this one may compute them; runs register tiles of pixels x
// output channels over all taps (product); then bias, post steps and store, or a pool behind them
// (epilogue). By Winograd, prologue and epilogue also transform, and a product is of tiles x output
// channels, over input channels, once per point.
#include "codegen/conv_stage.h"

namespace lathe::core {
namespace {

using C = ConvSpec;
using P = ConvSpec::Params;
using Pool = ConvSpec::PoolParams;

// The spec without what the table says, and what only tiles know: equal for kernels that share
// their loops.
ConvSpec loops_of(const ConvSpec &spec) {
  ConvSpec loops = spec;
  loops.tile_pixels = loops.tile_vectors = loops.lanes = 1;
  loops.vector_pixels = loops.step = 1;
  loops.smaller_tile = loops.masked = false;
  loops.group_channels = 0;
  loops.apart = false;
  loops.last = {};
  loops.edge_outputs = {};
  if (loops.winograd) loops.winograd = Winograd{.from_taps = spec.winograd->from_taps};
  loops.post.assign(operands_of(spec.post), FusedOp{Binary{}});
  for (ConvSpec &source : loops.source) source = loops_of(source);
  return loops;
}

// The loop over tasks, which kernels share.
class TaskLoop {
public:
  // In a function of the arguments of a kernel, and a table.
  enum Argument { args, scratch, table, begin, end };
  static llvm::FunctionType *type(llvm::Module &module) { return shared_type(module, 3, 2); }

  TaskLoop(const ConvSpec &spec, Emitter &e)
      : spec_(spec), e_(e), stage_(spec, e.function->getArg(table), 0,
                                   int(spec.first_stage_operand()), int(leaves<P>())) {
    auto argument = [&](Argument i) { return static_cast<IrValue>(e.function->getArg(i)); };
    e.set_arguments(size_t(stage_.end_of_operands() + 1), argument(args), argument(begin),
                    argument(end), argument(scratch));
  }

  void emit() {
    Emitter &e = e_;
    // Consecutive tasks of one thread often share their source.
    e.loop(e.begin, e.end, e.constant(1), {e.constant(-1)},
           [&](IrValue task, const IrValues &state) {
             IrValue panel_group = e.rem(task, e.param(&P::panel_groups));
             IrValue source = e.div(task, e.param(&P::panel_groups)); // image, group, block
             IrValue block = e.rem(source, e.param(&P::row_blocks));
             IrValue image_group = e.div(source, e.param(&P::row_blocks));
             Place at{e.div(image_group, e.param(&P::groups)),
                      e.rem(image_group, e.param(&P::groups))};
             IrValue first = e.mul(block, e.param(&P::block_rows));
             IrValue rows = e.minimum(e.param(&P::block_rows), e.sub(e.param(&P::rows), first));
             e.when(e.ir.CreateICmpNE(source, state[0]),
                    [&] { stage_.prepare(e, at, spec_.pool ? first_conv_row(first) : first); });
             IrValue first_panel = e.mul(panel_group, e.param(&P::panels_per_task));
             IrValue last_panel =
                 e.minimum(e.add(first_panel, e.param(&P::panels_per_task)), e.param(&P::panels));
             e.loop(first_panel, last_panel, e.constant(1), [&](IrValue panel) {
               spec_.pool ? pool(at, panel, first, rows) : store(at, panel, first, rows);
             });
             return IrValues{source};
           });
  }

private:
  template <typename... Path> int pool_number(Path... path) const {
    return stage_.end_of_params() + int(leaf(path...));
  }
  template <typename... Path> IrValue pool_param(Path... path) {
    return e_.param(pool_number(path...));
  }
  IrValue first_conv_row(IrValue first_pool_row) {
    return e_.sub(e_.mul(first_pool_row, pool_param(&Pool::pool, &PoolSpec::Params::stride_h)),
                  pool_param(&Pool::pool, &PoolSpec::Params::pad_top));
  }
  IrValue output(const Place &at, IrValue row) {
    Emitter &e = e_;
    return e.offset(e.operand(C::output),
                    e.add(e.add(e.mul(at.image, e.param(&P::out, &Pitches::image)),
                                e.mul(at.group, e.param(&P::out_group))),
                          e.mul(row, e.param(&P::out, &Pitches::row))));
  }

  void store(const Place &at, IrValue panel, IrValue first, IrValue rows) {
    stage_.panel(e_, at, panel,
                 {first, rows, output(at, first), e_.param(&P::out, &Pitches::row),
                  e_.param(&P::out, &Pitches::pixel), false});
  }

  // The panel's rows go into scratch, and from there as pooled rows into the output.
  void pool(const Place &at, IrValue panel, IrValue first, IrValue rows) {
    Emitter &e = e_;
    IrValue first_conv = first_conv_row(first);
    IrValue lanes = stage_.panel_lanes(e);
    IrValue channel_bytes = e.mul(panel, e.mul(lanes, e.constant(4)));
    IrValue row_pitch = pool_param(&Pool::pool, &PoolSpec::Params::in, &Pitches::row);
    IrValue to = e.offset(e.scratch, pool_param(&Pool::pool_at));
    // The stage adds the panel's place among the channels, scratch holds one panel.
    stage_.panel(e, at, panel,
                 {first_conv, pool_param(&Pool::conv_rows),
                  e.offset(to, e.sub(e.constant(0), channel_bytes)), row_pitch,
                  pool_param(&Pool::pool, &PoolSpec::Params::in, &Pitches::pixel), true});
    IrValue live = e.minimum(e.sub(stage_.channels(e, at), e.mul(panel, lanes)), lanes);
    PoolRow pooled{.params = e.address_of_param(pool_number(&Pool::pool)), .channels = live};
    if (spec_.pool->bias) {
      IrValue channel = e.mul(e.mul(at.group, stage_.channels(e)), e.constant(4));
      pooled.bias = e.offset(e.operand(C::pool_bias), e.add(channel, channel_bytes));
    }
    pooled.in = e.offset(to, e.sub(e.constant(0), e.mul(first_conv, row_pitch)));
    e.loop(rows, [&](IrValue r) {
      pooled.row = e.add(first, r);
      pooled.out = e.offset(output(at, pooled.row), channel_bytes);
      pooled.emit(e, *spec_.pool);
    });
  }

  const ConvSpec &spec_;
  Emitter &e_;
  const Stage stage_;
};

} // namespace

void emit(const ConvSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  const ConvSpec loops = loops_of(spec);
  llvm::Function *tasks =
      shared_function(module, target, kernel_symbol(loops, target) + ".loops",
                      TaskLoop::type(module), [&](Emitter &e) { TaskLoop(loops, e).emit(); });
  Emitter e(module, target, name, 0);
  IrValue table = StageTable::make(e, spec);
  e.ir.CreateCall(tasks, {e.args, e.scratch, table, e.begin, e.end});
  e.ir.CreateRetVoid();
}

} // namespace lathe::core
