package edgesdk;

import java.nio.charset.StandardCharsets;

/** Text crosses JNI as UTF-8 bytes: JNI's own strings use another encoding for NUL and for characters beyond 16 bits. */
final class Text {
    private Text() {}

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String of(byte[] utf8) {
        return new String(utf8, StandardCharsets.UTF_8);
    }
}
