// Keys and values, and attention over them. The cache of a block is one buffer: keys, their scales, values, their scales, each head
// by head, `capacity` keys long (a multiple of KEY_BLOCK). Within a head the order is that of kernels/ops.h: a work item per key reads
// words of four elements side by side with its neighbours, and so does one per element of the values.
#define MAX_HEAD 512      // elements of a head
#define KEY_BLOCK 64      // keys that are taken together: one per work item

INLINE int padded(int vo) { return (vo + 15) / 16 * 16; }

// Of one key/value head; bits: 8 or 16. `heads` is the number of key/value heads.
INLINE GLOBAL uchar* keys_of(GLOBAL uchar* cache, int head, int capacity, int qk, int bits) {
    return cache + (wide)head * capacity * qk * (bits / 8);
}
INLINE GLOBAL ushort* key_scales_of(GLOBAL uchar* cache, int head, int heads, int capacity, int qk) {
    return (GLOBAL ushort*)(cache + (wide)heads * capacity * qk) + (wide)head * capacity;
}
INLINE GLOBAL uchar* values_of(GLOBAL uchar* cache, int head, int heads, int capacity, int qk, int vo, int bits) {
    if (bits == 16) return cache + ((wide)heads * qk + (wide)head * vo) * capacity * 2;
    return cache + ((wide)heads * (qk + 2) + (wide)head * padded(vo)) * capacity;
}
INLINE GLOBAL ushort* value_scales_of(GLOBAL uchar* cache, int head, int heads, int capacity, int qk, int vo) {
    return (GLOBAL ushort*)(cache + (wide)heads * (qk + 2 + padded(vo)) * capacity) + (wide)head * capacity;
}

// store_q8's scale of a head vector, as float16.
INLINE uint cache_scale(LOCAL const float* x, int n, LOCAL float* shared) {
    float largest = 0.0f;
    for (int c = LANE; c < n; c += GROUP) largest = fmax(largest, fabs(x[c]));
    largest = largest_of(shared, largest);
    const float ideal = largest / 127.0f;
    return half_bits(ideal < 65504.0f ? ideal : 65504.0f);
}
INLINE uint cache_code(float x, float step) {
    if (step == 0.0f) return 0;
    const float ratio = x / step;
    return (uint)(int)ROUND(fmax(ratio < 127.0f ? ratio : 127.0f, -127.0f)) & 255u;
}

// One head vector to its place for `position`; `scale` is cache_scale's.
INLINE void store_key(LOCAL const float* key, int qk, GLOBAL uchar* keys, GLOBAL ushort* scales, uint scale, int position, int bits) {
    if (bits == 16) {
        GLOBAL ushort* row = (GLOBAL ushort*)keys + (wide)position * qk;
        for (int c = LANE; c < qk; c += GROUP) row[c] = (ushort)half_bits(key[c]);
    } else {
        const float step = half_value(scale);
        GLOBAL uint* words = (GLOBAL uint*)(keys + (wide)(position / 16) * 16 * qk);
        if (LANE == 0) scales[position] = (ushort)scale;
        for (int w = LANE; w < qk / 4; w += GROUP) {
            uint packed = 0;
            for (int i = 0; i < 4; ++i) packed |= cache_code(key[4 * w + i], step) << 8 * i;
            words[w * 16 + position % 16] = packed;
        }
    }
}

INLINE void store_value(LOCAL const float* value, int vo, GLOBAL uchar* values, GLOBAL ushort* scales, uint scale, int position, int bits) {
    if (bits == 16) {
        GLOBAL ushort* row = (GLOBAL ushort*)values + (wide)position * vo;
        for (int c = LANE; c < vo; c += GROUP) row[c] = (ushort)half_bits(value[c]);
    } else {
        const float step = half_value(scale);
        GLOBAL uchar* column = values + (wide)(position / 4) * padded(vo) * 4 + position % 4;
        if (LANE == 0) scales[position] = (ushort)scale;
        for (int c = LANE; c < vo; c += GROUP) column[4 * c] = (uchar)cache_code(value[c], step);
    }
}

// 1 / root mean square of a head.
INLINE float inverse_head_rms(LOCAL const float* x, int n, float eps, LOCAL float* lanes) {
    BARRIER();
    if (LANE < 16) {
        float acc = 0.0f;
        for (int c = LANE; c < n; c += 16) acc = FMA(x[c], x[c], acc);
        lanes[LANE] = acc;
    }
    const float mean = sum_lanes(lanes) / (float)n;
    return 1.0f / sqrt(mean + eps);
}

