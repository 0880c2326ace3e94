// Kernels that read packed weights (formats/SPEC.md section 4), in the order of the file: nothing is repacked, because the four
// codes of a row's half unit already lie in one word, and those of 16 rows side by side.
//
// `tiles` says where a tile of 16 rows lies, in TILE_WORDS numbers; a weight that is cut by columns has `n_pieces` of them in a row.
#define TILE_WORDS 8
#define TILE_CODES 0      // in 16 bytes from the beginning of `weights`
#define TILE_SCALES 1     // the same
#define TILE_ROW 2        // where its first row goes in the output
#define TILE_N_ROWS 3
#define TILE_BITS 4
#define TILE_COLUMNS 5
#define TILE_COLUMN 6     // the activation that its first column meets
#define TILE_BOOK 7       // its codebook, in values from the beginning of `books`

#define STEP_GROUPS 32    // groups of columns whose sums a work group keeps before it adds them up in order
#define SLOTS 4           // work items that share a row
#define STEP_TOKENS 4     // tokens of one work item in a product with many

// The codes of row `r` in a unit of eight columns, one per byte: columns 0 to 3 in x[0], 4 to 7 in x[1].
#define UNPACK_2(unit, r, x)                                        \
    {                                                               \
        const uint pairs = unit[r & 7] >> 2 * (r >> 3);             \
        x[0] = pairs & 0x03030303u;                                 \
        x[1] = pairs >> 4 & 0x03030303u;                            \
    }
#define UNPACK_3(unit, r, x)                                        \
    {                                                               \
        const uint pairs = unit[r & 7] >> 2 * (r >> 3);             \
        const uint ones = unit[8 + (r & 3)] >> (r >> 2 ^ 2);        \
        x[0] = (pairs & 0x03030303u) | (ones & 0x01010101u) << 2;   \
        x[1] = (pairs >> 4 & 0x03030303u) | (ones >> 4 & 0x01010101u) << 2; \
    }
#define UNPACK_4(unit, r, x)                                        \
    {                                                               \
        x[0] = unit[r] & 0x0f0f0f0fu;                               \
        x[1] = unit[r] >> 4 & 0x0f0f0f0fu;                          \
    }
#define UNPACK_6(unit, r, x)                                        \
    {                                                               \
        const uint pairs = unit[16 + (r & 7)] >> 2 * (r >> 3);      \
        x[0] = (unit[r] & 0x0f0f0f0fu) | (pairs & 0x03030303u) << 4; \
        x[1] = (unit[r] >> 4 & 0x0f0f0f0fu) | (pairs >> 4 & 0x03030303u) << 4; \
    }
#define UNPACK_8(unit, r, x)                                        \
    {                                                               \
        x[0] = unit[r];                                             \
        x[1] = unit[16 + r];                                        \
    }

// What four codes stand for, as int8: values of a codebook, code - 32, or the code.
INLINE uint book_values(LOCAL const uint* book, uint codes) {
    return book[codes & 255u] | book[codes >> 8 & 255u] << 8 | book[codes >> 16 & 255u] << 16 | book[codes >> 24] << 24;
}
INLINE uint less_32(uint codes) { return ((codes | 0x80808080u) - 0x20202020u) ^ 0x80808080u; }
#define VALUES_2(book, codes) book_values(book, codes)
#define VALUES_3(book, codes) book_values(book, codes)
#define VALUES_4(book, codes) book_values(book, codes)
#define VALUES_6(book, codes) less_32(codes)
#define VALUES_8(book, codes) (codes)

// unit_values: of a row in one unit. group_sum: of a row and a token over the units of a group.
#define WEIGHTS_OF(bits)                                                                                          \
    INLINE void unit_values_##bits(LOCAL const uint* book, GLOBAL const uint* unit, int r, uint* values) {        \
        uint codes[2];                                                                                            \
        UNPACK_##bits(unit, r, codes)                                                                             \
        values[0] = VALUES_##bits(book, codes[0]);                                                                \
        values[1] = VALUES_##bits(book, codes[1]);                                                                \
    }                                                                                                             \
    INLINE int group_sum_##bits(LOCAL const uint* book, GLOBAL const uint* unit, int n_units, int r,              \
                                GLOBAL const uint* a) {                                                           \
        int sum = 0;                                                                                              \
        for (int u = 0; u < n_units; ++u) {                                                                       \
            uint values[2];                                                                                       \
            unit_values_##bits(book, unit + u * 4 * bits, r, values);                                             \
            sum = dot4(values[1], a[2 * u + 1], dot4(values[0], a[2 * u], sum));                                  \
        }                                                                                                         \
        return sum;                                                                                               \
    }
