#include "kernels/float16.h"
#include "kernels/ops.h"

namespace edge {

embed_row_q8_t embed_row_q8_reference;

void embed_row_q8_reference(const Panel& w, int row, float factor, float* out) {
    const int64_t tile = row / kTileRows;
    const int r = row % kTileRows, n_units = w.columns / kUnitColumns, n_groups = panel_groups(w);
    for (int unit = 0; unit < n_units; ++unit) {
        const int group = unit * kUnitColumns / w.group;
        const float scale = f16_to_f32(w.scales[(tile * n_groups + group) * kTileRows + r]);
        const uint8_t* codes = w.codes + (tile * n_units + unit) * 128 + 4 * r;
        for (int c = 0; c < kUnitColumns; ++c) {
            const int8_t code = static_cast<int8_t>(codes[64 * (c / 4) + c % 4]);
            out[unit * kUnitColumns + c] = static_cast<float>(code) * scale * factor;
        }
    }
}

}  // namespace edge