// rope, and store_q8 or store_f16. Groups: head (the query heads, then those of keys, then those of values), token. A row is (q, k, v)
// in axis order; queries go to `queries` (token, head, qk). The angle of pair i of the key/value heads, in axis order, is number
// places[i] of the token's n_angles (cosine, sine). All groups meet at the same barriers, whatever they do.
KERNEL edge_store(GLOBAL const float* rows, int row_stride, GLOBAL const float* vectors, int q_bias, int k_bias, int q_norm, int k_norm,
                  float eps, int n_heads, int n_kv_heads, int qk, int vo, int qk_quantum, int vo_quantum, GLOBAL const float* angles,
                  int n_angles, GLOBAL const int* places, int first_place, GLOBAL float* queries, GLOBAL uchar* cache, int capacity,
                  int first_position, int bits) {
    SHARED float head[MAX_HEAD];
    SHARED float shared[GROUP];
    const int t = GROUP_Y, position = first_position + t;
    const int is_query = GROUP_X < n_heads, is_value = GROUP_X >= n_heads + n_kv_heads;
    const int own = is_query ? GROUP_X : is_value ? GROUP_X - n_heads - n_kv_heads : GROUP_X - n_heads;
    const int heads = is_query ? n_heads : n_kv_heads, kv = is_query ? own / (n_heads / n_kv_heads) : own;
    const int dims = is_value ? vo : qk, quantum = is_value ? vo_quantum : qk_quantum;
    const int bias = is_query ? q_bias : is_value ? -1 : k_bias, norm = is_query ? q_norm : is_value ? -1 : k_norm;
    GLOBAL const float* from = rows + (wide)t * row_stride + (is_query ? 0 : is_value ? (n_heads + n_kv_heads) * qk : n_heads * qk);
    for (int e = LANE; e < dims; e += GROUP) {
        const int at = (e / quantum * heads + own) * quantum + e % quantum;
        head[e] = bias >= 0 ? from[at] + vectors[bias + at] : from[at];
    }
    const float inverse = inverse_head_rms(head, dims, eps, shared);
    GLOBAL const float* turns = angles + (wide)t * n_angles * 2;
    const int half_quantum = qk_quantum / 2;
    for (int pair = is_value ? qk : LANE; pair < qk / 2; pair += GROUP) {
        const int run = pair / half_quantum, first = run * qk_quantum + pair % half_quantum, second = first + half_quantum;
        const int place = places[first_place + (run * n_kv_heads + kv) * half_quantum + pair % half_quantum];
        const float cosine = turns[2 * place], sine = turns[2 * place + 1];
        float a = head[first], b = head[second];
        if (norm >= 0) {
            a = a * inverse * vectors[norm + first];
            b = b * inverse * vectors[norm + second];
        }
        head[first] = a * cosine - b * sine;
        head[second] = b * cosine + a * sine;
    }
    BARRIER();
    const uint scale = cache_scale(head, dims, shared);
    if (is_query) {
        GLOBAL float* to = queries + ((wide)t * n_heads + own) * qk;
        for (int e = LANE; e < qk; e += GROUP) to[e] = head[e];
    } else if (is_value) {
        store_value(head, vo, values_of(cache, kv, n_kv_heads, capacity, qk, vo, bits),
                    value_scales_of(cache, kv, n_kv_heads, capacity, qk, vo), scale, position, bits);
    } else {
        store_key(head, qk, keys_of(cache, kv, capacity, qk, bits), key_scales_of(cache, kv, n_kv_heads, capacity, qk), scale,
                  position, bits);
    }
}