WEIGHTS_OF(2)
WEIGHTS_OF(3)
WEIGHTS_OF(4)
WEIGHTS_OF(6)
WEIGHTS_OF(8)

INLINE int group_sum(LOCAL const uint* book, GLOBAL const uint* unit, int bits, int n_units, int r, GLOBAL const uint* a) {
    switch (bits) {
        case 2: return group_sum_2(book, unit, n_units, r, a);
        case 3: return group_sum_3(book, unit, n_units, r, a);
        case 4: return group_sum_4(book, unit, n_units, r, a);
        case 6: return group_sum_6(book, unit, n_units, r, a);
        default: return group_sum_8(book, unit, n_units, r, a);
    }
}

INLINE void unit_values(LOCAL const uint* book, GLOBAL const uint* unit, int bits, int r, uint* values) {
    switch (bits) {
        case 2: unit_values_2(book, unit, r, values); break;
        case 3: unit_values_3(book, unit, r, values); break;
        case 4: unit_values_4(book, unit, r, values); break;
        case 6: unit_values_6(book, unit, r, values); break;
        default: unit_values_8(book, unit, r, values); break;
    }
}

// The codebook of a tile, one value per word, for all work items; nobody reads the one before any more.
INLINE void load_book(GLOBAL const int* tile, GLOBAL const uchar* books, LOCAL uint* book) {
    BARRIER();
    if (LANE < 16 && tile[TILE_BITS] <= 4) book[LANE] = books[tile[TILE_BOOK] + LANE];
    BARRIER();
}

// embed_row. Groups: token. The table's tiles begin at first_tile and have no column panels.
KERNEL edge_embed(GLOBAL const uchar* weights, GLOBAL const int* tiles, GLOBAL const uchar* books, int first_tile, int group,
                  GLOBAL const int* tokens, float factor, GLOBAL float* x, int d_model) {
    SHARED uint book[16];
    const int token = tokens[GROUP_X], r = token & 15;
    GLOBAL const int* tile = tiles + (wide)(first_tile + token / 16) * TILE_WORDS;
    GLOBAL const uint* codes = (GLOBAL const uint*)(weights + (wide)(uint)tile[TILE_CODES] * 16);
    GLOBAL const ushort* scales = (GLOBAL const ushort*)(weights + (wide)(uint)tile[TILE_SCALES] * 16);
    GLOBAL float* out = x + (wide)GROUP_X * d_model;
    const int bits = tile[TILE_BITS];
    load_book(tile, books, book);
    for (int u = LANE; u < d_model / 8; u += GROUP) {
        uint values[2];
        unit_values(book, codes + (wide)u * 4 * bits, bits, r, values);
        const float scale = half_at(scales, (wide)(u * 8 / group) * 16 + r);
        for (int c = 0; c < 8; ++c) {
            const int value = (int)(values[c >> 2] << (24 - 8 * (c & 3))) >> 24;
            out[u * 8 + c] = (float)value * scale * factor;
        }
    }
}

