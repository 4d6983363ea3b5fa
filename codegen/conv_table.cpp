#include "codegen/conv_table.h"

namespace lathe::core {
namespace {

void add_stage(Emitter &e, const ConvSpec &s, IrValues &values) {
  auto add = [&](std::initializer_list<int64_t> numbers) {
    for (int64_t number : numbers) values.push_back(e.constant(number));
  };
  add({s.tile_pixels, s.tile_pixels - s.vector_pixels, s.panel()});
  if (!s.winograd) return;
  const auto &[outputs, kernel, from_taps] = *s.winograd;
  const Size2 points = s.winograd->points();
  const Size2 edge = Winograd{s.edge_outputs, kernel}.points();
  add({outputs.h, outputs.w, points.h, points.w, edge.h, edge.w});
  const Target vectors = with_lanes(e.target, s.lanes);
  values.push_back(from_taps ? WinogradFilters::function(e.module, vectors, *s.winograd)
                             : static_cast<IrValue>(e.constant(0)));
  for (int64_t h : {points.h, edge.h})
    for (int64_t w : {points.w, edge.w})
      values.push_back(WinogradInput::function(e.module, e.target, points, {h, w}));
}

IrValues of_panel(Emitter &e, const ConvSpec &s) {
  const TileUse use = !s.winograd             ? TileUse::result
                      : s.winograd->from_taps ? TileUse::part
                                              : TileUse::product;
  IrValue list = e.local(llvm::ArrayType::get(e.i64, uint64_t(s.tile_pixels + 1)));
  const int64_t small = s.tile_pixels - (s.smaller_tile ? s.vector_pixels : 0);
  for (int64_t pixels = s.winograd ? 1 : small; pixels <= s.tile_pixels; pixels += s.vector_pixels)
    e.ir.CreateStore(tile_function(e.module, e.target, s, pixels, use), e.offset(list, pixels * 8));
  IrValues values{e.constant(s.panel()), list};
  if (s.winograd)
    for (int64_t h : {s.winograd->outputs.h, s.edge_outputs.h})
      for (int64_t w : {s.winograd->outputs.w, s.edge_outputs.w})
        values.push_back(WinogradOutput::function(e.module, e.target, s, {h, w}));
  values.resize(StageTable::panel_entries, e.constant(0));
  return values;
}

} // namespace

IrValue StageTable::make(Emitter &e, const ConvSpec &spec) {
  IrValues values;
  for (const ConvSpec *s = &spec; s; s = s->source.empty() ? nullptr : s->source.data()) {
    add_stage(e, *s, values);
    const IrValues panel = of_panel(e, *s);
    values.insert(values.end(), panel.begin(), panel.end());
    const IrValues last = s->last ? of_panel(e, s->of_last_panel()) : panel;
    values.insert(values.end(), last.begin(), last.end());
  }
  IrValue table = e.local(llvm::ArrayType::get(e.i64, values.size()));
  for (size_t i = 0; i < values.size(); ++i)
    e.ir.CreateStore(values[i], e.offset(table, int64_t(i) * 8));
  return table;
}

} // namespace lathe::core
