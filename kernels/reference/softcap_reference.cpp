#include "kernels/exp.h"
#include "kernels/ops.h"

namespace edge {

softcap_t softcap_reference;

void softcap_reference(float* x, float cap, int64_t n) {
    for (int64_t i = 0; i < n; ++i) x[i] = edge_softcap(x[i], cap);
}

}  // namespace edge
