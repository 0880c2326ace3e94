package edgesdk;

/**
 * An artifact, mapped into memory at one level. It may be shared by threads; its sessions go on to live when it is closed.
 *
 * <pre>{@code
 * try (Model model = Model.load("model.edge", new LoadOptions().budgetBytes(120_000_000L));
 *         Session session = model.openSession()) {
 *     session.generate("Once upon a time", 64, piece -> { System.out.print(piece); return true; });
 * }
 * }</pre>
 */
public final class Model implements AutoCloseable {
    private long handle;

    private Model(long handle) {
        this.handle = handle;
    }

    /** The engine's version. */
    public static String engineVersion() {
        return Text.of(Native.version());
    }

    /** Loads the largest level that fits the free memory. Throws {@link EdgeException}. */
    public static Model load(String path) {
        return load(path, new LoadOptions());
    }

    /** Loads one level. Throws {@link EdgeException}. */
    public static Model load(String path, LoadOptions o) {
        return new Model(Native.modelLoad(Text.bytes(path), o.choose, o.rate, o.budgetBytes, o.level, o.contextTokens,
                o.kvBits, o.nThreads, o.verify, o.backend));
    }

    /** What computes: "cpu", "opencl" or "cuda". */
    public synchronized String backend() {
        return Text.of(Native.modelBackend(handle()));
    }

    /** The level that runs now; 0 is the smallest. */
    public synchronized int level() {
        return Native.modelLevel(handle());
    }

    /**
     * Changes the level while sessions go on, each from its next step. What both levels keep of conversations is taken along, or
     * they are computed again, in the next step or in the background. Throws {@link EdgeException}; then the level stays.
     */
    public synchronized void setLevel(int level, Recompute recompute) {
        Native.modelSetLevel(handle(), level, recompute.ordinal());
    }

    /** What becomes of conversations when the level changes (edge_recompute of edge.h, in its order). */
    public enum Recompute { NONE, NEXT_STEP, BACKGROUND }

    /** Why this level was chosen. */
    public synchronized String levelReason() {
        return Text.of(Native.modelLevelReason(handle()));
    }

    /**
     * Gives up a level for what Android's ComponentCallbacks2.onTrimMemory was told; 0 goes back to the level that was loaded
     * or set. Throws {@link EdgeException}.
     */
    public synchronized void trimMemory(int trimLevel) {
        int severity = trimLevel >= 80 || trimLevel == 15 ? 3 : trimLevel >= 40 || trimLevel == 10 ? 2 : trimLevel > 0 ? 1 : 0;
        Native.modelTrim(handle(), severity);
    }

    /** All levels, smallest first. */
    public synchronized LevelInfo[] levels() {
        LevelInfo[] levels = new LevelInfo[Native.modelLevelCount(handle())];
        for (int i = 0; i < levels.length; ++i) levels[i] = Native.modelLevelInfo(handle(), i);
        return levels;
    }

    /** Tokens that a session holds. */
    public synchronized int contextTokens() {
        return Native.modelContextTokens(handle());
    }

    /** Tokens of a text, with the model's first token where it has one. */
    public int[] tokenize(String text) {
        return tokenize(text, false, true);
    }

    /** Tokens of a text. special: it may name special tokens, as chat templates do; addBos: with the first token. */
    public synchronized int[] tokenize(String text, boolean special, boolean addBos) {
        return Native.tokenize(handle(), Text.bytes(text), special, addBos);
    }

    /** Text of tokens, without special ones. */
    public synchronized String detokenize(int[] tokens) {
        return Text.of(Native.detokenize(handle(), tokens, false));
    }

    /** A conversation of its own, for one thread at a time. Throws {@link EdgeException} when memory does not hold it. */
    public synchronized Session openSession() {
        return new Session(this, Native.sessionOpen(handle()));
    }

    @Override
    public synchronized void close() {
        if (handle != 0) Native.modelClose(handle);
        handle = 0;
    }

    private long handle() {
        if (handle == 0) throw new IllegalStateException("this model is closed");
        return handle;
    }
}
