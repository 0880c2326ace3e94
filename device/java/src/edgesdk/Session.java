package edgesdk;

/** One conversation: its calls run one after another; {@link #cancel} may come from any thread. */
public final class Session implements AutoCloseable {
    private final Model model;
    private final Object handleLock = new Object();
    private long handle;
    private boolean generating;

    Session(Model model, long handle) {
        this.model = model;
        this.handle = handle;
    }

    /** How the next tokens are chosen; greedy until this is called. */
    public synchronized void setSampling(Sampling s) {
        Native.sessionSetSampling(handle(), s.temperature, s.topK, s.topP, s.minP, s.repetitionPenalty, s.seed);
    }

    /** Continues the conversation with a text and returns the answer. The model must still be open. */
    public String generate(String prompt, int maxTokens) {
        StringBuilder text = new StringBuilder();
        generate(prompt, maxTokens, piece -> {
            text.append(piece);
            return true;
        });
        return text.toString();
    }

    /** Continues the conversation with a text; each piece of the answer goes to the listener. Returns its tokens. */
    public int generate(String prompt, int maxTokens, TextListener listener, String... stops) {
        return generate(model.tokenize(prompt, false, position() == 0), maxTokens, listener, stops);
    }

    /**
     * Continues the conversation with tokens. Ends at maxTokens, an end token, the end of the context, before one of the
     * stop texts, or when the listener returns false. Throws {@link EdgeException}.
     */
    public synchronized int generate(int[] prompt, int maxTokens, TextListener listener, String... stops) {
        byte[][] stopBytes = new byte[stops.length][];
        for (int i = 0; i < stops.length; ++i) stopBytes[i] = Text.bytes(stops[i]);
        long open = handle();
        generating = true;
        try {
            return Native.sessionGenerate(open, prompt, maxTokens, stopBytes, utf8 -> listener.onText(Text.of(utf8)));
        } finally {
            generating = false;
        }
    }

    /** Tokens of the conversation so far. */
    public synchronized int position() {
        return Native.sessionPosition(handle());
    }

    /** Forgets the conversation. */
    public synchronized void reset() {
        Native.sessionReset(handle());
    }

    /** Ends the call that runs, or else the next one that computes: it throws an {@link EdgeException} of status 3. */
    public void cancel() {
        synchronized (handleLock) {
            if (handle != 0) Native.sessionCancel(handle);
        }
    }

    /** Waits for a call that runs in another thread. */
    @Override
    public synchronized void close() {
        if (generating) throw new IllegalStateException("a listener cannot close the session that calls it");
        synchronized (handleLock) {
            if (handle != 0) Native.sessionClose(handle);
            handle = 0;
        }
    }

    private long handle() {
        if (handle == 0) throw new IllegalStateException("this session is closed");
        if (generating) throw new IllegalStateException("a listener cannot call the session that calls it");
        return handle;
    }
}