// matmul, for few tokens. Groups: tile, token. Four work items share a row: each multiplies every fourth group of columns, and one
// adds the groups up in their order, in which float sums are defined.
KERNEL edge_matvec(GLOBAL const uchar* weights, GLOBAL const int* tiles, GLOBAL const uchar* books, int first_tile, int n_pieces,
                   int group, GLOBAL const uint* codes, GLOBAL const float* scales, int stride, int group_stride,
                   GLOBAL float* y, int y_stride) {
    SHARED uint book[16];
    SHARED float sums[STEP_GROUPS][16];
    SHARED float factors[STEP_GROUPS][16];
    const int r = LANE % 16, slot = LANE / 16, t = GROUP_Y;
    GLOBAL const int* tile = tiles + ((wide)first_tile + (wide)GROUP_X * n_pieces) * TILE_WORDS;
    float acc = 0.0f;
    for (int piece = 0; piece < n_pieces; ++piece) {
        GLOBAL const int* own = tile + piece * TILE_WORDS;
        GLOBAL const uint* w = (GLOBAL const uint*)(weights + (wide)(uint)own[TILE_CODES] * 16);
        GLOBAL const ushort* w_scales = (GLOBAL const ushort*)(weights + (wide)(uint)own[TILE_SCALES] * 16);
        GLOBAL const uint* a = codes + ((wide)t * stride + own[TILE_COLUMN]) / 4;
        GLOBAL const float* a_scales = scales + (wide)t * group_stride + own[TILE_COLUMN] / group;
        const int bits = own[TILE_BITS], columns = own[TILE_COLUMNS], n_groups = (columns + group - 1) / group;
        load_book(own, books, book);
        for (int first = 0; first < n_groups; first += STEP_GROUPS) {
            const int n = n_groups - first < STEP_GROUPS ? n_groups - first : STEP_GROUPS;
            for (int i = slot; i < n; i += SLOTS) {
                const int g = first + i, column = g * group;
                const int n_columns = columns - column < group ? columns - column : group;
                sums[i][r] = (float)group_sum(book, w + (wide)(column / 8) * 4 * bits, bits, n_columns / 8, r, a + column / 4);
                factors[i][r] = half_at(w_scales, (wide)g * 16 + r) * a_scales[g];
            }
            BARRIER();
            if (slot == 0) {
                for (int i = 0; i < n; ++i) acc = FMA(sums[i][r], factors[i][r], acc);
            }
            BARRIER();
        }
    }
    if (slot == 0 && r < tile[TILE_N_ROWS]) y[(wide)t * y_stride + tile[TILE_ROW] + r] = acc;
}

// matmul, for many tokens. Groups: tile, SLOTS * STEP_TOKENS tokens. A work item has one row and STEP_TOKENS tokens.
KERNEL edge_matmul(GLOBAL const uchar* weights, GLOBAL const int* tiles, GLOBAL const uchar* books, int first_tile, int n_pieces,
                   int group, GLOBAL const uint* codes, GLOBAL const float* scales, int stride, int group_stride, int n_tokens,
                   GLOBAL float* y, int y_stride) {
    SHARED uint book[16];
    const int r = LANE % 16, first_token = (GROUP_Y * SLOTS + LANE / 16) * STEP_TOKENS;
    GLOBAL const int* tile = tiles + ((wide)first_tile + (wide)GROUP_X * n_pieces) * TILE_WORDS;
    float acc[STEP_TOKENS];
    int token[STEP_TOKENS];  // those behind the last one are computed for nobody
    for (int k = 0; k < STEP_TOKENS; ++k) {
        acc[k] = 0.0f;
        token[k] = first_token + k < n_tokens ? first_token + k : n_tokens - 1;
    }
    for (int piece = 0; piece < n_pieces; ++piece) {
        GLOBAL const int* own = tile + piece * TILE_WORDS;
        GLOBAL const uint* w = (GLOBAL const uint*)(weights + (wide)(uint)own[TILE_CODES] * 16);
        GLOBAL const ushort* w_scales = (GLOBAL const ushort*)(weights + (wide)(uint)own[TILE_SCALES] * 16);
        const int bits = own[TILE_BITS], columns = own[TILE_COLUMNS], n_groups = (columns + group - 1) / group;
        load_book(own, books, book);
        for (int g = 0; g < n_groups; ++g) {
            const int column = g * group, n_units = (columns - column < group ? columns - column : group) / 8;
            int sum[STEP_TOKENS];
            for (int k = 0; k < STEP_TOKENS; ++k) sum[k] = 0;
            for (int u = 0; u < n_units; ++u) {
                uint values[2];
                unit_values(book, w + (wide)(column / 8 + u) * 4 * bits, bits, r, values);
                for (int k = 0; k < STEP_TOKENS; ++k) {
                    GLOBAL const uint* a = codes + ((wide)token[k] * stride + own[TILE_COLUMN] + column) / 4 + 2 * u;
                    sum[k] = dot4(values[1], a[1], dot4(values[0], a[0], sum[k]));
                }
            }
            const float scale = half_at(w_scales, (wide)g * 16 + r);
            for (int k = 0; k < STEP_TOKENS; ++k) {
                const float a_scale = scales[(wide)token[k] * group_stride + own[TILE_COLUMN] / group + g];
                acc[k] = FMA((float)sum[k], scale * a_scale, acc[k]);
            }
        }
    }
    if (r >= tile[TILE_N_ROWS]) return;
    for (int k = 0; k < STEP_TOKENS; ++k) {
        if (first_token + k < n_tokens) y[(wide)token[k] * y_stride + tile[TILE_ROW] + r] = acc[k];
    }
}
