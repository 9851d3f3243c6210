// Attention over the paged cache: who computes which tile and partition, and the merge of partitions in index order.
//
// The work is the list of all (tile, partition) pairs, tiles outermost, cut into one contiguous range of about equal cost per
// thread. A tile that a cut goes through is finished, after a barrier, by the thread that began it: the others leave their
// partitions of it in their scratch, each partition on its own, so that the order of the merge is the same wherever the cuts are.
#include "attention.h"

#include <optional>

#include "kernels.h"

namespace nvlm::NVLM_PATH {
namespace {

constexpr int64_t kRowsPerKeyLoad = 4;     // reading a key costs about as much as this many rows' arithmetic on it
constexpr int64_t kKeysPerPartition = 32;  // and starting a partition as much as this many keys

int64_t roundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// The tiles of a step and what they cost.
struct Plan {
  const AttentionArgs& args;
  int group;
  int64_t total;

  explicit Plan(const AttentionArgs& a) : args(a), group(a.heads / a.cache.kvHeads), total(0) {
    forEachTile([&](const Tile& tile, int64_t) { total += cost(tile, partitions(tile)); });
  }

  // Calls visit(tile, cost of all tiles before it).
  template <class Visit>
  void forEachTile(const Visit& visit) const {
    const StepView& step = *args.step;
    int64_t before = 0;
    for (int s = 0; s < step.sequences; ++s) {
      const int queryBegin = step.cuSeqlensQ[s];
      const int queryCount = step.cuSeqlensQ[s + 1] - queryBegin;
      const int rows = queryCount * group;
      for (int kvHead = 0; kvHead < args.cache.kvHeads; ++kvHead) {
        for (int row = 0; row < rows; row += kTileRows) {
          Tile tile{s, kvHead, row, rows - row < kTileRows ? rows - row : kTileRows, queryBegin, queryCount,
                    step.seqLens[s], 0, args.causal};
          const int lastQuery = (tile.rowBegin + tile.rows - 1) / group;
          tile.keys = tile.visibleKeys(lastQuery);
          visit(tile, before);
          before += cost(tile, partitions(tile));
        }
      }
    }
  }

  int partitions(const Tile& tile) const {
    return tile.keys <= args.partition ? 1 : (tile.keys + args.partition - 1) / args.partition;
  }

  // Of the first `count` partitions of a tile.
  int64_t cost(const Tile& tile, int count) const {
    const int64_t end = static_cast<int64_t>(count) * args.partition;
    const int64_t keys = end < tile.keys ? end : tile.keys;
    return (keys + count * kKeysPerPartition) * (tile.rows + kRowsPerKeyLoad);
  }

  // Partitions of the tile that lie before the cut at `boundary`: those whose middle does.
  int partitionsBefore(const Tile& tile, int64_t before, int64_t boundary) const {
    const int count = partitions(tile);
    if (boundary <= before) return 0;
    if (boundary >= before + cost(tile, count)) return count;
    int p = 0;
    while (p < count && 2 * before + cost(tile, p) + cost(tile, p + 1) < 2 * boundary) ++p;
    return p;
  }

  int64_t boundary(int lane, int laneCount) const { return total * lane / laneCount; }
};

// A thread's scratch: one tile's working memory, the running and the newest partial, then a partial per partition left for
// another thread.
struct Workspace {
  uint8_t* base;
  int padded;
  int64_t partialBytes;

  Workspace(uint8_t* scratch, int headSize)
      : base(scratch), padded(static_cast<int>(roundUp(headSize, kLanes))),
        partialBytes(kTileRows * (padded + 2) * static_cast<int64_t>(sizeof(float))) {}

