package edgesdk;

/** The functions of edge_jni.c. Handles are addresses; failures are thrown as {@link EdgeException}. */
final class Native {
    static {
        System.loadLibrary("edge_jni");
    }

    private Native() {}

    static native byte[] version();

    static native long modelLoad(byte[] path, int choose, double rate, long budgetBytes, int level, int contextTokens,
            int kvBits, int nThreads, int verify, int backend);

    static native byte[] modelBackend(long model);

    static native void modelClose(long model);

    static native int modelLevel(long model);

    static native void modelSetLevel(long model, int level, int recompute);

    static native void modelTrim(long model, int severity);

    static native int modelLevelCount(long model);

    static native LevelInfo modelLevelInfo(long model, int level);

    static native byte[] modelLevelReason(long model);

    static native int modelContextTokens(long model);

    static native int[] tokenize(long model, byte[] text, boolean special, boolean addBos);

    static native byte[] detokenize(long model, int[] tokens, boolean special);

    static native long sessionOpen(long model);

    static native void sessionClose(long session);

    static native void sessionReset(long session);

    static native void sessionCancel(long session);

    static native int sessionPosition(long session);

    static native void sessionSetSampling(long session, float temperature, int topK, float topP, float minP,
            float repetitionPenalty, long seed);

    static native int sessionGenerate(long session, int[] prompt, int maxTokens, byte[][] stops, ByteListener listener);

    /** What native code calls with each piece of text. */
    interface ByteListener {
        boolean onBytes(byte[] utf8);
    }
}
