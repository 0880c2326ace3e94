#include "kernels/float16.h"
#include "kernels/ops.h"
#include "kernels/reference/panel_values.h"

namespace edge {

embed_row_t embed_row_reference;

void embed_row_reference(const Panel& w, int bits, int row, float factor, float* out) {
    const int tile = row / kTileRows, r = row % kTileRows, n_groups = panel_groups(w);
    value_t* value = value_at(bits);
    for (int c = 0; c < w.columns; ++c) {
        const float scale = f16_to_f32(w.scales[(static_cast<int64_t>(tile) * n_groups + c / w.group) * kTileRows + r]);
        out[c] = static_cast<float>(value(w, tile, r, c)) * scale * factor;
    }
}

}  // namespace edge
