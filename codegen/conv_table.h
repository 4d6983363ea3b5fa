// The table by which a convolution's kernel tells loops that kernels share what it differs in.
// Private to code generation.
#pragma once

#include "codegen/conv_parts.h"

namespace lathe::core {

// Of every stage what this lists: addresses of functions, and numbers.
class StageTable {
public:
  enum Entry {
    large_pixels, // by Winograd, the most
    small_pixels,
    panel_lanes,
    entries,
    // By Winograd, further:
    outputs_h = entries,
    outputs_w,
    points_h,
    points_w,
    edge_points_h,     // of tiles in the last row, if it is an edge
    edge_points_w,     // in the last column
    transform_filters, // where they are made from taps
    transform,         // of the input, four, in the order of TileGrid's `edges`
    winograd_entries = transform + 4
  };
  // Behind them, of all panels but a group's last one, then of that one: the address of a list of
  // register tiles' functions, by their pixels; and, by Winograd, four functions.
  enum PanelEntry { lanes, tiles, transform_back, panel_entries = transform_back + 4 };

  StageTable(IrValue table, const ConvSpec &spec, int first_entry)
      : table_(table), first_(first_entry),
        first_panel_(first_entry + (spec.winograd ? int(winograd_entries) : int(entries))) {}
  int end_of_entries() const { return first_panel_ + 2 * panel_entries; }
  IrValue number(Emitter &e, Entry entry) const { return load_at(e, e.i64, own(e), entry); }
  IrValue address(Emitter &e, Entry entry, IrValue edges = nullptr) const {
    return load_at(e, e.ptr, own(e), entry, edges);
  }

  // What it says of one panel.
  class Panel {
  public:
    Panel(IrValue place) : place_(place) {}
    IrValue number(Emitter &e, PanelEntry entry) const { return load_at(e, e.i64, place_, entry); }
    IrValue address(Emitter &e, PanelEntry entry, IrValue edges) const {
      return load_at(e, e.ptr, place_, entry, edges);
    }
    IrValue tile(Emitter &e, IrValue pixels) const {
      return load_at(e, e.ptr, load_at(e, e.ptr, place_, tiles), 0, pixels);
    }

  private:
    IrValue place_;
  };
  Panel panel(Emitter &e, IrValue is_last) const {
    IrValue number = e.ir.CreateSelect(is_last, e.constant(first_panel_ + panel_entries),
                                       e.constant(first_panel_));
    return {e.offset(table_, e.mul(number, e.constant(8)))};
  }

  // Of the spec and its sources, on the stack of `e`.
  static IrValue make(Emitter &e, const ConvSpec &spec);

private:
  static IrValue load_at(Emitter &e, llvm::Type *type, IrValue table, int entry,
                         IrValue index = nullptr) {
    IrValue place = e.offset(table, int64_t(entry) * 8);
    return e.load_invariant(type, index ? e.offset(place, e.mul(index, e.constant(8))) : place);
  }
  IrValue own(Emitter &e) const { return e.offset(table_, int64_t(first_) * 8); }

  IrValue table_;
  int first_, first_panel_;
};

} // namespace lathe::core