// attention_q8. Groups: query head, token. out: (token, head, vo).
KERNEL edge_attention_q8(GLOBAL const float* queries, int n_heads, int n_kv_heads, int qk, int vo, GLOBAL uchar* cache, int capacity,
                         int position, float softmax_scale, int window, float softcap, GLOBAL float* out) {
    SHARED uint query[MAX_HEAD / 4];
    SHARED float acc[MAX_HEAD];
    SHARED float shared[GROUP];
    SHARED float weights[KEY_BLOCK];
    SHARED float lanes[16];
    SHARED uint portions[KEY_BLOCK / 4];
    const int head = GROUP_X, t = GROUP_Y, kv = head / (n_heads / n_kv_heads), n_keys = position + t + 1;
    const int first = window && n_keys > window ? n_keys - window : 0;
    GLOBAL const float* q = queries + ((wide)t * n_heads + head) * qk;
    GLOBAL const uint* keys = (GLOBAL const uint*)keys_of(cache, kv, capacity, qk, 8);
    GLOBAL const ushort* key_scales = key_scales_of(cache, kv, n_kv_heads, capacity, qk);
    GLOBAL const uint* values = (GLOBAL const uint*)values_of(cache, kv, n_kv_heads, capacity, qk, vo, 8);
    GLOBAL const ushort* value_scales = value_scales_of(cache, kv, n_kv_heads, capacity, qk, vo);

    float largest = 0.0f;
    for (int e = LANE; e < qk; e += GROUP) largest = fmax(largest, fabs(q[e]));
    largest = largest_of(shared, largest);
    const float q_inverse = inverse_of(largest, 127.0f), q_factor = largest / 127.0f * softmax_scale;
    for (int w = LANE; w < qk / 4; w += GROUP) {
        uint packed = 0;
        for (int i = 0; i < 4; ++i) packed |= activation_code(q[4 * w + i], q_inverse) << 8 * i;
        query[w] = packed;
    }
    for (int c = LANE; c < vo; c += GROUP) acc[c] = 0.0f;
    if (LANE < 16) lanes[LANE] = 0.0f;
    BARRIER();

    float m = -3.4e38f;
    for (int begin = first / KEY_BLOCK * KEY_BLOCK; begin < n_keys; begin += KEY_BLOCK) {
        const int j = begin + LANE, is_seen = j >= first && j < n_keys;
        float s = -3.4e38f;
        if (is_seen) {
            GLOBAL const uint* key = keys + (wide)(j / 16) * 4 * qk + j % 16;
            int sum = 0;
            for (int w = 0; w < qk / 4; ++w) sum = dot4(query[w], key[w * 16], sum);
            s = (float)sum * (half_at(key_scales, j) * q_factor);
            if (softcap > 0.0f) s = edge_softcap(s, softcap);
        }
        const float next = fmax(m, largest_of(shared, s)), factor = edge_exp(m - next);
        const float e = is_seen ? edge_exp(s - next) : 0.0f;
        weights[LANE] = e;
        BARRIER();
        if (LANE < 16) {
            float lane = lanes[LANE] * factor;
            for (int k = LANE; k < KEY_BLOCK; k += 16) lane += weights[k];
            lanes[LANE] = lane;
        }
        const float weight = is_seen ? e * half_at(value_scales, j) : 0.0f;
        const float most = largest_of(shared, weight);
        ((LOCAL uchar*)portions)[LANE] = (uchar)(int)ROUND(weight * inverse_of(most, 255.0f));
        BARRIER();
        const int n_quads = ((n_keys - begin < KEY_BLOCK ? n_keys - begin : KEY_BLOCK) + 3) / 4;
        for (int c = LANE; c < vo; c += GROUP) {
            GLOBAL const uint* column = values + (wide)(begin / 4) * padded(vo) + c;
            int products = 0;
            for (int k = 0; k < n_quads; ++k) products = dot4_unsigned(portions[k], column[(wide)k * padded(vo)], products);
            acc[c] = FMA((float)products, most / 255.0f, acc[c] * factor);
        }
        m = next;
        BARRIER();
    }
    const float inverse = 1.0f / sum_lanes(lanes);
    for (int c = LANE; c < vo; c += GROUP) out[((wide)t * n_heads + head) * vo + c] = acc[c] * inverse;
}

// The product of a query and a float16 key by the 16-lane rule.
INLINE float dot_f16(GLOBAL const float* q, GLOBAL const ushort* key, int n) {
    float lanes[16];
    for (int l = 0; l < 16; ++l) lanes[l] = 0.0f;
    for (int c = 0; c < n; c += 8) {
        for (int i = 0; i < 8; ++i) lanes[(c & 8) + i] = FMA(q[c + i], half_at(key, c + i), lanes[(c & 8) + i]);
    }
    for (int step = 8; step > 0; step /= 2) {
        for (int l = 0; l < step; ++l) lanes[l] += lanes[l + step];
    }
    return lanes[0];
}

// attention_f16, for tokens first_token and up. Groups: query head, token. scores: (token, head, capacity), for the tokens of this call.
KERNEL edge_attention_f16(GLOBAL const float* queries, int n_heads, int n_kv_heads, int qk, int vo, GLOBAL uchar* cache, int capacity,
                          int position, float softmax_scale, int window, float softcap, GLOBAL float* out, int first_token,
                          GLOBAL float* scores) {
    SHARED float shared[GROUP];
    SHARED float lanes[16];
    const int head = GROUP_X, t = first_token + GROUP_Y, kv = head / (n_heads / n_kv_heads), n_keys = position + t + 1;
    const int first = window && n_keys > window ? n_keys - window : 0;
    GLOBAL const float* q = queries + ((wide)t * n_heads + head) * qk;
    GLOBAL const ushort* keys = (GLOBAL const ushort*)keys_of(cache, kv, capacity, qk, 16);
    GLOBAL const ushort* values = (GLOBAL const ushort*)values_of(cache, kv, n_kv_heads, capacity, qk, vo, 16);
    GLOBAL float* own = scores + ((wide)GROUP_Y * n_heads + head) * capacity;

    float largest = -3.4e38f;
    for (int j = first + LANE; j < n_keys; j += GROUP) {
        float s = dot_f16(q, keys + (wide)j * qk, qk) * softmax_scale;
        if (softcap > 0.0f) s = edge_softcap(s, softcap);
        own[j] = s;
        largest = fmax(largest, s);
    }
    largest = largest_of(shared, largest);
    for (int j = first + LANE; j < n_keys; j += GROUP) own[j] = edge_exp(own[j] - largest);
    BARRIER();
    if (LANE < 16) {
        float lane = 0.0f;
        for (int j = (first + 15 - LANE) / 16 * 16 + LANE; j < n_keys; j += 16) lane += own[j];
        lanes[LANE] = lane;
    }
    const float inverse = 1.0f / sum_lanes(lanes);
    for (int c = LANE; c < vo; c += GROUP) {
        float sum = 0.0f;
        for (int j = first; j < n_keys; ++j) sum = FMA(own[j], half_at(values, (wide)j * vo + c), sum);
        out[((wide)t * n_heads + head) * vo + c] = sum * inverse;
    }
}
