// Which tile a block works on: orders in which the tiles of a grid are dealt out.
#pragma once

namespace tw {

struct Tile2 {
  int i, j;
};

__device__ constexpr int ceil_div(int n, int d) { return (n + d - 1) / d; }

// Row by row.
__device__ inline Tile2 row_order(int item, int, int columns) { return {item / columns, item % columns}; }

// GROUP rows walk together along the columns, so that neighbours in time share both operands in L2.
template <int GROUP>
__device__ inline Tile2 grouped_order(int item, int rows, int columns) {
  const int first = item / (GROUP * columns) * GROUP;
  const int height = rows - first < GROUP ? rows - first : GROUP;
  const int inside = item % (GROUP * columns);
  return {first + inside % height, inside / height};
}

// Along a generalised Hilbert curve that fits any rectangle (J. Cerveny, "gilbert").
__device__ inline Tile2 hilbert_order(int item, int rows, int columns) {
  int x = 0, y = 0, ax, ay, bx, by;
  if (columns >= rows) ax = columns, ay = 0, bx = 0, by = rows;
  else ax = 0, ay = rows, bx = columns, by = 0;
  int at = 0;
  for (;;) {
    const int w = abs(ax + ay), h = abs(bx + by);
    const int dax = (ax > 0) - (ax < 0), day = (ay > 0) - (ay < 0), dbx = (bx > 0) - (bx < 0), dby = (by > 0) - (by < 0);
    const int step = item - at;
    if (h == 1) return {y + day * step, x + dax * step};
    if (w == 1) return {y + dby * step, x + dbx * step};
    int ax2 = ax / 2, ay2 = ay / 2, bx2 = bx / 2, by2 = by / 2;
    const int w2 = abs(ax2 + ay2), h2 = abs(bx2 + by2);
    if (2 * w > 3 * h) {
      if (w2 % 2 && w > 2) ax2 += dax, ay2 += day;
      const int first = abs((ax2 + ay2) * (bx + by));
      if (step < first) {
        ax = ax2, ay = ay2;
      } else {
        at += first, x += ax2, y += ay2, ax -= ax2, ay -= ay2;
      }
      continue;
    }
    if (h2 % 2 && h > 2) bx2 += dbx, by2 += dby;
    const int first = abs((bx2 + by2) * (ax2 + ay2));
    const int second = first + abs((ax + ay) * ((bx - bx2) + (by - by2)));
    if (step < first) {
      const int tx = ax2, ty = ay2;
      ax = bx2, ay = by2, bx = tx, by = ty;
    } else if (step < second) {
      at += first, x += bx2, y += by2, bx -= bx2, by -= by2;
    } else {
      at += second;
      const int nx = x + (ax - dax) + (bx2 - dbx), ny = y + (ay - day) + (by2 - dby);
      const int cx = -bx2, cy = -by2, ex = -(ax - ax2), ey = -(ay - ay2);
      x = nx, y = ny, ax = cx, ay = cy, bx = ex, by = ey;
    }
  }
}

// The next of `items` for the block that asks: those after the first of each block, in order. The ticket is left at 0 by
// the last one that asks in vain.
__device__ inline int draw(unsigned* ticket, int items) {
  const unsigned drawn = atomicAdd(ticket, 1u);
  if (drawn == unsigned(items) - 1) *ticket = 0;
  return int(gridDim.x + drawn);
}

}  // namespace tw
