// What a kernel of producers and consumers is made of: the whole library but for chains and for narrow operands.
#pragma once
#include "tw/across.cuh"
#include "tw/approx.cuh"
#include "tw/follow.cuh"
#include "tw/global.cuh"
#include "tw/grid.cuh"
#include "tw/leaving.cuh"
#include "tw/map.cuh"
#include "tw/products.cuh"
#include "tw/ring.cuh"
