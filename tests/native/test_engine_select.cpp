// Level selection on hand-made headers: exact byte counts, thresholds to the byte, and the errors' numbers.
#include <limits>

#include "bytes.h"
#include "engine_check.h"
#include "mapping.h"
#include "select.h"

using namespace edge;

namespace {

constexpr int kDims = 64, kVocab = 1000, kHeads = 4, kKvHeads = 2, kWidth = 128;

PanelPiece panel(int32_t run, int32_t rows, int32_t columns, int32_t row = 0, int32_t column = 0) {
    return {0, run, row, row + rows, column, column + columns, 4, 32, 0};
}

// Two levels: the first has half the heads' size and half the width. Run 0 is the small level, run 1 what the full adds.
Artifact two_levels() {
    Artifact a;
    a.model.name = "two";
    a.model.d_model = kDims;
    a.model.vocab_size = kVocab;
    a.model.max_context = 4096;
    a.codebooks.resize(1);
    a.runs.resize(2);
    for (int32_t i = 0; i < 2; ++i) a.runs[static_cast<size_t>(i)].first_level = i, a.runs[static_cast<size_t>(i)].last_level = 1;
    a.levels.resize(2);
    a.levels[0].rate = 0.3;
    a.levels[0].mapped_bytes = 40960;
    a.levels[0].file_bytes = 50000;
    a.levels[1].mapped_bytes = 81920;
    a.levels[1].file_bytes = 90000;
    a.levels[0].allocation = {{16, 16}, {kWidth / 2, 0}};
    a.levels[1].allocation = {{32, 32}, {kWidth, 0}};
    a.n_file_bytes = 90000;
    BlockSpec attention, mlp;
    attention.kind = BlockKind::attention;
    attention.n_heads = kHeads;
    attention.n_kv_heads = kKvHeads;
    attention.axes[0] = attention.axes[1] = {32, 16};
    for (int32_t run = 0; run < 2; ++run) {
        attention.weights[kQ].push_back(panel(run, kHeads * 16, kDims, run * kHeads * 16));
        attention.weights[kK].push_back(panel(run, kKvHeads * 16, kDims, run * kKvHeads * 16));
        attention.weights[kV].push_back(panel(run, kKvHeads * 16, kDims, run * kKvHeads * 16));
        attention.weights[kO].push_back(panel(run, kDims, kHeads * 16, 0, run * kHeads * 16));
        attention.inv_freq.push_back({0, run, kKvHeads * 8});
        mlp.weights[kGate].push_back(panel(run, kWidth / 2, kDims, run * kWidth / 2));
        mlp.weights[kUp].push_back(panel(run, kWidth / 2, kDims, run * kWidth / 2));
        mlp.weights[kDown].push_back(panel(run, kDims, kWidth / 2, 0, run * kWidth / 2));
    }
    attention.norm = mlp.norm = a.model.norm = {{0, 0, kDims}};
    mlp.axes[0] = {kWidth, 64};
    a.model.blocks = {attention, mlp};
    a.model.embed = a.model.head = {panel(0, kVocab, kDims)};
    return a;
}

void test_bytes() {
    const Artifact a = two_levels();
    for (const int level : {0, 1}) {
        const int64_t dims = level ? 32 : 16;
        const Needs eight = level_needs(a, level, {100, 8, 2}), sixteen = level_needs(a, level, {100, 16, 2});
        // Keys and values of 2 heads: 128 rows (two blocks of 64) of `dims` bytes with one float16 scale each; 16-bit caches
        // hold 100 rows, in whole lines of 64 bytes.
        const uint64_t plane = 128 * static_cast<uint64_t>(dims), scales = 256;
        check(eight.kv_bytes == 2 * 2 * (plane + scales), "8 bit cache of level " + std::to_string(level));
        check(sixteen.kv_bytes == 2 * 2 * ((200 * static_cast<uint64_t>(dims) + 63) / 64 * 64), "16 bit cache");
        check(eight.mapped_bytes == a.levels[static_cast<size_t>(level)].mapped_bytes, "mapped");
        check(eight.total_bytes == eight.mapped_bytes + eight.kv_bytes + eight.workspace_bytes, "total");
    }
    const uint64_t one = level_needs(a, 1, {100, 8, 1}).workspace_bytes, four = level_needs(a, 1, {100, 8, 4}).workspace_bytes;
    // Per thread: 64 query vectors (32 codes in a line of 64 bytes, 32 sums, 16 lanes, 3 numbers); of one key/value head the
    // queries, cosines, sines, key and value; its codes in a line.
    const uint64_t attention = 64 * (64 + 4 * (32 + 16 + 3)), vectors = (kHeads / kKvHeads + 4) * 32 * 4, codes = 64;
    check(four - one == 3 * (attention + vectors + codes), "workspace per thread");
    check(level_needs(a, 1, {std::numeric_limits<int32_t>::max(), 16, 256}).total_bytes > uint64_t{1} << 40, "no overflow");
}

// What a device reads where it is mapped counts once, whoever else reads it.
void test_shared_weights() {
    Artifact a = two_levels();
    a.levels[1].mapped_bytes = 1 << 20;
    Demand demand{100, 8, 1};
    demand.prefill_on_device = demand.decode_on_device = true;
    const Needs apart = level_needs(a, 1, demand);
    demand.shares_weights = true;
    const Needs alone = level_needs(a, 1, demand);
    demand.decode_on_device = false;
    const Needs both = level_needs(a, 1, demand);
    const uint64_t file = a.levels[1].mapped_bytes, tables = alone.mapped_bytes - file;
    check(alone.mapped_bytes > file && tables < apart.mapped_bytes, "tables beside the file");
    check(alone.device_bytes == tables + apart.device_bytes - apart.mapped_bytes, "the device holds tables, cache and rows");
    check(both.mapped_bytes == alone.mapped_bytes && both.kv_bytes > alone.kv_bytes, "two backends: weights once, caches twice");
    check(apart.buffer_bytes < file && alone.buffer_bytes == file, "shared weights are one buffer");
    a.data_offset = 4096;
    a.runs[1].begin = 8192;
    check(begin_at_pages(a, 4096) && !begin_at_pages(a, 8192), "runs at odd pages of 4096 bytes begin inside larger ones");
    a.runs[1].begin = 12288;
    a.data_offset = 16384;
    check(begin_at_pages(a, 4096) && !begin_at_pages(a, 16384), "only some runs begin inside a page");
    a.runs[1].begin = 32768;
    check(begin_at_pages(a, 16384), "all runs begin at pages of 16 KiB");
}

void test_budget() {
    const Artifact a = two_levels();
    const Demand demand{512, 8, 2};
    const uint64_t small = level_needs(a, 0, demand).total_bytes, full = level_needs(a, 1, demand).total_bytes;
    check(small < full, "levels grow");
    check(choose_by_budget(a, demand, full, "").level == 1, "exactly the full level");
    check(choose_by_budget(a, demand, full - 1, "").level == 0, "one byte less");
    check(choose_by_budget(a, demand, small, "").level == 0, "exactly the smallest level");
    std::string message;
    const auto refused = [&](uint64_t budget) {
        return status_of([&] { choose_by_budget(a, demand, budget, "why"); }, &message);
    };
    check(refused(small - 1) == EDGE_OUT_OF_MEMORY, "too small");
    check(contains(message, "1 bytes are missing (why)") && contains(message, "context 512"), message);
    const Demand shorter{256, 8, 2};
    check(contains(message, "`--context 256` needs " + mebibytes(level_needs(a, 0, shorter).total_bytes)), message);
    check(refused(1000) == EDGE_OUT_OF_MEMORY && contains(message, "hint: grant at least"), message);
    Artifact cut = two_levels();
    cut.n_file_bytes = 89999;
    check(choose_by_budget(cut, demand, full, "").level == 0, "a cut file gives what it holds");
}

void test_rate_and_level() {
    Artifact a = two_levels();
    check(choose_by_rate(a, 0).level == 1 && choose_by_rate(a, 1e-9).level == 0, "rate 0 is the full level only");
    check(choose_by_rate(a, 0.3).level == 0, "the largest rate");
    std::string message;
    for (const double rate : {-0.01, 0.31, std::numeric_limits<double>::quiet_NaN()}) {
        check(status_of([&] { choose_by_rate(a, rate); }, &message) == EDGE_BAD_ARGUMENT, "rate out of range");
        check(contains(message, "from 0 to 0.3"), message);
    }
    check(choose_by_level(a, 1).level == 1, "by level");
    check(status_of([&] { choose_by_level(a, 2); }) == EDGE_BAD_ARGUMENT, "no such level");
    a.n_file_bytes = 60000;
    check(status_of([&] { choose_by_level(a, 1); }, &message) == EDGE_TRUNCATED, "not in this file");
    check(contains(message, "90000") && contains(message, "60000"), message);
    check(status_of([&] { choose_by_rate(a, 0); }) == EDGE_TRUNCATED, "rate 0 of a cut file");
}

void test_saturation() {
    check(add_bytes(UINT64_MAX - 1, 2) == kTooManyBytes && add_bytes(1, 2) == 3, "add");
    check(multiply_bytes(uint64_t{1} << 40, uint64_t{1} << 40) == kTooManyBytes && multiply_bytes(6, 7) == 42, "multiply");
    check(align_bytes(65, 64) == 128 && align_bytes(128, 64) == 128 && align_bytes(UINT64_MAX, 64) == kTooManyBytes, "align");
    check(mebibytes(1 << 20) == "1.0 MiB" && mebibytes((1 << 20) + 1) == "1.1 MiB" && mebibytes(512) == "512 bytes", "mebibytes");
}

}  // namespace

int main() {
    test_bytes();
    test_shared_weights();
    test_budget();
    test_rate_and_level();
    test_saturation();
    return finish();
}
