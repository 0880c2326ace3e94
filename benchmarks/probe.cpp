// What this machine can do at most, measured beside the engine: reading memory, and multiply-accumulates on registers.
//
//   probe read BYTES THREADS SECONDS         anonymous memory on huge pages where the system gives them
//   probe map FILE BYTES THREADS SECONDS     the first bytes of a file, mapped like the engine maps an artifact
//   probe dot THREADS SECONDS                int8 dot products on registers only
//
// Prints one number: 10^9 bytes, or 10^9 multiply-accumulates, per second over all threads. Several ways of reading are
// tried for an equal share of the time, and the best one counts. Built for this machine only (-march=native).
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string& message) {
    std::fprintf(stderr, "error: %s\n", message.c_str());
    std::exit(1);
}

// Runs `pass` (which returns the work it did) on all threads for about `seconds`; work per second, in 10^9.
double rate_of(int n_threads, double seconds, const std::function<double(int thread)>& pass) {
    std::atomic<int> n_ready{0};
    std::atomic<bool> go{false};
    std::vector<double> rates(static_cast<size_t>(n_threads));
    std::vector<std::thread> threads;
    for (int i = 0; i < n_threads; ++i) {
        threads.emplace_back([&, i] {
            pass(i);  // touches every page
            ++n_ready;
            while (!go.load()) std::this_thread::yield();
            const auto begin = Clock::now();
            double work = 0, elapsed = 0;
            while (elapsed < seconds) {
                work += pass(i);
                elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
            }
            rates[static_cast<size_t>(i)] = work / elapsed;
        });
    }
    while (n_ready.load() < n_threads) std::this_thread::yield();
    go.store(true);
    double total = 0;
    for (std::thread& thread : threads) thread.join();
    for (const double rate : rates) total += rate;
    return total / 1e9;
}

// Sums bytes [begin, end) in vectors of `Width` bytes, as `Streams` neighbouring ranges side by side.
template <int Width, int Streams>
void read_range(const uint8_t* begin, const uint8_t* end, int64_t prefetch_bytes) {
    typedef uint64_t Vector __attribute__((vector_size(Width)));
    constexpr int kVectors = 256 / Width;  // per stream and step
    Vector sums[kVectors] = {};
    const int64_t length = (end - begin) / Streams / 256 * 256;
    for (int64_t at = 0; at < length; at += 256) {
        for (int s = 0; s < Streams; ++s) {
            const uint8_t* from = begin + s * length + at;
            if (prefetch_bytes) {
                for (int line = 0; line < 256; line += 64) __builtin_prefetch(from + prefetch_bytes + line);
            }
            for (int v = 0; v < kVectors; ++v) sums[v] += reinterpret_cast<const Vector*>(from)[v];
        }
    }
    for (Vector& sum : sums) __asm__ volatile("" : : "m"(sum));  // the sums are used
}

using Reader = void(const uint8_t* begin, const uint8_t* end, int64_t prefetch_bytes);
struct Way {
    Reader* read;
    int64_t prefetch_bytes;
};
constexpr Way kWays[] = {{read_range<64, 1>, 0},    {read_range<64, 1>, 1024}, {read_range<64, 1>, 4096},
                         {read_range<64, 4>, 1024}, {read_range<32, 1>, 0},    {read_range<32, 1>, 1024}};

double read_rate(const uint8_t* data, int64_t bytes, int n_threads, double seconds) {
    double best = 0;
    for (const Way& way : kWays) {
        best = std::max(best, rate_of(n_threads, seconds / std::size(kWays), [&](int i) {
            const uint8_t* begin = data + bytes / 4096 * i / n_threads * 4096;
            const uint8_t* end = data + bytes / 4096 * (i + 1) / n_threads * 4096;
            way.read(begin, end, way.prefetch_bytes);
            return static_cast<double>(end - begin);
        }));
    }
    return best;
}

const uint8_t* anonymous(int64_t bytes) {
    const size_t huge = size_t{2} << 20, size = static_cast<size_t>(bytes) + 2 * huge;
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for " + std::to_string(bytes) + " bytes");
    auto* data = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(memory) + huge - 1) / huge * huge);
    madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);
    std::memset(data, 1, static_cast<size_t>(bytes));
    return data;
}

const uint8_t* mapped(const char* path, int64_t bytes) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (file < 0 || fstat(file, &info) != 0 || info.st_size < bytes) fail(std::string(path) + " has fewer bytes");
    void* memory = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) fail(std::string(path) + " cannot be mapped");
    return static_cast<const uint8_t*>(memory);
}

// The constraint of inline assembly that names the registers of dot products.
#if defined(__AVX2__)
#define EDGE_REGISTER "v"
#elif defined(__ARM_FEATURE_DOTPROD)
#define EDGE_REGISTER "w"
#else
#define EDGE_REGISTER "r"
#endif

#if defined(__AVX512VNNI__)
using Register = __m512i;
Register dot(Register acc, Register a, Register b) { return _mm512_dpbusd_epi32(acc, a, b); }
#elif defined(__AVXVNNI__)
using Register = __m256i;
Register dot(Register acc, Register a, Register b) { return _mm256_dpbusd_avx_epi32(acc, a, b); }
#elif defined(__AVX2__)
using Register = __m256i;
Register dot(Register acc, Register a, Register b) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
#elif defined(__ARM_FEATURE_DOTPROD)
using Register = int32x4_t;
Register dot(Register acc, Register a, Register b) {
    return vdotq_s32(acc, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
}
#else
using Register = int32_t;
Register dot(Register acc, Register a, Register b) { return acc + a * b; }
#endif

double dot_pass() {
    constexpr int kChains = 12, kRounds = 10000;
    Register sums[kChains] = {}, a{}, b{};
    __asm__ volatile("" : "+" EDGE_REGISTER(b));  // not known to be zero
    for (int round = 0; round < kRounds; ++round) {
        for (Register& sum : sums) {
            __asm__("" : "+" EDGE_REGISTER(a));  // a might change: every product is computed, and no sum leaves its register
            sum = dot(sum, a, b);
        }
    }
    for (Register& sum : sums) __asm__ volatile("" : : EDGE_REGISTER(sum));  // the sums are used
    constexpr double kMacs = sizeof(Register) > 4 ? sizeof(Register) : 1;  // of one instruction: a byte is one product
    return kMacs * kChains * kRounds;
}

}  // namespace

int main(int n_arguments, char** arguments) {
    const std::string what = n_arguments > 1 ? arguments[1] : "";
    const auto number = [&](int i) { return std::atof(arguments[i]); };
    double result = 0;
    if (what == "read" && n_arguments == 5) {
        const auto bytes = static_cast<int64_t>(number(2));
        result = read_rate(anonymous(bytes), bytes, static_cast<int>(number(3)), number(4));
    } else if (what == "map" && n_arguments == 6) {
        const auto bytes = static_cast<int64_t>(number(3));
        result = read_rate(mapped(arguments[2], bytes), bytes, static_cast<int>(number(4)), number(5));
    } else if (what == "dot" && n_arguments == 4) {
        result = rate_of(static_cast<int>(number(2)), number(3), [](int) { return dot_pass(); });
    } else {
        fail("probe read BYTES THREADS SECONDS | map FILE BYTES THREADS SECONDS | dot THREADS SECONDS");
    }
    std::printf("%.3f\n", result);
    return 0;
}
