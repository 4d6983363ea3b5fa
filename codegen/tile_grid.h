// How the tiles of a block are numbered by Winograd. Private to code generation.
#pragma once

#include "codegen/emitter.h"

namespace lathe::core {

// The tiles of Winograd's in a block, `cols` in a row. Of those in the picture's last row or column
// fewer outputs may be wanted, so that they have only the first points. Products of a point are
// those of all tiles that have it: so whole ones lie between those at either edge.
struct TileGrid {
  IrValue rows, cols, whole_rows, whole_cols;

  // 0 inside, 1 in a last column that is an edge, 2 in such a row, 3 in both.
  IrValue edges(Emitter &e, IrValue row, IrValue col) const {
    return e.add(e.mul(beyond(e, row, whole_rows), e.constant(2)), beyond(e, col, whole_cols));
  }
  // The column at the edge, of whole rows; whole columns, row by row; the corner.
  IrValue index(Emitter &e, IrValue row, IrValue col) const {
    IrValue whole = e.add(e.add(column(e), e.mul(row, whole_cols)), col);
    IrValue corner = e.sub(count(e), e.constant(1));
    IrValue at_edge = e.ir.CreateSelect(e.ir.CreateICmpSLT(row, whole_rows), row, corner);
    return e.ir.CreateSelect(e.ir.CreateICmpSLT(col, whole_cols), whole, at_edge);
  }
  IrValue count(Emitter &e) const { return e.mul(rows, cols); }
  struct Range {
    IrValue first, count;
  };
  // The tiles with a point that those in the edge's row may lack, or those in its column.
  Range range(Emitter &e, IrValue lacks_h, bool lacks_w) const {
    IrValue in_rows = e.ir.CreateSelect(lacks_h, whole_rows, rows);
    return {lacks_w ? column(e) : static_cast<IrValue>(e.constant(0)),
            e.mul(in_rows, lacks_w ? whole_cols : cols)};
  }

private:
  static IrValue beyond(Emitter &e, IrValue number, IrValue end) {
    return e.ir.CreateZExt(e.ir.CreateICmpSGE(number, end), e.i64);
  }
  IrValue column(Emitter &e) const { return e.mul(whole_rows, e.sub(cols, whole_cols)); }
};

} // namespace lathe::core
