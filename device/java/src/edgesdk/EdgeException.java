package edgesdk;

/** A call of the engine failed. The message says what was found and expected; {@link #hint} is a way out, or empty. */
public final class EdgeException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /** A status of edge.h: 1-99 the caller's fault, 100-199 the file's, 200-299 the machine's, 300 and more ours. */
    public final int status;

    /** What to do about it; empty where there is no advice. */
    public final String hint;

    EdgeException(int status, byte[] utf8) {
        super(Text.of(utf8).split("\nhint: ", 2)[0]);
        this.status = status;
        String[] parts = Text.of(utf8).split("\nhint: ", 2);
        this.hint = parts.length == 2 ? parts[1] : "";
    }
}
