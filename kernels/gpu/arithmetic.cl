// What several kernels compute with. Formulas and orders are those of kernels/ops.h, so that a device that rounds divisions and
// square roots to the nearest gives the bits of the CPU.

// kernels/exp.h
INLINE float edge_exp(float x) {
    if (x < -87.3f) return 0.0f;
    if (x > 88.35f) x = 88.35f;
    const float shifted = FMA(x, 0x1.715476p+0f, 12582912.0f);
    const float n = shifted - 12582912.0f;
    float r = FMA(n, -0.693359375f, x);
    r = FMA(n, 0.00021219444f, r);
    float q = FMA(0x1.6a23d0p-10f, r, 0x1.123a20p-7f);
    q = FMA(q, r, 0x1.5558f2p-5f);
    q = FMA(q, r, 0x1.555492p-3f);
    q = FMA(q, r, 0x1.fffffcp-2f);
    return (FMA(q, r * r, r) + 1.0f) * FLOAT((BITS(shifted) + 127u) << 23);
}

INLINE float edge_softcap(float x, float cap) { return cap * (1.0f - 2.0f / (1.0f + edge_exp(x * (2.0f / cap)))); }

// kernels/float16.h: for finite numbers.
INLINE uint half_bits(float value) {
    const uint bits = BITS(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude >= 0x477ff000u) return sign | 0x7c00u;
    if (magnitude < 0x38800000u) return sign | (BITS(FLOAT(magnitude) + 0.5f) - 0x3f000000u);
    return sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
}

INLINE float half_value(uint half_number) {
    const uint exponent = half_number >> 10 & 31u, fraction = half_number & 1023u;
    const float magnitude = exponent == 0 ? (float)fraction * 0x1p-24f : FLOAT((exponent + 112u) << 23 | fraction << 13);
    return half_number & 0x8000u ? -magnitude : magnitude;
}

// An activation's int8 code in the low byte; `inverse` is 127 / the largest of its group.
INLINE uint activation_code(float x, float inverse) {
    const float rounded = ROUND(x * inverse);
    return (uint)(int)(fabs(rounded) <= 127.0f ? rounded : 0.0f) & 255u;
}

INLINE float inverse_of(float largest, float levels) { return largest >= 1e-30f ? levels / largest : 0.0f; }

// The 16-lane rule's last step, and the largest of all: every work item of the group gets the result.
INLINE float sum_lanes(LOCAL float* lanes) {
    for (int step = 8; step > 0; step /= 2) {
        BARRIER();
        if (LANE < step) lanes[LANE] += lanes[LANE + step];
    }
    BARRIER();
    return lanes[0];
}

#ifdef SUBGROUPS
INLINE float largest_of(LOCAL float* shared, float own) {
    const float within = SUBGROUP_LARGEST(own);
    BARRIER();
    if (SUBGROUP_LANE == 0) shared[SUBGROUP] = within;
    BARRIER();
    float largest = shared[0];
    for (int i = 1; i < SUBGROUPS; ++i) largest = fmax(largest, shared[i]);
    BARRIER();
    return largest;
}
#else
INLINE float largest_of(LOCAL float* shared, float own) {
    BARRIER();
    shared[LANE] = own;
    for (int step = GROUP / 2; step > 0; step /= 2) {
        BARRIER();
        if (LANE < step) shared[LANE] = fmax(shared[LANE], shared[LANE + step]);
    }
    BARRIER();
    const float largest = shared[0];
    BARRIER();
    return largest;
}
#endif

// 1 / root mean square of n numbers.
INLINE float inverse_rms(GLOBAL const float* x, int n, float eps, LOCAL float* lanes) {
    BARRIER();
    if (LANE < 16) {
        float acc = 0.0f;
        for (int c = LANE; c < n; c += 16) acc = FMA(x[c], x[c], acc);
        lanes[LANE] = acc;
    }
    const float mean = sum_lanes(lanes) / (float)n;
    return 1.0f / sqrt(mean + eps);
}
