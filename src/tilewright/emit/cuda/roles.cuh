// What a kernel of producers and consumers is made of: the whole library but for chains and for narrow operands.
#pragma once
#include "tw/approx.cuh"
#include "tw/cluster.cuh"
#include "tw/follow.cuh"
#include "tw/global.cuh"
#include "tw/grid.cuh"
#include "tw/map.cuh"
#include "tw/mbarrier.cuh"
#include "tw/shared.cuh"
#include "tw/tile.cuh"
#include "tw/tma.cuh"
#include "tw/types.cuh"
#include "tw/wgmma.cuh"