  TileScratch tile() const {
    TileScratch scratch;
    uint8_t* next = base;
    const auto take = [&next](int64_t bytes) {
      uint8_t* taken = next;
      next += bytes;
      return taken;
    };
    scratch.queries = take(kTileRows * padded * sizeof(float));
    scratch.scores = reinterpret_cast<float*>(take(kTileRows * kKeyBlock * sizeof(float)));
    scratch.sums = reinterpret_cast<float*>(take(kTileRows * kLanes * sizeof(float)));
    scratch.newPeak = reinterpret_cast<float*>(take(kTileRows * sizeof(float)));
    scratch.decay = reinterpret_cast<float*>(take(kTileRows * sizeof(float)));
    scratch.queryScales = reinterpret_cast<float*>(take(kTileRows * sizeof(float)));
    scratch.weightScales = reinterpret_cast<float*>(take(kTileRows * sizeof(float)));
    scratch.limits = reinterpret_cast<int32_t*>(take(kTileRows * sizeof(int32_t)));
    scratch.tail = take(kKeyGroup * padded * sizeof(float));
    return scratch;
  }
  int64_t tileBytes() const {
    return kTileRows * (padded + kKeyBlock + kLanes + 5) * static_cast<int64_t>(sizeof(float)) +
           kKeyGroup * padded * static_cast<int64_t>(sizeof(float));
  }
  Partial partial(int64_t index) const {
    float* at = reinterpret_cast<float*>(base + tileBytes() + index * partialBytes);
    return {at + 2 * kTileRows, at, at + kTileRows};
  }
  Partial running() const { return partial(0); }
  Partial newest() const { return partial(1); }
  Partial left(int64_t index) const { return partial(2 + index); }
  int64_t bytes(int64_t leftPartials) const { return tileBytes() + (2 + leftPartials) * partialBytes; }
};

// The partitions [begin, end) of a tile that a thread computes; `before` is the cost of all tiles before it.
struct Share {
  Tile tile;
  int64_t before;
  int begin, end;
};

// running = running merged with `next`, the partition after all that are in it, for rows [rowBegin, rowEnd).
void merge(int rowBegin, int rowEnd, int padded, const Partial& running, const Partial& next) {
  alignas(64) float runningFactor[kTileRows], nextFactor[kTileRows];
  for (int r = rowBegin / kLanes * kLanes; r < rowEnd; r += kLanes) {
    const F32x16 a = load(running.peak + r), b = load(next.peak + r);
    const F32x16 peak = max(a, b);
    store(runningFactor + r, exp2(a - peak));
    store(nextFactor + r, exp2(b - peak));
  }
  for (int r = rowBegin; r < rowEnd; ++r) {
    if (next.peak[r] > running.peak[r]) running.peak[r] = next.peak[r];
    const float a = runningFactor[r], b = nextFactor[r];
    running.sum[r] = running.sum[r] * a + next.sum[r] * b;
    float* out = running.out + r * padded;
    const float* add = next.out + r * padded;
    for (int d = 0; d < padded; d += kLanes) {
      store(out + d, fma(load(add + d), splat(b), load(out + d) * splat(a)));
    }
  }
}

// Divides by the sums and writes the rows of the tile.
void finish(const AttentionArgs& args, const Tile& tile, int group, int padded, const Partial& running) {
  const int headSize = args.cache.headSize;
  for (int r = 0; r < tile.rows; ++r) {
    const int64_t token = tile.queryBegin + (tile.rowBegin + r) / group;
    const int64_t head = tile.kvHead * group + (tile.rowBegin + r) % group;
    float* to = args.out + (token * args.heads + head) * headSize;
    const float* from = running.out + r * padded;
    const F32x16 factor = splat(running.sum[r] == 0.0f ? 0.0f : 1.0f / running.sum[r]);
    for (int d = 0; d < headSize; d += kLanes) {
      const int n = headSize - d < kLanes ? headSize - d : kLanes;
      // Keys of probability 0 that only some tiles visit may have turned -0 into 0: adding 0 makes both 0.
      storePartial(to + d, load(from + d) * factor + zero(), n);
    }
  }
}

}  // namespace

size_t attentionScratchBytes(const AttentionArgs& largest) {
  const int64_t keys = static_cast<int64_t>(largest.step->maxBlocks) * largest.cache.blockSize;
  const Workspace workspace(nullptr, largest.cache.headSize);
  return static_cast<size_t>(workspace.bytes((keys + largest.partition - 1) / largest.partition));
}

void attention(const AttentionArgs& args, const Lane& lane) {
  const CacheLayer& cache = args.cache;
  const StepView& step = *args.step;
  const Plan plan(args);
  const int group = plan.group;
  const BlockLayout layout = blockLayout(cache.blockSize, cache.kvHeads, cache.headSize, cache.type);
  const Workspace workspace(lane.scratch, cache.headSize);
  const TileScratch scratch = workspace.tile();
  const int padded = workspace.padded;
  const int64_t tokenStride = static_cast<int64_t>(args.heads + 2 * cache.kvHeads) * cache.headSize;
  const int64_t rangeBegin = plan.boundary(lane.index, lane.count);
  const int64_t rangeEnd = plan.boundary(lane.index + 1, lane.count);

  const auto blockTable = [&](const Tile& tile) {
    return step.blockTables + static_cast<int64_t>(tile.sequence) * step.maxBlocks;
  };
  // Rows before the first that sees a key of partition p have nothing to merge from there on.
  const auto firstRow = [&](const Tile& tile, int p) { return tile.firstRow(p * args.partition, group); };

  Tile begunTile{};
  int64_t begunBefore = -1;
  const auto attend = [&](const Share& share, const KeyBlock& after) {
    const auto& [tile, before, begin, end] = share;
    const int count = plan.partitions(tile);
    const float* queries = args.qkv + tile.queryBegin * tokenStride +
                           static_cast<int64_t>(tile.kvHead) * group * cache.headSize;
    packQueries(tile, group, cache.headSize, cache.type, queries, tokenStride, args.scale, scratch);
    for (int p = begin; p < end; ++p) {
      const int keyBegin = p * args.partition;
      const int keyEnd = keyBegin + args.partition < tile.keys ? keyBegin + args.partition : tile.keys;
      const Partial result = begin > 0 ? workspace.left(p - begin) : p == 0 ? workspace.running() : workspace.newest();
      attendPartition(tile, group, cache, layout, blockTable(tile), keyBegin, keyEnd, after, scratch, result, lane);
      if (begin == 0 && p > 0) merge(firstRow(tile, p), tile.rows, padded, workspace.running(), result);
    }
    if (begin == 0 && end == count) finish(args, tile, group, padded, workspace.running());
    if (begin == 0 && end < count) {
      begunTile = tile;
      begunBefore = before;
    }
  };

  // One tile behind, so that the first keys of the next are on their way while a tile is computed.
  std::optional<Share> last;
  bool anySplit = false;
  int cut = 1;
  plan.forEachTile([&](const Tile& tile, int64_t before) {
    const int count = plan.partitions(tile);
    const int64_t after = before + plan.cost(tile, count);
    // Every thread looks at every cut, so that all agree on whether there is a barrier.
    while (cut < lane.count && plan.boundary(cut, lane.count) <= after) {
      const int partitionsBefore = plan.partitionsBefore(tile, before, plan.boundary(cut, lane.count));
      anySplit = anySplit || (partitionsBefore > 0 && partitionsBefore < count);
      ++cut;
    }
    if (after <= rangeBegin || before >= rangeEnd) return;
    const int begin = plan.partitionsBefore(tile, before, rangeBegin);
    const int end = plan.partitionsBefore(tile, before, rangeEnd);
    if (begin == end) return;
    if (last) attend(*last, KeyBlocks(tile, cache, layout, blockTable(tile), begin * args.partition).next());
    last = {tile, before, begin, end};
  });
  if (last) attend(*last, {});
  if (!anySplit) return;
  lane.sync();
  if (begunBefore < 0) return;

  const int count = plan.partitions(begunTile);
  int p = plan.partitionsBefore(begunTile, begunBefore, rangeEnd);
  for (int other = lane.index + 1; p < count; ++other) {
    const int end = plan.partitionsBefore(begunTile, begunBefore, plan.boundary(other + 1, lane.count));
    const Workspace theirs(lane.team[other].scratch, cache.headSize);
    for (int i = 0; p < end; ++i, ++p) {
      merge(firstRow(begunTile, p), begunTile.rows, padded, workspace.running(), theirs.left(i));
    }
  }
  finish(args, begunTile, group, padded, workspace.running());
}

}  // namespace nvlm::NVLM_PATH
