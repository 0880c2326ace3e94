// SHA-256 against the vectors of FIPS 180-4, with and without the processor's instructions, in any division of the data.
#include <algorithm>
#include <vector>

#include "engine_check.h"
#include "sha256.h"

using namespace edge;

namespace {

std::string digest(const std::string& data, bool portable, size_t step) {
    Sha256 hash(portable);
    for (size_t i = 0; i < data.size(); i += step) hash.update(data.data() + i, std::min(step, data.size() - i));
    return hex(hash.finish());
}

}  // namespace

int main() {
    const std::pair<std::string, std::string> vectors[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {std::string(1000000, 'a'), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
    };
    for (const auto& [data, expected] : vectors) {
        for (const bool portable : {true, false}) {
            for (const size_t step : {size_t{1}, size_t{63}, size_t{64}, size_t{65}, size_t{4096}}) {
                check(digest(data, portable, step) == expected,
                      std::to_string(data.size()) + " bytes by " + std::to_string(step) + (portable ? ", portable" : ""));
            }
        }
    }
    for (size_t n = 0; n < 200; ++n) {  // every length of the padding
        std::string data(n, '\0');
        for (size_t i = 0; i < n; ++i) data[i] = static_cast<char>(i * 37 + 1);
        check(digest(data, true, 7) == digest(data, false, 64), "portable and fast differ at " + std::to_string(n));
    }
    return finish();
}
