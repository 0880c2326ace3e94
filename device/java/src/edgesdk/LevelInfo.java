package edgesdk;

/** One size that an artifact offers. */
public final class LevelInfo {
    /** 0 is the smallest level. */
    public final int index;

    /** False: this (cut) file does not hold it. */
    public final boolean available;

    /** Share of the full level's block weight bytes that it gave up. */
    public final double rate;

    /** Bytes of the file that it maps. */
    public final long mappedBytes;

    /** How much of the file must be there for it. */
    public final long fileBytes;

    /** Perplexity as the compiler measured it; NaN: not measured. */
    public final double perplexity;

    LevelInfo(int index, boolean available, double rate, long mappedBytes, long fileBytes, double perplexity) {
        this.index = index;
        this.available = available;
        this.rate = rate;
        this.mappedBytes = mappedBytes;
        this.fileBytes = fileBytes;
        this.perplexity = perplexity;
    }
}
